"""How many operators a student's whole graph has, at full width: traced on small inputs, and never run.

The numbers of convolutions, activations and sums are those of the architectures' papers. What is above them is named
here: a head each and softmax or clipping for the answers, and a reshape after global pooling. No BatchNorm after a
convolution is left.
"""

import jax
import numpy as np
import pytest
from exporting_setup import operators

from emokd.exporting.student import Student, create_graph
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights.seen_as import SeenAs

ANSWERS = {"Gemm": 2, "Softmax": 1, "Clip": 1}
POOLED = {"GlobalAveragePool": 1, "Reshape": 1}

# The side of the picture, and the operators of the graph.
PICTURES = {
    "basic_cnn": (32, {"Conv": 5, "Relu": 5, "MaxPool": 4, **POOLED, **ANSWERS}),
    # 17 blocks of 3 convolutions, but the first of 2, between two more; ReLU6 is Clip; 10 blocks add their input.
    "mobilenet_v2": (32, {"Conv": 52, "Add": 10, **POOLED, **ANSWERS, "Clip": 35 + 1}),
    "resnet18": (32, {"Conv": 20, "Relu": 17, "Add": 8, "MaxPool": 1, **POOLED, **ANSWERS}),
    "resnet50": (32, {"Conv": 53, "Relu": 49, "Add": 16, "MaxPool": 1, **POOLED, **ANSWERS}),
    # 16 blocks of 5 convolutions, two of them squeeze and excite, but the first of 4, between two more. SiLU is two.
    "efficientnet_b0": (
        32,
        {"Conv": 81, "Sigmoid": 65, "Mul": 65, "Add": 9, **ANSWERS, "GlobalAveragePool": 16 + 1, "Reshape": 1},
    ),
    # Its pooling to 3 x 3 is 9 means of slices.
    "mini_xception": (
        32,
        {
            "Conv": 22, "Relu": 6, "MaxPool": 4, "Add": 4, "Pad": 1, "Slice": 9, "Concat": 1, **ANSWERS,
            "GlobalAveragePool": 9, "Reshape": 9,
        },
    ),
    # 36 blocks of 3 convolutions after norm and ReLU; norms of maps that several read, or before a ReLU, stay.
    "emonet": (
        64,
        {
            "Conv": 115, "Relu": 111, "BatchNormalization": 107, "Concat": 36, "Add": 45, "MaxPool": 13, "Resize": 8,
            "ReduceSum": 1, "Mul": 2, **POOLED, **ANSWERS, "Gemm": 2 + 1,
        },
    ),
    # 14 blocks pool and one attends; their GELUs, and the pooling's x + scale (pool(x) - x) as a norm and a sum.
    "efficientformer_l1": (
        224,
        {
            "Conv": 33, "Relu": 2, "Gelu": 15, "AveragePool": 14, "BatchNormalization": 28, "Add": 35, "Transpose": 7,
            "Slice": 3, "LayerNormalization": 3, "MatMul": 6, "Mul": 1, **ANSWERS, "GlobalAveragePool": 1,
            "Reshape": 5, "Softmax": 1 + 1,
        },
    ),
}  # fmt: skip

EYE = ModalitySpec("features/eye", (5,), "mlp", {"widths": (8,)})
PULSE = ModalitySpec("physiology", (32, 2), "conv1d", {"width": 4, "depth": 2})
SOUND = ModalitySpec("audio", (64, 1), "spectrogram_resnet18", {"window": 8, "overlap": 2, "fft": 16})
CLIP = ModalitySpec("video", (4, 16, 16, 3), "r3d18", {}, Preprocessing(16))
FRAMES = ModalitySpec(
    "video", (2, 32, 32, 3), "frames", {"backbone": "basic_cnn", "options": {"size": 32}}, Preprocessing(32)
)

# Modalities, those that T-Nets hallucinate, the fusion with its options, and how many nodes there are. Arrays may be
# absent: that is about ten operators each, and no branch.
MODALITIES = {
    "spectrogram": ({"sound": SOUND}, (), "concatenation", {}, 81),
    "video": ({"clip": CLIP}, (), "concatenation", {}, 61),
    "frames": ({"clip": FRAMES}, (), "concatenation", {}, 32),
    "concatenation": ({"eye": EYE, "pulse": PULSE}, ("voice",), "concatenation", {}, 55),
    "joint_cross_attention": ({"eye": EYE, "pulse": PULSE}, ("voice",), "joint_cross_attention", {"hidden": 4}, 144),
    "transformer": ({"eye": EYE, "pulse": PULSE}, ("voice",), "transformer", {}, 244),
}


def graph_of(spec):
    params, stats = (jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), t) for t in functional(spec).abstract)
    return create_graph(Student(TrainedModel(spec, params, stats, origin="ones"), SeenAs(64, "crop", "landmarks")))


@pytest.mark.parametrize("name", PICTURES)
def test_a_network_of_pictures_has_the_operators_of_its_architecture(name):
    size, wanted = PICTURES[name]
    channels = 1 if name == "mini_xception" else 3
    spec = NetworkSpec(
        name,
        {"size": size} if name == "basic_cnn" else {},
        {"expression": 8, "valence_arousal": 2},
        preprocessing=Preprocessing(size, (0.5,) * channels, (0.2,) * channels, channels),
    )
    assert operators(graph_of(spec)) == wanted


@pytest.mark.parametrize("name", MODALITIES)
def test_a_network_of_modalities_has_no_more_nodes_than_is_known(name):
    modalities, hallucinated, fusion, options, nodes = MODALITIES[name]
    spec = MultimodalSpec(
        modalities, hallucinated, 8, fusion, options, {"encoder": (8, 4), "decoder": (8,)}, {"expression": 3}
    )
    graph = graph_of(spec)
    assert sorted(graph.inputs) == sorted(modalities)  # and so no privileged one
    assert sum(operators(graph).values()) <= nodes
    assert not operators(graph).keys() & {"If", "Loop", "BatchNormalization"}
