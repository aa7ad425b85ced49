"""Networks in bfloat16: what is computed in it, what is not, and how far the answers are from float32's."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing

PICTURES = {"basic_cnn": {"width": 4, "size": 32}, "mobilenet_v2": {"width": 0.35}, "resnet18": {}}
HALF, SINGLE = jnp.dtype("bfloat16"), jnp.dtype("float32")
# These take long to compile: slow tests have them.
LONG = ("mobilenet_v2", "resnet18")
FUSIONS = {
    "concatenation": {},
    "joint_cross_attention": {"hidden": 4},
    "transformer": {"heads": 2},
}


def products(jaxpr: core.Jaxpr) -> Iterator[tuple]:
    """(dtypes of the operands, result's shape) of every convolution and matrix product."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield tuple(v.aval.dtype for v in equation.invars), equation.outvars[0].aval.shape
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


def multimodal(fusion: str) -> MultimodalSpec:
    pictures = ModalitySpec("image", (32, 32, 3), "basic_cnn", {"width": 2}, Preprocessing(32))
    return MultimodalSpec(
        {"face": pictures, "heart": ModalitySpec("physiology", (10,), "mlp", {"widths": (12,)})},
        hallucinated=("skin",),
        width=8,
        fusion=fusion,
        fusion_options=FUSIONS[fusion],
        hallucination={"encoder": (12, 6), "decoder": (12,)},
        heads={"expression": 3},
    )


def case(name: str):
    """A specification, and inputs for it; the traces lie far from 0, as raw ones may."""
    random = np.random.default_rng(0)
    images = random.normal(size=(8, 32, 32, 3)).astype(np.float32)
    if name in PICTURES:
        return NetworkSpec(name, PICTURES[name], {"expression": 3, "valence_arousal": 2}), images
    traces = (1000 + random.normal(size=(8, 10))).astype(np.float32)
    return multimodal(name), {"face": images, "heart": traces}


def standardized(stats):
    """Statistics with the standardiser of the traces set."""
    if "encoders" not in stats:
        return stats
    heart = {"standardizer": {"mean": jnp.full(10, 1000.0), "std": jnp.ones(10)}}
    return {**stats, "encoders": {**stats["encoders"], "heart": {**stats["encoders"]["heart"], **heart}}}


def answers(name: str, precision: str, train: bool):
    spec, inputs = case(name)
    network = functional(spec, precision=precision)
    params, stats = network.init(jax.random.key(0))
    return jax.jit(lambda p, s, x: network(p, s, x, train=train))(params, standardized(stats), inputs)


# In training BatchNorm makes the deep networks ill-conditioned here: their last maps are single positions.
@pytest.mark.parametrize(
    ("name", "train"),
    [
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in LONG),
        *(("basic_cnn", train) for train in (False, True)),
        *((name, True) for name in FUSIONS),
    ],
)
def test_answers_are_float32_and_near_those_of_float32(name, train):
    (exact, exact_stats), (found, stats) = (answers(name, p, train) for p in ("float32", "bfloat16"))
    leaves = jax.tree.leaves((found, stats))
    assert leaves and {leaf.dtype for leaf in leaves} == {SINGLE}
    for values, expected in ((found.logits, exact.logits), (found.features, exact.features)):
        error = np.abs(values - expected).max() / np.abs(expected).max()
        assert 0 < error < 0.06  # not exactly the same: then nothing would be in bfloat16
    # Statistics move by a tenth of what the batch has.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02), stats, exact_stats)


@pytest.mark.parametrize(
    ("name", "train"), [("basic_cnn", True), pytest.param("mobilenet_v2", False, marks=pytest.mark.slow)]
)
def test_gradients_are_float32_and_near_those_of_float32(name, train):
    """The measure is what rounding inputs and parameters alone does to float32's gradient."""
    spec, inputs = case(name)
    exact, half = (functional(spec, precision=precision) for precision in ("float32", "bfloat16"))
    params, stats = exact.init(jax.random.key(0))

    def gradient(network):
        return jax.jit(jax.grad(lambda p, x: (network(p, stats, x, train=train)[0].logits ** 2).mean()))

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    in_float32 = gradient(exact)
    rounded = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16).astype(jnp.float32), (params, inputs))
    found = gradient(half)(params, inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {SINGLE}
    expected = flat(in_float32(params, inputs))
    unavoidable = np.linalg.norm(flat(in_float32(*rounded)) - expected)
    error = np.linalg.norm(flat(found) - expected)
    assert 0 < error < 5 * unavoidable
    assert error < 0.5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "name", ["basic_cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in LONG), *FUSIONS]
)
def test_layers_compute_in_bfloat16_and_heads_in_float32(name):
    spec, inputs = case(name)
    network = functional(spec, precision="bfloat16")
    params, stats = network.abstract

    def loss(params, stats, inputs):
        signals, moved = network(params, stats, inputs, train=True)
        return (signals.logits**2).sum(), moved

    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    forward = list(products(jax.make_jaxpr(loss)(params, stats, abstract).jaxpr))
    both = list(products(jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, stats, abstract).jaxpr))
    outside = [shape for dtypes, shape in forward if dtypes != (HALF, HALF)]
    projections = 2 if isinstance(spec, MultimodalSpec) else 0  # of the encoders' features to tokens
    assert len(outside) == len(spec.heads) + projections
    assert sum(dtypes == (HALF, HALF) for dtypes, _ in both) >= 2 * (len(forward) - len(outside))
    gradients = jax.eval_shape(jax.grad(loss, has_aux=True), params, stats, abstract)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {SINGLE}


def test_float32_is_what_was_given():
    spec = dataclasses.replace(case("basic_cnn")[0], heads={"expression": 3})
    network = functional(spec)
    jaxpr = jax.make_jaxpr(network)(*network.abstract, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
    assert {dtype for dtypes, _ in products(jaxpr.jaxpr) for dtype in dtypes} == {SINGLE}
