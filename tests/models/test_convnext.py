"""ConvNeXt against transformers' ConvNext, its published sizes, its gradients, and the options that it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.convolution import plain_convolutions
from emokd.models.cost import describe
from emokd.models.network import NetworkSpec, functional
from emokd.weights.mapping import convert

torch = Lazily("torch")
transformers = Lazily("transformers")

DEPTHS, WIDTHS = (1, 2, 1), (8, 12, 16)
TINY = {"depths": DEPTHS, "widths": WIDTHS}
TWO_STAGES = {"depths": (1, 1), "widths": (4, 6)}
PARTS = {"depthwise": "dwconv", "norm": "layernorm", "expand": "pwconv1", "project": "pwconv2"}
STEM = {"conv": "patch_embeddings", "norm": "layernorm"}


def transformers_name(path):
    match path.split("/"):
        case ["heads", _]:
            return "classifier"
        case ["backbone", "norm"]:
            return "convnext.layernorm"
        case ["backbone", "stem", part]:
            return f"convnext.embeddings.{STEM[part]}"
        case ["backbone", "downsamples", index, part]:
            return f"convnext.encoder.stages.{int(index) + 1}.downsampling_layer.{ {'norm': 0, 'conv': 1}[part] }"
        case ["backbone", "stages", stage, block, *part]:
            return ".".join([f"convnext.encoder.stages.{stage}.layers.{block}", *(PARTS[name] for name in part)])
    raise KeyError(path)


def test_parity_with_transformers():
    """At a size that no stride divides; every array is random, LayerScale too, so that the blocks count."""
    config = transformers.ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS), num_stages=3, num_labels=5)
    theirs = transformers.ConvNextForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in theirs.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    state = {
        name.replace("layer_scale_parameter", "gamma"): tensor.numpy() for name, tensor in theirs.state_dict().items()
    }
    network = functional(NetworkSpec("convnext_tiny", TINY, {"objects": 5}))
    params, stats = convert(state, network.abstract, transformers_name)
    images = np.random.default_rng(0).normal(size=(2, 70, 83, 3)).astype(np.float32)
    signals, _ = jax.jit(network)(params, stats, images)
    with torch.no_grad():
        found = theirs(torch.from_numpy(images).permute(0, 3, 1, 2), output_hidden_states=True)
        features = theirs.convnext(torch.from_numpy(images).permute(0, 3, 1, 2)).pooler_output
    last = found.hidden_states[-1].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(signals.intermediates["map"], last, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(signals.features, features.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(signals.intermediates["objects"], found.logits.numpy(), rtol=1e-4, atol=1e-4)
    assert np.ptp(found.logits.numpy()) > 0.1


def test_it_costs_what_the_paper_says():
    """Table 12: 28.6 million parameters, 4.5 G; torchvision's model page has 28,589,128 and 4.456."""
    size, classes, macs = 224, 1000, 0
    side, channels = size // 4, 96
    macs += side**2 * channels * 3 * 4 * 4
    for stage, depth in enumerate((3, 3, 9, 3)):
        if stage:
            side, channels = side // 2, 2 * channels
            macs += side**2 * channels * (channels // 2) * 2 * 2
        macs += depth * side**2 * (channels * 7 * 7 + 2 * channels * 4 * channels)
    macs += channels * classes
    cost = describe(NetworkSpec("convnext_tiny", heads={"objects": classes}))
    assert cost == {"backbone": "convnext_tiny", "parameters": 28_589_128, "macs": macs, "size": size}
    assert macs == pytest.approx(4.456e9, rel=1e-3)


@pytest.mark.slow
def test_every_parameter_has_a_gradient_and_descent_lowers_a_loss():
    """From fresh weights, whose LayerScale of 1e-6 lets little through, and the derivative by a finite difference.

    Convolutions are lax's own, which compile sooner; the forms for CPU are tested by themselves.
    """
    network = functional(NetworkSpec("convnext_tiny", TWO_STAGES, {"objects": 3}))
    params, stats = network.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))

    @jax.jit
    def loss(params):
        with plain_convolutions():
            logits = network(params, stats, images, train=True)[0].intermediates["objects"]
        return -jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4) % 3].mean()

    before, gradients = jax.value_and_grad(loss)(params)
    assert all(jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    norm = sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients))
    step = 1e-3
    lower, higher = (
        loss(jax.tree.map(lambda p, g, s=sign: p + s * step * g / jnp.sqrt(norm), params, gradients))
        for sign in (-1, 1)
    )
    assert (higher - lower) / (2 * step) == pytest.approx(float(jnp.sqrt(norm)), rel=0.05)
    assert lower < before


@pytest.mark.slow
def test_half_precision_stays_near():
    spec = NetworkSpec("convnext_tiny", TWO_STAGES, {"objects": 5})
    full, half = functional(spec), functional(spec, precision="bfloat16")
    params, stats = full.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    one, two = (jax.jit(network)(params, stats, images)[0].features for network in (full, half))
    assert two.dtype == jnp.float32
    np.testing.assert_allclose(one, two, atol=0.1)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    "options", [{"depths": [1, 1]}, {"depths": [], "widths": []}, {"widths": [8, 8, 8, 0]}, {"depths": "3393"}]
)
def test_stages_that_do_not_fit_are_refused(options):
    with pytest.raises(InputError, match=r"A ConvNeXt needs depths and widths, a positive whole number for each stage"):
        functional(NetworkSpec("convnext_tiny", options))
