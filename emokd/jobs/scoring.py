"""Scoring the student of a finished run."""

import pathlib

import jax
from absl import logging

from emokd.configuration import config as configuration
from emokd.configuration import ranges
from emokd.data import reference
from emokd.data.tables.class_counts import named_counts
from emokd.errors import InputError
from emokd.inference.forward import create_forward
from emokd.jobs import began, by_group
from emokd.jobs.datasets import load_data
from emokd.jobs.workdir import read_config
from emokd.models.network import PRECISIONS
from emokd.names import normal
from emokd.recipes.common.task import choose
from emokd.reporting import rare_classes
from emokd.training import evaluation
from emokd.training.sharding import create_mesh
from emokd.training.streams import Streams
from emokd.weights import model_folder


def evaluate_student(
    workdir: pathlib.Path,
    split: str,
    *,
    devices: int = 0,
    batch_size: int = 0,
    by: str = "",
    accept_changed_data: bool = False,
) -> dict:
    """Scores the student's folder of a finished run on a split of the run's data.

    Scores do not depend on how the split is batched: padding does not count.

    Args:
      workdir: the run's folder.
      split: "train", "validation" or "test".
      devices: how many of the devices here; 0 for all, whatever the run had.
      batch_size: pictures at a time, rounded up to a multiple of the devices; 0 for the run's.
      by: whose scores are wanted besides, see `by_group.read_groups`; empty: nobody's.
      accept_changed_data: score it although the data are not what the run began with; the scores then say so.

    Raises:
      InputError: there is no finished run, its data are gone, there are not so many devices, or `by` names no groups.
    """
    here = jax.device_count()
    few = 0 < devices < here and jax.process_count() == 1
    if not (few or devices in (0, here)) or batch_size < 0:
        raise InputError(
            f"--devices={devices} and --batch_size={batch_size}: there are {here} devices here, and several processes "
            "take all of them; give no more, or 0 for all, and a batch of 1 or more, or 0 for the run's."
        )
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(f"{workdir} holds no run: there is no {path}.")
    if not (workdir / "student").exists():
        raise InputError(
            f"{workdir} holds no student: python -m emokd.train with the run's configuration finishes it, or makes the "
            "student again from the checkpoints."
        )
    config = read_config(path)
    ranges.check_numbers(config)
    choose(PRECISIONS, config.precision, f"{path}: precision")
    model = model_folder.load_trained(workdir / "student")
    parts, extra = load_data(config)
    now = {**began.describe(config, parts, extra), "devices": None}
    changes = began.compare(workdir, now, accept_changed_data)
    marks = list(dict.fromkeys([*began.accepted(workdir), *changes]))
    references = reference.from_json(model_folder.provenance(workdir / "student").get("references", {}))
    parts = {name: reference.refer(part, references) for name, part in parts.items()}
    student_classes, data_classes = model.spec.classes, parts[split].classes
    for head, names in student_classes.items():
        if tuple(map(normal, data_classes.get(head, names))) != tuple(map(normal, names)):
            raise InputError(f"The student's classes of {head!r} are {names}, but the data has {data_classes[head]}.")
    groups = by_group.read_groups(parts[split], by) if by else None
    forward = create_forward(model.spec, precision=config.precision, mirror=config.get("mirror", False))

    def predict(params, stats, constants, batch):
        return {"student": forward(params, stats, batch)}

    mesh = create_mesh(devices)
    rows = batch_size or config.batch_size
    config = configuration.locked(config, {"batch_size": rows + -rows % mesh.size})
    compiled = evaluation.create_predict(predict, tuple(model.spec.heads), mesh)
    batches = Streams(config, mesh, splits=parts).evaluation(parts[split])
    predictions, columns = evaluation.collect(compiled, model.params, model.stats, {}, batches)
    scores = evaluation.score(predictions, columns, data_classes)["student"]
    remarks = rare_classes.remarks({"student": scores}, split, named_counts(parts["train"]))
    for remark in remarks:
        logging.warning("%s", remark)
    found_scores = {"split": split, **scores, "remarks": remarks}
    if groups is not None:
        found = by_group.score(predictions["student"], columns, data_classes, parts[split], groups)
        found_scores["by"] = {"what": by, "groups": found}
    return {**found_scores, "accepted_changes": marks} if marks else found_scores
