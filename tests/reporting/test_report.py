"""report.html: complete, self-contained, escaped, and honest about what is missing."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from absl import logging
from scipy import stats

from emokd import metrics
from emokd.errors import InputError
from emokd.reporting import kept_warnings, predictions
from emokd.reporting.drawing.curve import draw_curves
from emokd.reporting.metrics_log import MetricsLog, read_metrics
from emokd.reporting.page.verdict import sentence, wilson
from emokd.reporting.report import render_report, write_report
from emokd.reporting.run_files import phase_spans

NASTY = '<script>alert("x")</script>&$\\frac{'


class Page(HTMLParser):
    """What a browser would see: tags, text, images; fails on unbalanced tags."""

    VOID = ("meta", "img", "br")
    """Elements of HTML without an end."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.figures, self.links, self.ids, self.open = [], "", [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if attributes.get("role") == "img":
            self.figures.append(attributes["aria-label"])

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
    speed = re.search(r'<tr><th scope="row">teach</th>(.*?)</tr>', text).group(1)
    assert re.findall(r"<td>(.*?)</td>", speed) == ["120", "25.0%", "2.5", "3 G", "7", "-"]
    speed = re.search(r'<tr><th scope="row">distill</th>(.*?)</tr>', text).group(1)
    assert re.findall(r"<td>(.*?)</td>", speed) == ["-", "-", "1.5", "-", "-", "11"]
    assert "validation/expression/ece" in page.text  # said to be left out of the curves
    assert "expression.ece" in page.text and "0.125" in page.text
    assert "data.source" in page.text and '"painter"' in page.text
    assert [said.split(".")[0] for said in page.figures] == [
        "Curve of loss",
        "Curve of loss/teacher/happy",
        "Curve of validation/expression/accuracy",
    ]
    assert page.figures[0] == (
        "Curve of loss. loss in phase teach: 0.1 at step 10 to 0.03333 at step 30; "
        "loss in phase distill: 0.5 at step 40."
    )
    assert len(page.ids) == len(set(page.ids))


def test_nothing_comes_from_elsewhere_and_no_script_may_run(tmp_path):
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.links and all(link[0] == "#" and link[1:] in page.ids for link in page.links)
    assert "Content-Security-Policy" in text and "default-src 'none'" in text and "script-src" not in text


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


def test_confusion_matrix_is_a_table_of_counts_shaded_by_the_share_of_the_true_class(tmp_path):
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    table = re.search(r"<caption>Confusion matrix.*?</table>", text, re.S).group()
    cells = re.findall(r'<td class="shaded" style="--share: ([\d.]+)">(\d+)</td>', table)
    assert cells == [("0.750", "3"), ("0.250", "1"), ("0.333", "2"), ("0.667", "4")]
    assert re.findall(r"<td>([^<]*%)</td>", table) == ["75%", "67%"]  # recall


def drawn(curve, phases):
    """The lines of a panel: for each, how many points it has."""
    svg = ElementTree.fromstring(draw_curves("loss", {"loss": curve}, phases).__html__())
    return [
        len(re.findall("[ML]", stretch)) for path in svg.iter("path") for stretch in re.findall("M[^M]*", path.get("d"))
    ]


def test_curves_break_between_phases_and_at_what_is_not_finite():
    assert drawn([(1, 1.0), (2, 2.0), (3, 9.0), (4, 8.0)], [("a", 0, 2), ("b", 2, 4)]) == [2, 2]
    assert drawn([(1, 1.0), (2, float("nan")), (3, 9.0), (4, 8.0)], [("a", 0, 4)]) == [1, 2]
    assert drawn([(1, float("inf"))], [("a", 0, 1)]) == []


def test_long_lines_are_thinned_but_end_where_they_end():
    (count,) = drawn([(step, float(step)) for step in range(1, 100_001)], [("a", 0, 100_000)])
    assert 350 <= count <= 402


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


def test_the_verdict_names_what_the_student_is_compared_with():
    def network(accuracy):
        return {"expression": {"accuracy": accuracy, "count": 400}}

    scores = {"student": network(0.6), "baseline": network(0.5), "teachers": {"big": network(0.58)}}
    told = sentence(scores, {"select": {"metric": "expression/accuracy"}})
    assert "0.1000 better than the same network on labels alone" in told
    assert "0.0200 better than the best, teacher big, which so few examples do not tell apart" in told
    low, high = stats.binomtest(240, 400).proportion_ci(method="wilson")
    assert f"95% interval {low:.3f} to {high:.3f}" in told and wilson(0.6, 400) == pytest.approx((low, high))
    errors = {
        "student": {"valence_arousal": {"valence": {"rmse": 0.4}}},
        "teachers": {"t": {"valence_arousal": {"valence": {"rmse": 0.3}}}},
    }
    assert "0.1000 worse than the best, teacher t" in sentence(errors, {})
    assert sentence({"student": {}}, {}) == "The student has no score."


def answered(folder, rng, *, rows=80):
    """Writes answers of three classes and of valence and arousal; returns (logits, labels)."""
    logits, labels = rng.normal(size=(rows, 3)) * 2, rng.integers(-1, 3, rows).astype(np.int32)
    affect = rng.uniform(-1.3, 1.3, (rows, 2)).astype(np.float32)
    columns = {"id": np.arange(rows, dtype=np.uint32), "check": np.arange(rows, dtype=np.uint32), "expression": labels}
    targets = np.where(rng.uniform(size=(rows, 2)) < 0.1, np.nan, rng.uniform(-1, 1, (rows, 2))).astype(np.float32)
    outputs = {"expression": logits, "valence_arousal": affect}
    predictions.write(
        folder, "test", outputs, {**columns, "valence_arousal": targets}, {"expression": ("a", "b", NASTY)}
    )
    return logits, labels


def test_answers_give_calibration_the_plane_and_the_most_confident_mistakes(tmp_path):
    write_run(tmp_path)
    logits, labels = answered(tmp_path, np.random.default_rng(1))
    text = write_report(tmp_path).read_text()
    page = Page(text)
    assert "Valence and arousal" in page.text and "script" not in page.tags
    known = labels >= 0
    p = np.exp(logits[known]) / np.exp(logits[known]).sum(1, keepdims=True)
    error = metrics.expected_calibration_error(p, labels[known])  # tested against its definition elsewhere
    assert f"Reliability of the student, expected calibration error {error:.4f}." in text
    wrong = sorted(
        (row.max() for row, label in zip(p, labels[known], strict=True) if row.argmax() != label), reverse=True
    )
    section = text[text.index('id="mistakes"') : text.index('id="speed"')]
    told = re.findall(r"<tr><th scope=\"row\">[^<]*</th><td>[^<]*</td><td>([\d.]+)</td>", section)
    assert [float(value) for value in told] == pytest.approx(wrong[:24], abs=6e-4)


def test_pictures_are_shown_only_where_they_are_given(tmp_path):
    write_run(tmp_path)
    answered(tmp_path, np.random.default_rng(1))
    assert "<img" not in render_report(tmp_path)
    shown = render_report(tmp_path, thumbnails={(i, i): (f"{NASTY}{i}.png", "AAAA") for i in range(80)})
    page = Page(shown)
    assert page.tags.count("img") == 24 and f"{NASTY}" in page.text and "script" not in page.tags
    assert {link for link in page.links if link[0] != "#"} == {"data:image/jpeg;base64,AAAA"}


def test_a_run_that_kept_no_answers_says_how_to_get_them(tmp_path):
    write_run(tmp_path)
    assert "it scores the student anew" in Page(write_report(tmp_path).read_text()).text
    (tmp_path / predictions.FILE).write_bytes(b"PK damaged")
    assert "does not hold a run's answers" in Page(write_report(tmp_path).read_text()).text


def test_the_configuration_is_shown_as_what_differs_from_the_defaults(tmp_path):
    write_run(tmp_path)
    defaults = {"recipe": "smkd", "seed": 0, "data": {"source": "", "dir": "happy", "canvas": 160}, "phases": {}}
    text = render_report(tmp_path, defaults=defaults)
    table = text[text.index("3 settings that differ") :]
    rows = re.findall(
        r"<tr><th[^>]*>([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td></tr>", table[: table.index("</table>")]
    )
    assert rows == [("data.canvas", "160", "-"), ("data.source", "&#34;&#34;", "&#34;painter&#34;"), ("seed", "0", "3")]


def test_warnings_are_kept_once_each_and_shown(tmp_path):
    write_run(tmp_path)
    with kept_warnings.kept() as keeper:
        logging.warning("before %s", NASTY)
        assert not (tmp_path / kept_warnings.FILE).exists()
        keeper.open(tmp_path)
        for _ in range(2):
            logging.warning("a picture is left out")
        logging.info("nothing")
    logging.warning("after")
    assert kept_warnings.read(tmp_path) == {f"before {NASTY}": 1, "a picture is left out": 2}
    (tmp_path / "checkpoints" / "25.set_aside").mkdir(parents=True)
    with MetricsLog(tmp_path, resume_step=40) as log:
        log.write(40, "distill", {"compile_seconds": 1.0})
    page = Page(write_report(tmp_path).read_text())
    assert f"before {NASTY}" in page.text and "a picture is left out (2 times)" in page.text
    assert "set aside: 25.set_aside" in page.text and "continued from step 40" in page.text


def test_a_run_still_in_training_says_how_far_it_is(tmp_path):
    write_run(tmp_path)
    (tmp_path / "scores.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"select": {"metric": "expression/accuracy"}}))
    text = Page(write_report(tmp_path).read_text()).text
    assert "distill, step 40; best validation/expression/accuracy 0.5000, at step 40" in text


def test_the_data_have_fingerprints_that_tell_any_change(tmp_path):
    write_run(tmp_path)
    part = {"keys": ["a", "b"], "checksums": "0011", "columns": {"expression": "2233"}}
    changes = [{}, {"keys": ["b", "a"]}, {"checksums": "0012"}, {"columns": {"expression": "2232"}}]
    found = set()
    for change in changes:
        record = {"sets": {"test": {**part, **change}}, "classes": {"expression": ["x", NASTY]}, "files": {}}
        (tmp_path / "began_with.json").write_text(json.dumps(record))
        found |= set(re.findall(r"<td>([0-9a-f]{16})</td>", write_report(tmp_path).read_text()))
    assert len(found) == len(changes)
