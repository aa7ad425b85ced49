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
