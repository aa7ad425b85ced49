"""Every kind of backbone, narrow or short, in ONNX Runtime beside JAX; and what its graph is made of."""

import jax
import numpy as np
import pytest
from exporting_setup import export_and_run, features_function, operators, relative
from flax import nnx

from emokd.models import emonet
from emokd.models.basic_cnn import BasicCNN
from emokd.models.clip import ClipVision
from emokd.models.conv1d import Conv1d
from emokd.models.convnext import ConvNeXt
from emokd.models.dinov2 import DINOv2
from emokd.models.efficientformer import EfficientFormer
from emokd.models.efficientnet import EfficientNet
from emokd.models.frames import FrameEncoder
from emokd.models.mini_xception import MiniXception
from emokd.models.mlp import MLP
from emokd.models.mobilenet_v2 import MobileNetV2
from emokd.models.preprocessing import Preprocessing
from emokd.models.resnet import ResNet
from emokd.models.resnet3d import R3D18
from emokd.models.spectrogram import SpectrogramResNet18
from emokd.models.transformer import Dimensions


def narrow_efficientnet(rngs: nnx.Rngs) -> EfficientNet:
    return EfficientNet(0.1, 0.3, preprocessing=Preprocessing(), rngs=rngs)


# The network, one example's shape, and all operators of its graph. Of BatchNorm after a convolution nothing is left;
# EmoNet's stands before a ReLU, and is one operator.
NETWORKS = {
    "basic_cnn": (
        lambda rngs: BasicCNN(4, 32, rngs=rngs),
        (32, 32, 3),
        {"Conv": 5, "Relu": 5, "MaxPool": 4, "GlobalAveragePool": 1, "Reshape": 1},
    ),
    # One residual more than at full width, because two stages have the same number of channels.
    "mobilenet_v2": (
        lambda rngs: MobileNetV2(0.1, 32, rngs=rngs),
        (32, 32, 3),
        {"Conv": 52, "Clip": 35, "Add": 11, "GlobalAveragePool": 1, "Reshape": 1},
    ),
    "resnet": (
        lambda rngs: ResNet((1, 1), False, 3, rngs=rngs),
        (32, 32, 3),
        {"Conv": 6, "Relu": 5, "Add": 2, "MaxPool": 1, "GlobalAveragePool": 1, "Reshape": 1},
    ),
    "efficientnet": (
        narrow_efficientnet,
        (32, 32, 3),
        None,
    ),
    # Stem, downsampling and two blocks have a convolution and a norm each; the features have a norm. LayerScale is in
    # a block's last product. Norms and products want channels last: each stretch of them is in two transpositions.
    "convnext": (
        lambda rngs: ConvNeXt((1, 1), (4, 6), rngs=rngs),
        (16, 16, 3),
        {
            "Conv": 4, "LayerNormalization": 5, "MatMul": 4, "Gelu": 2, "Add": 6, "Transpose": 8,
            "GlobalAveragePool": 1, "Reshape": 1,
        },
    ),
    "mini_xception": (
        lambda rngs: MiniXception(rngs=rngs),
        (32, 32, 1),
        {
            "Conv": 22, "Relu": 6, "MaxPool": 4, "Add": 4, "Pad": 1, "Slice": 9, "GlobalAveragePool": 9, "Concat": 1,
            "Reshape": 9,
        },
    ),
    "mlp": (
        lambda rngs: MLP((7,), (8, 4), rngs=rngs),
        (7,),
        {"Gemm": 2, "LayerNormalization": 2, "Relu": 2},
    ),
    "mlp_batch_norm": (
        lambda rngs: MLP((7,), (8, 4), "batch", rngs=rngs),
        (7,),
        {"Gemm": 2, "Relu": 2},
    ),
    "conv1d": (
        lambda rngs: Conv1d((64, 3), 4, 2, rngs=rngs),
        (64, 3),
        {"Transpose": 1, "Conv": 2, "Relu": 2, "ReduceMean": 1},
    ),
    "frames": (
        lambda rngs: FrameEncoder("basic_cnn", {"width": 4, "size": 32}, rngs=rngs),
        (2, 32, 32, 3),
        {
            "Reshape": 2, "Transpose": 1, "Conv": 5, "Relu": 5, "MaxPool": 4, "GlobalAveragePool": 1, "ReduceMean": 1,
        },
    ),
    "r3d18": (
        lambda rngs: R3D18(2, rngs=rngs),
        (4, 16, 16, 3),
        {"Transpose": 1, "Conv": 20, "Relu": 17, "Add": 8, "GlobalAveragePool": 1, "Reshape": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_backbone_says_the_same_in_onnx_runtime(name):
    make, shape, wanted = NETWORKS[name]
    function = features_function(make)
    pictures = ("image",) if len(shape) == 3 else ()
    arrays = {"image": np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)}
    graph, found = export_and_run(function, arrays, pictures)
    assert relative(found["features"], jax.jit(function)(arrays)["features"]) < 2e-5
    if wanted is not None:
        assert operators(graph) == wanted


def test_efficientformer_says_the_same_in_the_operators_of_its_architecture():
    function = features_function(lambda rngs: EfficientFormer((1, 1, 1, 2), (8, 8, 8, 8), 1, rngs=rngs))
    arrays = {"image": np.random.default_rng(1).normal(size=(1, 224, 224, 3)).astype(np.float32)}
    graph, found = export_and_run(function, arrays, ("image",))
    assert relative(found["features"], jax.jit(function)(arrays)["features"]) < 2e-5
    counts = operators(graph)
    # 5 blocks with a GELU each, of which 4 pool; one attends.
    assert {op: counts[op] for op in ("Gelu", "AveragePool", "Softmax", "LayerNormalization")} == {
        "Gelu": 5, "AveragePool": 4, "Softmax": 1, "LayerNormalization": 3,
    }  # fmt: skip
    assert not counts.keys() & {"Erf", "Exp", "Sqrt", "Sub", "Div", "Reciprocal", "ReduceMean"}


@pytest.mark.parametrize("registers", [0, 2])
def test_dinov2_says_the_same_at_another_grid_than_the_trained_one(registers):
    function = features_function(
        lambda rngs: DINOv2(Dimensions(16, 2, 2, 7, 5), registers, "class_and_patches", 28, rngs=rngs)
    )
    arrays = {"image": np.random.default_rng(1).normal(size=(3, 28, 28, 3)).astype(np.float32)}
    graph, found = export_and_run(function, arrays, ("image",))
    assert relative(found["features"], jax.jit(function)(arrays)["features"]) < 2e-5
    counts = operators(graph)
    assert {op: counts[op] for op in ("Gelu", "Softmax", "LayerNormalization")} == {
        "Gelu": 2, "Softmax": 2, "LayerNormalization": 5,
    }  # fmt: skip
    assert counts["MatMul"] == 1 + 2 * 8  # patches, and in each block six layers and two products of attention


def test_clips_image_tower_says_the_same():
    function = features_function(lambda rngs: ClipVision(Dimensions(16, 2, 2, 7, 4), 6, rngs=rngs))
    arrays = {"image": np.random.default_rng(1).normal(size=(3, 28, 28, 3)).astype(np.float32)}
    graph, found = export_and_run(function, arrays, ("image",))
    assert relative(found["features"], jax.jit(function)(arrays)["features"]) < 2e-5
    counts = operators(graph)
    assert {op: counts[op] for op in ("Sigmoid", "Softmax", "LayerNormalization")} == {
        "Sigmoid": 2, "Softmax": 2, "LayerNormalization": 6,
    }  # fmt: skip


def test_emonet_says_the_same_and_keeps_one_operator_for_a_norm_before_a_relu(monkeypatch):
    monkeypatch.setattr(emonet, "WIDTH", 16)
    monkeypatch.setattr(emonet, "DEPTH", 1)
    function = features_function(lambda rngs: emonet.EmoNet(rngs=rngs))
    arrays = {"image": np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)}
    graph, found = export_and_run(function, arrays, ("image",))
    assert relative(found["features"], jax.jit(function)(arrays)["features"]) < 2e-5
    counts = operators(graph)
    assert not counts.keys() & {"Sub", "Max", "Expand", "Transpose", "Slice"}
    assert counts["Resize"] == 2
    assert counts["Mul"] == 2  # the features of each hourglass by where it looks


def test_a_spectrogram_is_made_in_the_graph():
    function = features_function(lambda rngs: SpectrogramResNet18((64, 1), window=8, overlap=2, fft=16, rngs=rngs))
    arrays = {"image": np.random.default_rng(1).normal(size=(2, 64, 1)).astype(np.float32)}
    _, found = export_and_run(function, arrays)
    assert relative(found["features"], jax.jit(function)(arrays)["features"]) < 2e-5
