"""Smoothing over time against SciPy and known answers."""

import numpy as np
import pytest
import scipy.signal

from emokd.errors import InputError
from emokd.inference.smoothing import smooth_over_time


def test_known_answers():
    np.testing.assert_allclose(smooth_over_time(np.array([1.0, 0.0, 0.0, 4.0]), 0.5), [1, 0.5, 0.25, 2.125])


def test_each_frame_may_have_its_own_decay():
    smooth = smooth_over_time(np.array([np.nan, 2.0, 0.0, 4.0]), np.array([0.9, 0.0, 0.5, 0.25]))
    np.testing.assert_allclose(smooth, [np.nan, 2, 1, 3.25])
    with pytest.raises(InputError, match=r"at least 0 and below 1, not 1\.5"):
        smooth_over_time(np.zeros(2), np.array([0.0, 1.5]))


def test_agrees_with_scipys_recursive_filter():
    values = np.random.default_rng(0).normal(size=(20, 3, 2)).astype(np.float32)
    wanted, _ = scipy.signal.lfilter([0.3], [1, -0.7], values, axis=0, zi=0.7 * values[:1])
    np.testing.assert_allclose(smooth_over_time(values, 0.7), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(InputError, match="at least 0 and below 1"):
        smooth_over_time(np.zeros(3), decay)


def test_a_video_without_frames_is_refused():
    with pytest.raises(InputError, match="no frame to smooth"):
        smooth_over_time(np.zeros((0, 2)), 0.5)
