"""Rates, pauses and estimates under a fake clock; what each display writes."""

import io

import pytest
from absl import logging
from rich.console import Console

from emokd.reporting import progress as module
from emokd.reporting.pace import Chronometer, Pace
from emokd.reporting.progress import LiveDisplay, PlainDisplay, Progress, duration_text


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Recorder:
    def __init__(self):
        self.lines, self.always, self.notes = [], [], []

    def line(self, text, done, total, *, always):
        self.lines.append(text)
        self.always.append(always)

    def note(self, text):
        self.notes.append(text)

    def close(self):
        pass


@pytest.fixture
def clock():
    return FakeClock()


def test_chronometer_does_not_count_pauses(clock):
    chronometer = Chronometer(clock)
    assert chronometer.seconds == 0
    clock.now += 5
    chronometer.start()
    clock.now += 3
    with chronometer.pause():
        clock.now += 100
        assert chronometer.seconds == 3
        with chronometer.pause():
            clock.now += 7
        clock.now += 1
        assert chronometer.seconds == 3
    clock.now += 2
    assert chronometer.seconds == 5
    assert chronometer.wall == 113


def test_a_pause_ends_when_the_block_fails(clock):
    chronometer = Chronometer(clock)
    chronometer.start()
    with pytest.raises(RuntimeError), chronometer.pause():
        clock.now += 10
        raise RuntimeError
    clock.now += 4
    assert chronometer.seconds == 4


def test_pace_leaves_out_warm_up_and_pauses(clock):
    pace = Pace(batch_size=64, devices=8, clock=clock)
    clock.now += 60  # compiling and the first batch
    pace.step(waited=30.0)
    assert pace.recent() is None
    for step in range(1, 11):
        clock.now += 0.5
        pace.step(waited=30.0 + 0.1 * step)
    with pace.pause():
        clock.now += 99
    rate, share = pace.recent()
    assert rate == pytest.approx(10 * 64 / 8 / 5.0)
    assert share == pytest.approx(0.2)
    assert pace.recent() is None


def test_pace_recent_is_a_window(clock):
    pace = Pace(batch_size=10, devices=1, clock=clock)
    pace.step()
    clock.now += 1
    pace.step()
    assert pace.recent()[0] == pytest.approx(10)
    for _ in range(4):
        clock.now += 0.25
        pace.step()
    assert pace.recent()[0] == pytest.approx(40)


def test_the_estimate_includes_evaluations(clock):
    pace = Pace(batch_size=10, devices=1, clock=clock)
    assert pace.remaining(5) is None
    pace.step()
    assert pace.remaining(5) is None
    for _ in range(10):
        clock.now += 1
        pace.step()
    with pace.pause():
        clock.now += 10
    assert pace.remaining(5) == pytest.approx(10)
    assert pace.remaining(0) == 0


def run_phase(progress, clock, name, steps, *, start=0, seconds=0.5, every=10):
    progress.begin(name, start)
    for step in range(start + 1, steps + 1):
        clock.now += seconds
        progress.step(waited=0.0)
        if step % every == 0:
            progress.show({"loss": 1 / step, **progress.speed()})
    progress.end()


def test_the_line_counts_all_phases_in_the_estimate(clock):
    recorder = Recorder()
    progress = Progress([("a", 20), ("b", 100)], batch_size=64, devices=2, clock=clock, display=recorder)
    run_phase(progress, clock, "a", 20)
    assert recorder.lines[0] == "a 10/20  loss 0.1  64 examples/s/device  data wait 0%  about 55 s left"
    assert recorder.lines[1] == "a 20/20  loss 0.05  64 examples/s/device  data wait 0%  about 50 s left"
    run_phase(progress, clock, "b", 100, start=90)
    assert recorder.lines[2] == "b 100/100  loss 0.01  64 examples/s/device  data wait 0%"
    assert recorder.always == [True, True, True]


def test_a_line_before_any_rate_is_known_claims_none(clock):
    recorder = Recorder()
    progress = Progress([("a", 20)], batch_size=64, devices=2, clock=clock, display=recorder)
    progress.begin("a")
    progress.step(waited=1.0)
    assert progress.speed() == {}
    progress.show({"loss": 2.0, "host_peak_bytes": 1e9})
    assert recorder.lines == ["a 1/20  loss 2"]
    progress.note("validation accuracy 0.5")
    assert recorder.notes == ["a 1/20  validation accuracy 0.5"]


def test_the_line_shows_the_terms_of_the_loss_but_not_each_teacher(clock):
    recorder = Recorder()
    progress = Progress([("a", 20)], batch_size=64, devices=2, clock=clock, display=recorder)
    progress.begin("a")
    progress.step()
    progress.show({"loss/hint": 1.5, "loss/emotion": 0.5, "loss/teacher/x": 3.0, "weight/x": 1.0, "loss": 2.0})
    progress.show({"loss/emotion": 0.5, "loss": 0.5})
    assert recorder.lines == ["a 1/20  loss 2  (hint 1.5, emotion 0.5)", "a 1/20  loss 0.5"]


def test_pauses_through_progress_do_not_slow_the_rate(clock):
    progress = Progress([("a", 20)], batch_size=8, devices=1, clock=clock, display=Recorder())
    progress.begin("a")
    progress.step()
    clock.now += 1
    progress.step()
    with progress.pause():
        clock.now += 50
    assert progress.speed()["examples_per_second_per_device"] == pytest.approx(8)


def test_plain_lines_are_sparse_but_first_and_last_are_there(clock):
    written = []
    progress = Progress([("a", 200)], batch_size=8, devices=1, clock=clock, display=PlainDisplay(written.append, clock))
    run_phase(progress, clock, "a", 200, seconds=0.5, every=10)  # a line offered every 5 s, for 100 s
    steps = [int(line.split("/")[0].split()[1]) for line in written]
    assert steps == [10, 50, 90, 130, 170, 200]


def test_live_line_ends_with_the_last_step_and_lets_log_lines_pass(clock):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    before = logging.get_absl_handler().python_handler.stream
    display = LiveDisplay(console)
    progress = Progress([("a", 20)], batch_size=8, devices=1, clock=clock, display=display)
    run_phase(progress, clock, "a", 20)
    progress.note("done [not markup]")
    progress.close()
    assert "a 20/20  loss 0.05" in screen.getvalue()
    assert "done [not markup]" in screen.getvalue()
    assert logging.get_absl_handler().python_handler.stream is before


def test_live_display_puts_the_log_above_the_line(clock):
    screen = io.StringIO()
    display = LiveDisplay(Console(file=screen, force_terminal=True, width=120, color_system=None))
    display.line("a 1/2", 1, 2, always=True)
    logging.get_absl_handler().python_handler.stream.write("a log line\n")
    display.close()
    assert "a log line\n" in screen.getvalue()


def test_other_processes_are_silent(monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    assert isinstance(module.create_display(), module.SilentDisplay)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (59.6, "1 min"), (185, "3 min"), (3595, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_duration_text(seconds, text):
    assert duration_text(seconds) == text
