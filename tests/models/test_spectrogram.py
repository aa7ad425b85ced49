"""Spectrograms against SciPy's, and ResNet-18 on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from emokd.errors import InputError
from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional
from emokd.models.spectrogram import FLOOR, spectrogram, tukey


@pytest.mark.parametrize("lengths", [(16, 4, 128), (10, 0, 10), (9, 5, 15)])
def test_agrees_with_scipy(lengths):
    window, overlap, fft = lengths
    trace = np.random.default_rng(0).normal(size=(2, 131, 3)).astype(np.float32) + np.float32(3.0)
    _, _, expected = scipy.signal.spectrogram(
        trace.astype(np.float64), nperseg=window, noverlap=overlap, nfft=fft, axis=1
    )
    found, logarithm = jax.jit(lambda x: (spectrogram(x, *lengths), spectrogram(x, *lengths, log=True)))(trace)
    expected = np.moveaxis(expected, 2, 3)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())
    np.testing.assert_allclose(logarithm, np.log(expected + FLOOR), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [2, 7, 8, 9, 16, 50])
def test_the_window_is_scipys(samples):
    np.testing.assert_allclose(tukey(samples), scipy.signal.get_window(("tukey", 0.25), samples), atol=1e-12)


def test_the_papers_trace_gives_the_papers_picture():
    trace = jax.ShapeDtypeStruct((2, 1536, 1), jnp.float32)
    assert jax.eval_shape(spectrogram, trace).shape == (2, 65, 127, 1)


def test_a_tone_lies_at_its_frequency():
    trace = np.sin(2 * np.pi * 0.25 * np.arange(200, dtype=np.float32))[None, :, None]
    assert set(np.asarray(spectrogram(trace)).argmax(1).ravel().tolist()) == {32}


def make(**options):
    return functional(NetworkSpec("spectrogram_resnet18", options))


def test_the_network_sees_the_spectrogram():
    """A trace through the network, and its spectrogram from SciPy through the same network without transform."""
    trace = np.random.default_rng(0).normal(size=(2, 136, 2)).astype(np.float32)
    _, _, maps = scipy.signal.spectrogram(trace, nperseg=16, noverlap=4, nfft=32, axis=1)
    maps = np.moveaxis(maps, 2, 3).astype(np.float32)
    whole = make(shape=[136, 2], fft=32)
    part = make(shape=list(maps.shape[1:]), transform=False)
    assert whole.module.backbone.feature_size == 512
    random = np.random.default_rng(1)
    params, stats = jax.tree.map(
        lambda leaf: (
            random.normal(size=leaf.shape) / np.prod(leaf.shape[:-1]) ** 0.5
            if leaf.ndim > 1
            else random.uniform(0.5, 1.5, leaf.shape)
        ).astype(np.float32),
        whole.abstract,
    )
    found, expected = jax.jit(lambda p, s, t, m: (whole(p, s, t)[0].features, part(p, s, m)[0].features))(
        params, stats, trace, maps
    )
    assert found.shape == (2, 512)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({"shape": [1024, 3]}, 3),
        ({"shape": (1024, 5)}, 5),
        ({"shape": [40, 64], "transform": False}, 1),
        ({"shape": [40, 64, 2], "transform": False}, 2),
    ],
)
def test_the_stem_has_the_inputs_channels(options, channels):
    network = make(**options)
    published, head, stem = 11_689_512, 512 * 1000 + 1000, 7 * 7 * 64
    assert count_parameters(network.abstract[0]) == published - head + (channels - 3) * stem
    inputs = jax.ShapeDtypeStruct((1, *options["shape"]), jnp.float32)
    height, width = options["shape"][:2] if "transform" in options else (65, (1024 - 4) // 12)
    assert jax.eval_shape(network, *network.abstract, inputs)[0].features.shape == (1, 512)
    macs = count_macs(lambda p, s, x: network(p, s, x)[0], *network.abstract, inputs)
    height, width = (height + 1) // 2, (width + 1) // 2
    expected = height * width * 49 * channels * 64
    for stage in range(4):
        height, width = (height + 1) // 2, (width + 1) // 2
        size, inputs = 64 * 2**stage, 64 * 2 ** max(stage - 1, 0)
        expected += height * width * size * (9 * inputs + 27 * size + (inputs if stage else 0))
    assert macs == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": [40, 64]}, "40 samples in 64 channels. If it is a spectrogram already, set transform to False"),
        ({"shape": [1024]}, r"shape \[samples, channels\], not \[1024\]"),
        ({"shape": [40, 64, 1, 1], "transform": False}, r"\[frequencies, times, channels\], not \[40, 64, 1, 1\]"),
        ({"shape": [12, 1]}, "12 samples is shorter than a spectrogram's window of 16"),
        ({"shape": [100, 1], "overlap": 16}, "overlap 16"),
        ({"shape": [100, 1], "fft": 8}, "fft 8"),
        ({"shape": [100, 1], "window": 1, "overlap": 0}, "window 1"),
        ({}, "shape"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)
