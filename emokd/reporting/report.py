"""Writes report.html: one self-contained page about a run, as far as it has come."""

import base64
import html
import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emokd.errors import InputError, excerpt
from emokd.files import has_changed, write_whole
from emokd.reporting import figures, observations
from emokd.reporting.metrics_log import RESERVED, Record, read_metrics
from emokd.reporting.provenance import provenance
from emokd.reporting.scoreboard import (
    MISSHAPEN,
    accepted_texts,
    flatten_scores,
    headline,
    named_networks,
    scoreboard_tables,
)
from emokd.reporting.table import Table, count_text

COMPILED = ("compile_seconds", "flops_per_step", "device_bytes")
MEASURED = ("examples_per_second_per_device", "data_wait_share", "host_peak_bytes")
PANELS = 24
"""Most panels in one figure of curves; the report names the metrics that it leaves out."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
td { max-width: 40rem; overflow-wrap: break-word; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
caption { white-space: nowrap; }
th { background: #f3f3f3; } img { max-width: 100%; } .missing { color: #8a4b00; } .quiet { color: #666; }
.synthetic { background: #fff3d6; padding: .5rem .8rem; }
"""


def write_report(workdir: pathlib.Path, remarks: Sequence[str] = ()) -> pathlib.Path:
    """Writes `report.html` into a run's folder, whole or not at all, and returns its path.

    The pictures of the run's observations are written beside it, and are in it too. The run may be under way: several
    processes may write the report at the same time.

    Args:
      workdir: the run's folder.
      remarks: sentences to show above the scores, besides the changes of data that the scores themselves list.

    Raises:
      InputError: there is no such folder, nothing of a run is in it, or an observation cannot be read.
    """
    if not workdir.is_dir():
        raise InputError(f"There is no folder {workdir}. Give the --workdir of a run.")
    if not any((workdir / name).exists() for name in ("config.json", "metrics.jsonl", "scores.json")):
        raise InputError(f"{workdir} holds no run: no config.json, no metrics.jsonl, no scores.json.")
    observations.write_pictures(workdir)
    path = workdir / "report.html"
    write_whole(path, render_report(workdir, remarks))
    return path


def render_report(workdir: pathlib.Path, remarks: Sequence[str] = ()) -> str:
    """The page's HTML. Where a file is missing or unreadable, the page says so in its place."""
    config, config_problem = _read(workdir / "config.json")
    scores, scores_problem = _read(workdir / "scores.json")
    records = read_metrics(workdir)
    sections = [
        ("Scores", _drawn(lambda: _scores(scores, scores_problem))),
        ("Teachers' weights", _drawn(lambda: _weights(scores, scores_problem))),
        ("Confusion", _drawn(lambda: _confusion(scores, scores_problem, workdir))),
        *_pictures(workdir),
        ("Curves", _curves(records)),
        ("Speed", _speed(records)),
        ("All scores", _drawn(lambda: _all_scores(scores, scores_problem))),
        ("Configuration", _configuration(config, config_problem)),
        ("About this report", _about()),
    ]
    title = html.escape(f"emokd: {workdir.absolute().name}")
    body = "\n".join(f"<section><h2>{html.escape(name)}</h2>\n{content}</section>" for name, content in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n{_head(config, scores)}{_marks(scores, remarks)}{body}</body></html>\n"
    )


def _read(path: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Reads a JSON object: (content, problem); the problem is empty where there is none."""
    if not path.exists():
        return {}, f"There is no {path.name} yet."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        return {}, f"{path.name} cannot be read: {error}."
    if not isinstance(content, dict):
        return {}, f"{path.name} is not a JSON object."
    if has_changed(path):
        return {}, f"{path.name} is not what was written (its sha256 differs)."
    return content, ""


def _drawn(section: Callable[[], str]) -> str:
    """A section about the scores; where they are damaged, the page says so in its place."""
    try:
        return section()
    except MISSHAPEN as error:
        return _missing(f"scores.json is damaged, or of another version of emokd: {error}.")


def _missing(text: str) -> str:
    return f'<p class="missing">{html.escape(text)}</p>'


def _image(picture: str | bytes, description: str) -> str:
    """A figure in the page: SVG text, or the bytes of a PNG."""
    kind, content = ("svg+xml", picture.encode()) if isinstance(picture, str) else ("png", picture)
    data = base64.b64encode(content).decode()
    return f'<p><img alt="{html.escape(description)}" src="data:image/{kind};base64,{data}"></p>'


def _head(config: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    given = config.get("data")
    data = given if isinstance(given, Mapping) else {}
    facts = [f"recipe {config['recipe']}"] if config.get("recipe") else []
    facts += [f"data {data['source']}"] if data.get("source") else []
    facts += [f"seed {config['seed']}"] if "seed" in config else []
    facts.append("finished" if scores else "not finished")
    text = f'<p class="quiet">{html.escape(", ".join(facts))}</p>\n'
    if "painter" in _sources(data):
        text += (
            '<p class="synthetic">The pictures are synthetic (the embedded face painter). These numbers show that the '
            "program works; they are no evidence about real faces or about any paper.</p>\n"
        )
    return text


def _marks(scores: Mapping[str, Any], remarks: Sequence[str]) -> str:
    """The remarks above the scores: which changes of the data have been accepted, and `remarks`."""
    changes = scores.get("accepted_changes")
    texts = [*(accepted_texts(changes) if isinstance(changes, list) else ()), *remarks]
    return "".join(_missing(text) for text in dict.fromkeys(texts))


def _sources(data: Mapping[str, Any]) -> set[str]:
    """The names of the data set and of the sets that it combines."""
    options = data.get("options")
    parts = options.get("sources") if isinstance(options, Mapping) else None
    return {data.get("source", ""), *(part["source"] for part in parts or () if isinstance(part, Mapping))}


def _scores(scores: Mapping[str, Any], problem: str) -> str:
    if problem:
        return _missing(f"{problem} The student is scored when training ends.")
    return scoreboard_tables(scores)[0].html()


def _weights(scores: Mapping[str, Any], problem: str) -> str:
    tables = [] if problem else scoreboard_tables(scores)[1:]
    if not tables:
        return _missing("No weights of teachers are recorded.")
    parts = []
    for table in tables:
        values = np.array([[float("nan" if cell == "-" else cell) for cell in row[1:]] for row in table.rows])
        svg = figures.teacher_weights(values, [row[0] for row in table.rows], table.header[1:])
        parts.append(table.html() + _image(svg, table.title))
    return "\n".join(parts)


def _confusion(scores: Mapping[str, Any], problem: str, workdir: pathlib.Path) -> str:
    found = []
    student = scores.get("student")
    for target, values in student.items() if isinstance(student, Mapping) else ():
        for name, matrix in values.items() if isinstance(values, Mapping) else ():
            if name.startswith("confusion"):
                found.append((target, values, np.asarray(matrix, float)))
    if not found:
        return _missing(problem or "The student's scores hold no confusion matrix.")
    parts = []
    for target, values, matrix in found:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            parts.append(_missing(f"The confusion matrix of {target} has the shape {list(matrix.shape)}."))
            continue
        classes = _class_names(target, values, len(matrix), workdir)
        parts.append(f"<h3>{html.escape(target)}</h3>")
        parts.append(_image(figures.confusion_matrix(matrix, classes), f"Confusion matrix of the student: {target}"))
    return "\n".join(parts)


def _pictures(workdir: pathlib.Path) -> list[tuple[str, str]]:
    """The section of the run's PNG pictures; none for runs that made none."""
    described = {
        observations.SIMILARITY: "Similarity of examples to each other: the best teacher, and the student",
        observations.REPRESENTATIONS: "Teachers' features in two dimensions (principal components)",
    }
    parts = [
        f"<h3>{html.escape(text)}</h3>" + _image((workdir / name).read_bytes(), text)
        for name, text in described.items()
        if (workdir / name).exists()
    ]
    note = '<p class="quiet">A few fixed examples of the validation split, in the evaluation view.</p>'
    return [("Representations", "\n".join([*parts, note]))] if parts else []


def _class_names(target: str, values: Mapping[str, Any], count: int, workdir: pathlib.Path) -> list[str]:
    model, _ = _read(workdir / "student" / "model.json")
    spec = model.get("spec")
    classes = spec.get("classes") if isinstance(spec, Mapping) else None
    stored = classes.get(target) if isinstance(classes, Mapping) else None
    for names in (values.get("classes"), stored):
        if isinstance(names, list) and len(names) == count:
            return [str(name) for name in names]
    return [str(index) for index in range(count)]


def _curves(records: Sequence[Record]) -> str:
    if not records:
        return _missing("There is no metrics.jsonl, or no line in it: no curves.")
    phases = phase_spans(records)
    series: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name not in (*RESERVED, *COMPILED, *MEASURED):
                series.setdefault(name, []).append((record["step"], value))
    scored = {name: points for name, points in series.items() if name.startswith("validation/")}
    training = {name: points for name, points in series.items() if name not in scored}
    chosen = {name: points for name, points in scored.items() if headline(name.replace("/", "."))}
    parts = []
    for heading, found, everything in (("Training", training, training), ("Validation", chosen or scored, scored)):
        shown = dict(list(found.items())[:PANELS])
        parts.append(f"<h3>{heading}</h3>")
        parts.append(
            _image(figures.curves(shown, phases), f"{heading} curves") if shown else _missing("None recorded.")
        )
        left_out = [name for name in everything if name not in shown]
        if left_out:
            parts.append(f'<p class="quiet">Not drawn: {html.escape(excerpt(left_out))}.</p>')
    return "\n".join(parts)


def phase_spans(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """(name, first step, last step) of each phase in order; a phase begins where the one before it ended."""
    last: dict[str, int] = {}
    for record in records:
        last[record["phase"]] = max(record["step"], last.get(record["phase"], 0))
    spans, begin = [], 0
    for name, end in last.items():
        spans.append((name, begin, end))
        begin = end
    return spans


def _speed(records: Sequence[Record]) -> str:
    phases = list(dict.fromkeys(record["phase"] for record in records))
    if not phases:
        return _missing("There is no metrics.jsonl, or no line in it: no speed.")
    rows = []
    for phase in phases:

        def values(name: str, phase: str = phase) -> list[float]:
            return [record[name] for record in records if record["phase"] == phase and name in record]

        rate, wait = values(MEASURED[0]), values(MEASURED[1])
        compiled, flops, device, host = (values(name) for name in (*COMPILED, MEASURED[2]))
        rows.append(
            [
                phase,
                f"{statistics.median(rate):.4g}" if rate else "-",
                f"{statistics.mean(wait):.1%}" if wait else "-",
                " + ".join(f"{seconds:.1f}" for seconds in compiled) or "-",
                count_text(flops[-1]) if flops else "-",
                f"{device[-1] / 2**20:.0f}" if device else "-",
                f"{max(host) / 2**20:.0f}" if host else "-",
            ]
        )
    header = [
        "phase",
        "examples/s/device (median)",
        "data wait",
        "compile seconds",
        "FLOPs per step (XLA)",
        "device memory, MiB",
        "host peak memory, MiB",
    ]
    note = (
        "Rates leave out compilation, the first step of a phase, evaluations and saving; compile seconds are given "
        "for each time that the phase was compiled. Device memory is what XLA plans for the compiled step."
    )
    return Table(header, rows, notes=[note]).html()


def _all_scores(scores: Mapping[str, Any], problem: str) -> str:
    if problem:
        return _missing(problem)
    found = {name: flatten_scores(values) for name, values in named_networks(scores).items()}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    rows = [[name, *(f"{values[name]:.6g}" if name in values else "-" for values in found.values())] for name in names]
    rest = {name: value for name, value in scores.items() if name not in ("student", "baseline", "teachers", "weights")}
    facts = [[name, json.dumps(value, ensure_ascii=False)] for name, value in rest.items()]
    return Table(["score", *found], rows).html() + (Table(["about them", ""], facts).html() if facts else "")


def _configuration(config: Mapping[str, Any], problem: str) -> str:
    if problem:
        return _missing(problem)
    rows = [[name, json.dumps(value, ensure_ascii=False)] for name, value in _leaves(config)]
    return f"<details><summary>{len(rows)} settings</summary>{Table(['key', 'value'], rows).html()}</details>"


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _about() -> str:
    rows = [[name, value] for name, value in provenance().items()]
    note = "Where and when this page was written; the run itself may be older and of another machine."
    return Table(["", ""], rows, notes=[note]).html()
