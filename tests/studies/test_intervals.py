"""Intervals over seeds, against tabulated t quantiles and scipy's own tests."""

import math

import numpy as np
import pytest
from scipy import stats

from emokd.errors import InputError
from emokd.studies.intervals import mean_interval, paired_difference


def test_five_values_against_the_tabulated_quantile():
    # mean 3, sd sqrt(2.5), t(.975; 4) = 2.776445 in any printed table
    interval = mean_interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    np.testing.assert_allclose([interval.mean, interval.low, interval.high], [3, 3 - half, 3 + half], rtol=1e-6)
    assert interval.n == 5


def test_paired_difference_is_that_of_scipys_paired_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=7), rng.normal(size=7)
    interval = paired_difference(a, b, confidence=0.9)
    expected = stats.ttest_rel(a, b).confidence_interval(0.9)
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high])
    np.testing.assert_allclose(interval.mean, np.mean(a) - np.mean(b))


def test_pairing_removes_what_the_seeds_share():
    seeds = np.array([0.0, 10.0, 20.0, 30.0])
    interval = paired_difference(seeds + 1, seeds)
    assert (interval.mean, interval.low, interval.high) == (1, 1, 1)
    unpaired = mean_interval(seeds)
    assert unpaired.high - unpaired.low > 30


def test_one_run_has_no_interval():
    interval = paired_difference([0.7], [0.6])
    assert interval.mean == pytest.approx(0.1) and math.isnan(interval.low) and math.isnan(interval.high)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1], "same seeds"),
        ([], [], "non-empty"),
        ([1, math.nan], [1, 2], r"a\[1\] is nan"),
    ],
)
def test_wrong_input_is_refused(a, b, message):
    with pytest.raises(InputError, match=message):
        paired_difference(a, b)


def test_impossible_confidence_is_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        mean_interval([1, 2], confidence=95)
