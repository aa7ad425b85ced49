"""Describes an export: `student.json` for programs, and the model card `README.md` in Hugging Face's layout."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import emokd
from emokd.exporting.checking import Check
from emokd.exporting.examples import workdir_of
from emokd.exporting.formats import FORMATS
from emokd.exporting.formats.format import Format, Written
from emokd.exporting.student import Student
from emokd.inference.jax_student import column_names, privileged_names, signature_of
from emokd.inference.onnx_student import FORMAT
from emokd.jobs.finished import read_scores
from emokd.jobs.record import read as read_record
from emokd.weights import model_folder

UNKNOWN_LICENCE = "not recorded"
INTENDED_USE = (
    "Estimates which expression a face, a picture or a recording shows to the people who labelled the training data. "
    "It does not know what anybody feels. It is not made for decisions about people, nor for watching them without "
    "their consent; in the European Union inferring emotions at work and in schools is prohibited, with few "
    "exceptions (Regulation 2024/1689, article 5)."
)


def describe(
    student: Student, folder: pathlib.Path, check: Check, written: Written, format: Format, precision: str
) -> dict[str, Any]:
    """Describes the exported file for its users, as JSON values.

    Args:
      student: the exported model.
      folder: its model folder.
      check: the comparison of the file with the network.
      written: the file.
      format: its format.
      precision: that it computes in.
    """
    provenance = model_folder.provenance(folder)
    config = json.loads(provenance.get("config") or "{}")
    workdir = workdir_of(folder)
    place = str(folder / model_folder.DESCRIPTION)
    signature = signature_of(student.model.spec, column_names(provenance, place))
    return {
        "format": FORMAT,
        "emokd": emokd.__version__,
        "file": {"format": format.name, **written.notes},
        "bytes": len(written.content),
        "sha256": hashlib.sha256(written.content).hexdigest(),
        "model_sha256": model_folder.model_hash(folder),
        "inputs": {name: _input(student, name, format, signature.inputs[name].columns) for name in student.inputs},
        "outputs": {name: _output(student, name) for name in check.differences},
        "canvas": {
            "size": student.seen_as.canvas,
            "fit": student.seen_as.fit,
            "face_crop": student.seen_as.face_crop,
            "mirrored_too": student.seen_as.mirror,
        },
        "multimodal": signature.multimodal,
        "attends_to_batch": signature.attends_to_batch,
        "privileged": sorted(privileged_names(provenance, place)),
        "precision": {"trained": student.seen_as.precision, "exported": precision},
        "training": _training(provenance, config),
        "scores": _scores(workdir),
        "teachers": _teachers(config, workdir),
        "licence": UNKNOWN_LICENCE,
        "check": {
            "examples": check.examples,
            "source": check.source,
            "runtime": check.runtime,
            "bound": check.bound,
            "largest_difference": dict(check.differences),
            "same_first_class": dict(check.same_class),
            "concordance": dict(check.concordance),
            "scores": {name: {key: dict(sides) for key, sides in keys.items()} for name, keys in check.scores.items()},
            "milliseconds": {str(size): dict(times) for size, times in check.milliseconds.items()},
        },
        "intended_use": INTENDED_USE,
    }


def _input(student: Student, name: str, format: Format, columns: Sequence[str]) -> dict[str, Any]:
    seen = student.inputs[name]
    wanted = seen.preprocessing
    batch = 1 if format.batches == (1,) else "batch"
    if wanted is None:
        reference = student.references.get(seen.reads)
        counted: dict[str, Any] = {}
        if reference is not None:
            counted["reference"] = {key: value.tolist() for key, value in vars(reference).items()}
        if reference is not None and not format.takes_raw:
            counted["normalised"] = "(value - centre) / unit of `reference`, in float64, and 0 where the unit is 0"
        return {
            "reads": seen.reads,
            "kind": "array",
            "dtype": "float64" if reference is not None and format.takes_raw else "float32",
            "shape": [batch, *seen.shape],
            "example": list(seen.shape),
            **({"columns": list(columns)} if columns else {}),
            **counted,
            "missing": "NaN; an example without this modality has NaN throughout",
        }
    found: dict[str, Any] = {
        "reads": seen.reads,
        "kind": "picture" if seen.is_picture else "video",
        "colours": "RGB",
        "size": wanted.size,
        "channels": wanted.channels,
    }
    if not seen.is_picture:
        found["frames"] = seen.shape[0]
    if student.preprocess:
        return found | {"dtype": "uint8", "shape": ["batch", "height", "width", 3], "normalised": "by the graph"}
    if wanted.channels == 1:
        found["colours"] = "grey (0.299 R + 0.587 G + 0.114 B)"
    first = seen.is_picture and format.channels_first
    shape = [seen.shape[-1], *seen.shape[:-1]] if first else list(seen.shape)
    return found | {
        "dtype": "float32",
        "shape": [batch, *shape],
        "normalised": "(pixel / 255 - mean) / std",
        "mean": list(wanted.mean),
        "std": list(wanted.std),
    }


def _output(student: Student, name: str) -> dict[str, Any]:
    spec = student.model.spec
    if name == "valence_arousal":
        return {"kind": "valence and arousal in [-1, 1], in this order"}
    classes = spec.classes.get(name)
    return {"kind": "probabilities", "classes": list(classes) if classes else list(map(str, range(spec.heads[name])))}


def _training(provenance: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    if not config:  # imported weights
        return {key: value for key, value in provenance.items() if isinstance(value, str | int | float)}
    data = config["data"]
    return {
        "recipe": config.get("recipe"),
        "data": data["source"],
        "step": provenance.get("step"),
        "seed": config["seed"],
        "split": {key: data["split"][key] for key in ("seed", "fold", "folds")},
        "licence": data.get("licence") or UNKNOWN_LICENCE,
    }


def _scores(workdir: pathlib.Path | None) -> dict[str, Any]:
    """The student's scores on its test split, without the tables by class, which the run's `scores.json` holds."""
    if workdir is None or not (workdir / "scores.json").is_file():
        return {}
    scores = read_scores(workdir)
    numbers = {
        head: {key: value for key, value in values.items() if isinstance(value, int | float)}
        for head, values in scores["student"].items()
        if isinstance(values, dict)
    }
    return {"split": scores.get("split"), "examples": scores.get("examples"), **numbers}


def _teachers(config: Mapping[str, Any], workdir: pathlib.Path | None) -> dict[str, Any]:
    """File and hash of each teacher that was read from a file."""
    record = read_record(workdir) if workdir else None
    files = record["files"] if record else {}
    found: dict[str, Any] = {}
    for kind in ("teachers", "modalities"):  # in a recipe with modalities each modality has its teacher
        for name, section in (config.get(kind) or {}).items():
            keys = [key for key in files if key.startswith(f"{kind}.{name}.")]
            file = next((section[key] for key in ("checkpoint", "answers") if section.get(key)), "")
            found[name] = {
                "backbone": section.get("backbone", ""),
                "file": pathlib.PurePath(file).name if file else "trained by the run",
                "sha256": files[keys[0]] if keys else "",
                "licence": section.get("licence") or UNKNOWN_LICENCE,
            }
    return found


def readme(description: Mapping[str, Any], file: str) -> str:
    """The model card of a description.

    Args:
      description: as `describe` returns it.
      file: the exported file's name.
    """
    library = FORMATS[description["file"]["format"]].library
    tags = "[emotion-recognition, knowledge-distillation, emokd]"
    lines = ["---", f"library_name: {library}", f"tags: {tags}", "---", ""]
    lines += [f"# {file}", "", f"An emotion-recognition model, exported by emokd {description['emokd']}.", ""]
    lines += ["## Intended use", "", description["intended_use"], "", "## Inputs", ""]
    for name, values in description["inputs"].items():
        shape = " x ".join(map(str, values["shape"]))
        lines.append(f"- `{name}`: {values['kind']}, {values['dtype']}, {shape}." + _colours(values))
    lines += ["", "## Outputs", ""]
    for name, values in description["outputs"].items():
        classes = f": {', '.join(values['classes'])}" if "classes" in values else ""
        lines.append(f"- `{name}`: {values['kind']}{classes}.")
    lines += ["", "## Scores", ""]
    scores = description["scores"]
    if scores:
        training = description["training"]
        lines += [
            f"On {scores['examples']} examples of the {scores['split']} split of `{training['data']}` (seed "
            f"{training['seed']}, split seed {training['split']['seed']}, step {training['step']}).",
            "",
            "| output | score | value |",
            "|---|---|---|",
        ]
        for head, numbers in scores.items():
            if isinstance(numbers, dict):
                lines += [f"| {head} | {key} | {value:.4g} |" for key, value in numbers.items()]
    else:
        lines.append("Not known: the model folder lies in no finished run.")
    lines += ["", "## Teachers", ""]
    for name, values in description["teachers"].items():
        hashed = f", sha256 {values['sha256'][:16]}" if values["sha256"] else ""
        lines.append(f"- {name}: {values['backbone']} ({values['file']}{hashed}); licence {values['licence']}.")
    if not description["teachers"]:
        lines.append("None on record.")
    lines += ["", "## Check", "", *_check(description), ""]
    lines += [
        f"Licence: {description['licence']}; of the training data: "
        f"{description['training'].get('licence', UNKNOWN_LICENCE)}. Whoever publishes this file states one that the "
        "training data and the teachers allow.",
        "",
    ]
    return "\n".join(lines)


def _check(description: Mapping[str, Any]) -> list[str]:
    check = description["check"]
    largest = max(check["largest_difference"].values())
    lines = [
        f"Computes in {description['precision']['exported']}. Compared in {check['runtime']} with the JAX network on "
        f"{check['examples']} examples ({check['source']}): the largest difference is {largest:.1e} of the output's "
        "largest value."
    ]
    for name, share in check["same_first_class"].items():
        lines.append(f"The most probable class of `{name}` is the network's for {share:.1%} of them.")
    for name, keys in check["scores"].items():
        for key, sides in keys.items():
            lines.append(f"There {key} of `{name}` is {sides['file']:.4f}, the network's {sides['network']:.4f}.")
    return lines


def _colours(values: Mapping[str, Any]) -> str:
    if "colours" not in values:
        normalised = f" Normalised: {values['normalised']}." if "normalised" in values else ""
        return f" {values['missing'][0].upper()}{values['missing'][1:]}.{normalised}"
    return f" {values['colours']}; normalised: {values['normalised']}."
