"""The warm-up rule, medians and ratios, against a clock that says what each call takes."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from emokd.benchmarking.flow import measure_flow
from emokd.benchmarking.peak import measure_peak
from emokd.benchmarking.timing import Rule, Timing, interleave, ratio
from emokd.errors import InputError


class Clock:
    """A clock that only calls move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float):
        """A call that takes these seconds, in turn."""
        left = iter(seconds)

        def call():
            self.now += next(left)

        return call


def test_warm_up_is_not_timed_and_the_median_is_of_the_rest():
    clock = Clock()
    found = interleave({"a": clock.taking(100, 50, 3, 1, 8)}, Rule(warmup=2, steps=3), clock)
    assert found["a"].seconds == (3, 1, 8) and found["a"].median == 3


def test_calls_take_turns():
    clock, order = Clock(), []
    interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, Rule(1, 2), clock)
    assert order == ["a", "b"] * 3


def test_arguments_are_made_before_every_call_and_not_timed():
    clock, made = Clock(), iter(range(9))

    def prepare():
        clock.now += 100
        return next(made), "x"

    seen = []
    found = interleave({"a": lambda *given: seen.append(given)}, Rule(1, 2), clock, prepare=prepare)
    assert seen == [(0, "x"), (1, "x"), (2, "x")] and found["a"].seconds == (0, 0)


def test_rest_comes_before_every_call_and_is_not_timed(monkeypatch):
    clock, order = Clock(), []

    def sleep(seconds):
        order.append(seconds)
        clock.now += seconds

    monkeypatch.setattr("emokd.benchmarking.timing.time.sleep", sleep)
    found = interleave({"a": clock.taking(1, 2, 3), "b": clock.taking(4, 5, 6)}, Rule(1, 2), clock, rest=7.0)
    assert found["a"].seconds == (2, 3) and found["b"].seconds == (5, 6) and order == [7.0] * 6


def test_a_ratio_is_the_median_over_rounds():
    # A machine that becomes ten times slower changes no ratio; one bad round changes no median.
    clock = Clock()
    found = interleave(
        {"part": clock.taking(1, 10, 1, 1, 30), "whole": clock.taking(4, 40, 4, 5, 40)}, Rule(0, 5), clock
    )
    assert ratio(found["part"], found["whole"]) == 0.25


def test_quartiles_are_numpys():
    seconds = (5.0, 1.0, 2.5, 9.0, 4.0, 7.0)
    assert Timing(seconds).quartiles == pytest.approx(tuple(np.quantile(seconds, [0.25, 0.75])))
    assert Timing((2.0,)).quartiles == (2.0, 2.0)


def test_a_rule_without_steps_is_refused():
    with pytest.raises(InputError, match="--steps=1"):
        Rule(steps=0)
    with pytest.raises(InputError, match="--warmup=0"):
        Rule(warmup=-1)


def test_the_flow_of_steps():
    clock = Clock()

    def batches():
        for seconds in (9, 4, 6, 4):
            clock.now += seconds
            yield seconds

    found = measure_flow(lambda batch: (None, {"loss": jnp.zeros(())}), batches(), Rule(warmup=1, steps=3), clock)
    assert found.rate == pytest.approx(3 / 14)
    assert 0 <= found.waiting <= 1


def test_peak_is_work_over_time():
    # Each reading is 2 seconds after the last, so that every call takes 2.
    found = measure_peak(Rule(0, 1), "bfloat16", side=8, size_bytes=4096, clock=itertools.count(0, 2).__next__)
    rates = {"matmul_flops": 2 * 8**3 / 2, "copy_bytes": 2 * 4096 / 2}
    assert found == {**rates, "dtype": "bfloat16", "side": 8, "size_bytes": 4096}
