"""What counts as waiting for data: the time in which no step runs, not the time in which the host waits."""

import contextlib
import threading
import time

import pytest

from emokd.training.waiting import DataWait


class Clock:
    """A clock that only tests move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Step:
    """A result that is there once the test says so."""

    def __init__(self):
        self.over = threading.Event()

    def block_until_ready(self):
        assert self.over.wait(timeout=60)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def wait(clock):
    with contextlib.closing(DataWait(clock)) as wait:
        yield wait


def end(step, wait, steps):
    """Ends a step, and returns once that is known."""
    step.over.set()
    deadline = time.monotonic() + 60
    while wait.over[0] < steps and time.monotonic() < deadline:
        time.sleep(0.001)
    assert wait.over[0] == steps


def test_a_batch_made_beside_a_step_costs_nothing(clock, wait):
    step = Step()

    def batches():
        clock.now += 5
        yield "batch"

    wait.watch(step)
    assert wait.next(batches()) == "batch" and wait.seconds == 0
    end(step, wait, 1)


def test_a_batch_that_outlasts_the_step_costs_the_rest(clock, wait):
    steps = [Step(), Step()]

    def batches():
        clock.now = 1.0
        end(steps[0], wait, 1)
        clock.now = 3.0
        end(steps[1], wait, 2)
        clock.now = 10.0
        yield "batch"

    for step in steps:
        wait.watch(step)
    wait.next(batches())
    assert wait.seconds == 7


def test_time_before_the_batch_was_asked_for_is_not_waiting(clock, wait):
    step = Step()
    wait.watch(step)
    end(step, wait, 1)
    clock.now = 100.0

    def batches():
        clock.now += 2
        yield "batch"

    wait.next(batches())
    assert wait.seconds == 2


def test_a_step_that_fails_is_over(clock, wait):
    class Failing:
        def block_until_ready(self):
            raise RuntimeError("out of memory")

    wait.watch(Failing())
    step = Step()
    wait.watch(step)
    end(step, wait, 2)
