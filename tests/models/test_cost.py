"""Parameters and multiply-accumulates of whole networks, against published and hand-counted numbers."""

import pytest

from emokd.models.cost import describe
from emokd.models.network import NetworkSpec
from emokd.models.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("backbone", "parameters", "macs"),
    # torchvision's model pages: parameters, and GFLOPS, which there are multiply-accumulates.
    [("resnet18", 11_689_512, 1.814e9), ("resnet50", 25_557_032, 4.089e9)],
)
def test_resnets_cost_what_torchvision_says(backbone, parameters, macs):
    cost = describe(NetworkSpec(backbone, heads={"objects": 1000}))
    assert cost["parameters"] == parameters
    assert cost["macs"] == pytest.approx(macs, rel=1e-3)


def test_basic_cnn_by_hand():
    width, size, classes = 32, 96, 8
    cost = describe(
        NetworkSpec("basic_cnn", {"width": width}, {"expression": classes}, preprocessing=Preprocessing(size))
    )
    channels = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
    macs = (
        sum((size // 2**layer) ** 2 * 9 * channels[layer] * channels[layer + 1] for layer in range(5))
        + channels[-1] * classes
    )
    weights = sum(9 * i * o + 2 * o for i, o in zip(channels[:-1], channels[1:], strict=True))
    assert cost == {
        "backbone": "basic_cnn",
        "parameters": weights + channels[-1] * classes + classes,
        "macs": macs,
        "size": size,
    }


def test_mini_xception_has_the_published_number_of_weights():
    # Keras' summary of the published network: 58,423 in all, of which 1,472 BatchNorm statistics do not learn.
    cost = describe(
        NetworkSpec("mini_xception", heads={"expression": 7}, preprocessing=Preprocessing(64, (0.5,), (0.5,), 1))
    )
    assert cost["parameters"] == 58_423 - 1_472


def test_mini_xception_by_hand():
    """Arriaga et al.'s network on 64 x 64 pixels: two 3x3 without padding, four blocks that halve, a 3x3 to 7 classes.

    The last convolution is a linear head on nine window means here, so its products are made once, not at 4 x 4 places.
    """
    stem = 62 * 62 * 8 * 1 * 9 + 60 * 60 * 8 * 8 * 9
    blocks = 0
    for side, half, inputs, outputs in ((60, 30, 8, 16), (30, 15, 16, 32), (15, 8, 32, 64), (8, 4, 64, 128)):
        first = side * side * inputs * 9 + side * side * inputs * outputs
        second = side * side * outputs * 9 + side * side * outputs * outputs
        blocks += first + second + half * half * inputs * outputs
    spec = NetworkSpec("mini_xception", heads={"expression": 7}, preprocessing=Preprocessing(64, (0.5,), (0.5,), 1))
    assert describe(spec)["macs"] == stem + blocks + 9 * 128 * 7
