"""report.html: complete, self-contained, escaped, and honest about what is missing."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from emokd.errors import InputError
from emokd.reporting import figures
from emokd.reporting.metrics_log import MetricsLog, read_metrics
from emokd.reporting.report import phase_spans, write_report

NASTY = '<script>alert("x")</script>&$\\frac{'


class Page(HTMLParser):
    """What a browser would see: tags, text, images; fails on unbalanced tags."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.images, self.links, self.open = [], "", [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images.append(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write_run(folder, *, name="happy"):
    config = {"recipe": "smkd", "seed": 3, "data": {"source": "painter", "dir": name}, "phases": {}}
    (folder / "config.json").write_text(json.dumps(config))
    scores = {
        "split": "test",
        "examples": 10,
        "student": {
            "expression": {"accuracy": 0.5, "ece": 0.125, "confusion": [[3, 1], [2, 4]], "classes": [name, "sad"]}
        },
        "teachers": {name: {"expression": {"accuracy": 0.25}}},
        "weights": {"distill": {"mean": {name: 1.0}, "by_class": {name: {name: 1.0}}}},
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    with MetricsLog(folder) as log:
        log.write(0, "teach", {"compile_seconds": 2.5, "flops_per_step": 3e9, "device_bytes": 2**20 * 7})
        for step, rate in ((10, 100.0), (20, 300.0), (30, 120.0)):
            log.write(
                step, "teach", {"loss": 1 / step, "examples_per_second_per_device": rate, "data_wait_share": 0.25}
            )
        log.write(30, "distill", {"compile_seconds": 1.5})
        log.write(40, "distill", {"loss": 0.5, "host_peak_bytes": 2**20 * 11, f"loss/teacher/{name}": float("nan")})
        log.write(40, "distill", {"validation/expression/accuracy": 0.5, "validation/expression/ece": 0.1})


def rows(page_text):
    return [line.strip() for line in page_text.splitlines() if line.strip()]


def test_a_whole_run(tmp_path):
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    page = Page(text)
    for heading in ("Scores", "Teachers' weights", "Confusion", "Curves", "Speed", "Configuration"):
        assert heading in page.text
    assert "the student (0.5000) beats the best teacher, happy (0.2500) by 0.2500" in page.text
    assert "synthetic" in page.text
    assert "finished" in page.text and "not finished" not in page.text
    speed = re.search(r"<tr><td>teach</td>(.*?)</tr>", text).group(1)
    assert re.findall(r"<td>(.*?)</td>", speed) == ["120", "25.0%", "2.5", "3 G", "7", "-"]
    speed = re.search(r"<tr><td>distill</td>(.*?)</tr>", text).group(1)
    assert re.findall(r"<td>(.*?)</td>", speed) == ["-", "-", "1.5", "-", "-", "11"]
    assert "validation/expression/ece" in page.text  # said to be left out of the curves
    assert "expression.ece" in page.text and "0.125" in page.text
    assert "data.source" in page.text and '"painter"' in page.text
    assert [image["alt"] for image in page.images] == [
        "Mean weight of each teacher in phase distill",
        "Confusion matrix of the student: expression",
        "Training curves",
        "Validation curves",
    ]


def test_nothing_comes_from_elsewhere(tmp_path):
    write_run(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    assert "script" not in page.tags and "link" not in page.tags
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    for link in page.links:
        svg = ElementTree.fromstring(base64.b64decode(link.split(",")[1]))
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"


def test_every_name_is_escaped(tmp_path):
    write_run(tmp_path, name=NASTY)
    folder = tmp_path.rename(tmp_path.with_name("<b>run"))
    text = write_report(folder).read_text()
    page = Page(text)
    assert "script" not in page.tags and "b" not in page.tags
    assert NASTY in page.text  # shown as it was written
    assert "<script>" not in text


@pytest.mark.parametrize("kept", ["config.json", "metrics.jsonl", "scores.json"])
def test_a_partial_run_says_what_is_missing(tmp_path, kept):
    write_run(tmp_path)
    for name in {"config.json", "metrics.jsonl", "scores.json"} - {kept}:
        (tmp_path / name).unlink()
    page = Page(write_report(tmp_path).read_text())
    assert ("There is no config.json yet." in page.text) == (kept != "config.json")
    assert ("There is no scores.json yet." in page.text) == (kept != "scores.json")
    assert ("There is no metrics.jsonl" in page.text) == (kept != "metrics.jsonl")


def test_unreadable_scores_are_said_so(tmp_path):
    write_run(tmp_path)
    (tmp_path / "scores.json").write_text('{"student": ')
    assert "scores.json cannot be read" in Page(write_report(tmp_path).read_text()).text


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_a_run_is_an_input_error(tmp_path, folder):
    with pytest.raises(InputError, match="no folder|no run"):
        write_report(tmp_path / folder)


def test_phases_span_from_the_end_of_the_one_before():
    records = [
        {"step": 0, "phase": "a"},
        {"step": 10, "phase": "a"},
        {"step": 10, "phase": "b"},
        {"step": 25, "phase": "b"},
    ]
    assert phase_spans(records) == [("a", 0, 10), ("b", 10, 25)]


def test_confusion_matrix_writes_the_counts():
    svg = figures.confusion_matrix(np.array([[7, 0], [0, 0]]), ["a", "b"])
    ElementTree.fromstring(svg.split("?>", 1)[1].split(">", 1)[1])
    assert "<!-- 7 -->" in svg and "<!-- share of the true class -->" in svg


def test_curves_break_between_phases():
    """matplotlib writes one path per line: the points of one phase, none to the next phase's."""
    svg = figures.curves({"loss": [(1, 1.0), (2, 2.0), (3, 9.0), (4, 8.0)]}, [("a", 0, 2), ("b", 2, 4)])
    lines = re.findall(r'<path d="(M[^"]*)" clip-path="[^"]*" style="fill: none; stroke: #1f5fa8', svg)
    assert [len(re.findall("[ML] ", line)) for line in lines] == [2, 2]


def test_any_value_in_the_place_of_any_other_is_shown_or_said_to_be_damage(tmp_path):
    write_run(tmp_path)
    original = json.loads((tmp_path / "scores.json").read_text())
    others = [None, -1, 10**400, float("nan"), "x", [], [[]], {}, {"a": 1}, True, [3]]
    rng = np.random.default_rng(0)
    for _ in range(15):
        scores = json.loads(json.dumps(original))
        places = list(places_in(scores))
        parent, key = places[rng.integers(len(places))]
        parent[key] = others[rng.integers(len(others))]
        (tmp_path / "scores.json").write_text(json.dumps(scores))
        Page(write_report(tmp_path).read_text())


def places_in(value):
    """Each value inside another, as (what it is in, its key)."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places_in(value[key])


def test_lines_of_metrics_that_are_none_are_skipped(tmp_path, caplog):
    write_run(tmp_path)
    lines = ['{"step": 1, "phase": [1]}', json.dumps({"step": 10**30, "phase": "a"}), "[" * 100_000]
    lines += [json.dumps({"step": 2, "phase": "a", "loss": 10**400}), '{"step": 3, "phase": "a", "loss": 1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert [record["step"] for record in read_metrics(tmp_path)] == [3]
    Page(write_report(tmp_path).read_text())
