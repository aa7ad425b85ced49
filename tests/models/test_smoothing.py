"""Smoothing over time against SciPy and known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.special

from emokd.errors import InputError
from emokd.models.smoothing import smooth_over_time, smooth_signals
from emokd.signals import Signals


def test_known_answers():
    np.testing.assert_allclose(smooth_over_time(jnp.array([1.0, 0.0, 0.0, 4.0]), 0.5), [1, 0.5, 0.25, 2.125])


def test_agrees_with_scipys_recursive_filter():
    values = np.random.default_rng(0).normal(size=(20, 3, 2)).astype(np.float32)
    wanted, _ = scipy.signal.lfilter([0.3], [1, -0.7], values, axis=0, zi=0.7 * values[:1])
    np.testing.assert_allclose(jax.jit(smooth_over_time, static_argnums=1)(values, 0.7), wanted, rtol=1e-5, atol=1e-6)


def test_probabilities_are_smoothed_not_logits():
    random = np.random.default_rng(0)
    logits, affect = random.normal(size=(9, 5)).astype(np.float32) * 4, random.normal(size=(9, 2)).astype(np.float32)
    features = random.normal(size=(9, 4)).astype(np.float32)
    smooth = smooth_signals(Signals(features=features, logits=logits, valence_arousal=affect), 0.6)
    wanted = [scipy.special.softmax(logits[0])]
    for row in logits[1:]:
        wanted.append(0.6 * wanted[-1] + 0.4 * scipy.special.softmax(row))
    np.testing.assert_allclose(scipy.special.softmax(smooth.logits, axis=-1), wanted, rtol=1e-5)
    np.testing.assert_allclose(smooth.valence_arousal[1], 0.6 * affect[0] + 0.4 * affect[1], rtol=1e-5)
    np.testing.assert_array_equal(smooth.features, features)


def test_absent_stays_absent_and_certainty_stays_finite():
    certain = jnp.array([[1000.0, 0.0], [1000.0, 0.0]])
    smooth = smooth_signals(Signals(logits=certain), 0.5)
    assert smooth.valence_arousal is None
    assert np.isfinite(smooth.logits).all()
    np.testing.assert_array_equal(jax.nn.softmax(smooth.logits), [[1, 0], [1, 0]])
    assert smooth_signals(Signals(valence_arousal=jnp.zeros((2, 2))), 0.5).logits is None


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(InputError, match="at least 0 and below 1"):
        smooth_over_time(jnp.zeros(3), decay)


def test_a_video_without_frames_is_refused():
    with pytest.raises(InputError, match="no frame to smooth"):
        smooth_over_time(jnp.zeros((0, 2)), 0.5)
