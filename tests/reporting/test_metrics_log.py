"""metrics.jsonl: plain JSON, exact after a resume, unharmed by torn lines; TensorBoard events readable."""

import json
import math
import pathlib
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from emokd.reporting.metrics_log import MetricsLog, read_metrics


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_time(records):
    return [{k: v for k, v in record.items() if k != "time"} for record in records]


def events(folder):
    """Scalars and purge marks in every event file, read as TFRecords by hand: length, crc, payload, crc."""
    scalars, purges = [], []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            if event.HasField("session_log"):
                purges.append(event.step)
    return scalars, purges


def test_lines_are_plain_json_and_events_agree(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(10, "distill", {"loss": 0.5, "speed": 100})
        log.write(20, "distill", {"validation/expression/accuracy": 0.25})
    assert without_time(lines(tmp_path)) == [
        {"step": 10, "phase": "distill", "loss": 0.5, "speed": 100.0},
        {"step": 20, "phase": "distill", "validation/expression/accuracy": 0.25},
    ]
    scalars, purges = events(tmp_path)
    assert scalars == [(10, "loss", 0.5), (10, "speed", 100.0), (20, "validation/expression/accuracy", 0.25)]
    assert purges == []


def test_non_finite_values_are_valid_json_and_come_back(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "p", {"a": math.nan, "b": math.inf, "c": -math.inf})
    strict = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (strict["a"], strict["b"], strict["c"]) == ("nan", "inf", "-inf")
    (record,) = read_metrics(tmp_path)
    assert math.isnan(record["a"]) and record["b"] == math.inf and record["c"] == -math.inf


def test_resume_drops_later_lines_so_that_the_file_reads_as_uninterrupted(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    with MetricsLog(straight) as log:
        for step in range(10, 60, 10):
            log.write(step, "p", {"loss": 1 / step})
    with MetricsLog(broken) as log:
        for step in range(10, 50, 10):
            log.write(step, "p", {"loss": 1 / step})
    with MetricsLog(broken, resume_step=20) as log:
        for step in range(30, 60, 10):
            log.write(step, "p", {"loss": 1 / step})
    assert without_time(read_metrics(broken)) == without_time(read_metrics(straight))
    assert events(broken)[1] == [21]  # TensorBoard hides what lies at or after the purge step


def test_resuming_from_step_0_starts_an_empty_file(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(0, "p", {"compile_seconds": 3.0})
    with MetricsLog(tmp_path) as log:
        log.write(0, "p", {"compile_seconds": 1.0})
    assert without_time(lines(tmp_path)) == [{"step": 0, "phase": "p", "compile_seconds": 1.0}]


def test_a_torn_last_line_is_dropped_on_resume(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(10, "p", {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "phase": "p", "lo')
    assert [r["step"] for r in read_metrics(tmp_path)] == [10]
    with MetricsLog(tmp_path, resume_step=10) as log:
        log.write(20, "p", {"loss": 0.5})
    assert [r["step"] for r in lines(tmp_path)] == [10, 20]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_whole_last_line_without_newline_is_kept_apart(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "phase": "p", "time": 0, "loss": 1.0}')
    with MetricsLog(tmp_path, resume_step=5) as log:
        log.write(6, "p", {"loss": 0.5})
    assert [r["step"] for r in lines(tmp_path)] == [5, 6]


def test_lines_are_on_disk_at_once(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, "p", {"loss": 1.0})
    assert len(lines(tmp_path)) == 1
    log.flush()
    log.close()
    log.close()


def test_reserved_names_are_refused(tmp_path):
    with MetricsLog(tmp_path) as log, pytest.raises(ValueError, match="'step'"):
        log.write(1, "p", {"step": 1.0})


def test_a_missing_file_has_no_records(tmp_path):
    assert read_metrics(tmp_path) == []


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with MetricsLog(tmp_path) as log:
        log.write(1, "p", {"loss": 1.0})
        log.flush()
    assert list(tmp_path.iterdir()) == []


def test_neither_torch_nor_matplotlib_is_imported_to_train_or_to_write_metrics(tmp_path):
    """Seconds of every start. Both are here: the test suite has PyTorch for parity, reports are drawn by matplotlib."""
    program = f"""
import sys
import emokd.jobs.job, emokd.report
from emokd.reporting.metrics_log import MetricsLog
with MetricsLog({str(tmp_path)!r}) as log:
    log.write(1, "distill", {{"loss": 0.5}})
heavy = sorted({{"torch", "matplotlib"}} & set(sys.modules))
import torch  # not hidden from others
print(heavy, torch.zeros(1).item())
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[] 0.0\n"), done.stderr
    assert events(tmp_path) == ([(1, "loss", 0.5)], [])
