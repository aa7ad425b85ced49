"""Rematerialisation: the same gradients from fewer kept activations, at the price of computing them twice."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emokd.models import efficientnet, emonet, resnet
from emokd.models.efficientformer import Attention, MetaBlock, TokenMlp
from emokd.models.layers import global_average_pool
from emokd.models.mobilenet_v2 import InvertedResidual
from emokd.models.network import Functional, NetworkSpec, functional

NETWORKS = {
    "basic_cnn": ({"width": 8, "size": 32}, (4, 32, 32, 3)),
    "efficientformer_l1": ({}, (4, 224, 224, 3)),
    "efficientnet_b0": ({}, (16, 64, 64, 3)),
    "efficientnet_lite0": ({}, (16, 64, 64, 3)),
    "emonet": ({}, (4, 256, 256, 3)),
    "mini_xception": ({}, (4, 32, 32, 1)),
    "mobilenet_v2": ({"width": 0.35}, (4, 64, 64, 3)),
    "r3d18": ({"width": 2}, (4, 4, 32, 32, 3)),
    "resnet18": ({}, (16, 64, 64, 3)),
    "resnet50": ({}, (16, 64, 64, 3)),
}

LONG = ("efficientformer_l1", "efficientnet_b0", "efficientnet_lite0", "emonet", "mobilenet_v2", "resnet50")  # to trace

# One block of the networks whose whole gradient takes long to compile.
BLOCKS = {
    "efficientformer": (lambda rngs: MetaBlock(Attention(8, rngs=rngs), TokenMlp(8, rngs=rngs), 8), (2, 49, 8)),
    "efficientnet": (
        lambda rngs: efficientnet.Block(
            *(8, 8),
            expansion=4,
            strides=1,
            kernel_size=5,
            squeeze=True,
            activation=jax.nn.silu,
            style="tensorflow",
            rngs=rngs,
        ),
        (2, 8, 8, 8),
    ),
    "emonet": (lambda rngs: emonet.Block(8, 16, rngs=rngs), (2, 8, 8, 8)),
    "mobilenet_v2": (lambda rngs: InvertedResidual(8, 8, expansion=6, strides=1, rngs=rngs), (2, 8, 8, 8)),
    "resnet50": (lambda rngs: resnet.Block(8, 4, 2, bottleneck=True, rngs=rngs), (2, 8, 8, 8)),
}


def loss_of(network, stats, inputs):
    def loss(params):
        signals, moved = network(params, stats, inputs, train=True, key=jax.random.key(0))
        return (signals.logits**2).mean(), moved

    return loss


def kept_bytes(network, shape) -> int:
    """What the forward pass hands to the backward pass, parameters aside."""
    params, stats = network.abstract

    def backward(params, stats, inputs):
        return jax.vjp(loss_of(network, stats, inputs), params, has_aux=True)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, params, stats, jax.ShapeDtypeStruct(shape, jnp.float32)))
    return sum(4 * math.prod(x.shape) for x in kept) - sum(4 * math.prod(x.shape) for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NETWORKS]
)
def test_fewer_activations_are_kept(backbone):
    options, shape = NETWORKS[backbone]
    spec = NetworkSpec(backbone, options, {"expression": 3})
    whole, blocks = (kept_bytes(functional(spec, remat=remat), shape) for remat in (False, True))
    assert 0 < blocks < 0.6 * whole


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_and_statistics_are_the_same(precision):
    spec = NetworkSpec("basic_cnn", {"width": 4, "size": 16}, {"expression": 3}, dropout=0.2)
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    found = []
    for remat in (False, True):
        network = functional(spec, precision=precision, remat=remat)
        params, stats = network.init(jax.random.key(1))
        found.append(jax.jit(jax.grad(loss_of(network, stats, images), has_aux=True))(params))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(found[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


class Single(nnx.Module):
    """One block as a network."""

    def __init__(self, make, *, rngs: nnx.Rngs):
        self.block = make(rngs)

    def __call__(self, x, *, rngs=None):
        return self.block(x)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_a_block_are_the_same(name):
    make, shape = BLOCKS[name]
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found, made = [], []
    for remat in (False, True):
        network = Functional(lambda rngs: Single(make, rngs=rngs), remat=remat)
        params, stats = network.init(jax.random.key(1))

        def loss(params, network=network, stats=stats):
            outputs, moved = network(params, stats, inputs, train=True)
            return (outputs**2).mean(), moved

        traced = jax.jit(jax.grad(loss, has_aux=True)).trace(params)
        made.append(str(traced.jaxpr))
        found.append(traced.lower().compile()(params))
    assert ["checkpoint" in text or "remat" in text for text in made] == [False, True]
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(found[0][0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


class Chain(nnx.Module):
    """Blocks and nothing else, so that their activations are what fills the memory."""

    def __init__(self, depth: int, *, rngs: nnx.Rngs):
        self.blocks = nnx.List([InvertedResidual(8, 8, expansion=6, strides=1, rngs=rngs) for _ in range(depth)])

    def __call__(self, x, *, rngs=None):
        for block in self.blocks:
            x = block(x)
        return global_average_pool(x)


def measure_chain() -> dict[str, list[float]]:
    """[temporary bytes, FLOPs] of the gradient, by `remat`."""
    measured = {}
    for remat in (False, True):
        network = Functional(lambda rngs: Chain(6, rngs=rngs), remat=remat)

        def loss(params, stats, x, network=network):
            features, moved = network(params, stats, x, train=True)
            return (features**2).mean(), moved

        inputs = jax.ShapeDtypeStruct((8, 32, 32, 8), jnp.float32)
        program = jax.jit(jax.grad(loss, has_aux=True)).lower(*network.abstract, inputs).compile()
        measured[str(remat)] = [program.memory_analysis().temp_size_in_bytes, program.cost_analysis()["flops"]]
    return measured


def test_the_program_needs_less_memory_and_computes_more():
    """In a process of its own: on CPU, XLA frees memory early only with the scheduler that this flag asks for."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        "XLA_FLAGS": "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    }
    told = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    measured = json.loads(told.stdout.splitlines()[-1])
    assert measured["True"][0] < 0.7 * measured["False"][0]
    assert measured["True"][1] > 1.1 * measured["False"][1]


if __name__ == "__main__":
    print(json.dumps(measure_chain()))
