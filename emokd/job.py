"""A training job from its configuration to its scores: data, models, recipe, loop, student."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Mapping

import jax
import ml_collections
import numpy as np
from absl import logging

from emokd import began, caching, finished, locks, predecessor, recipes
from emokd import config as configuration
from emokd.data import sources, splits
from emokd.data.augment import centre_views
from emokd.data.examples import Examples
from emokd.distributed import in_first_process, together
from emokd.errors import InputError
from emokd.models.cost import describe
from emokd.models.network import TrainedModel, functional
from emokd.recipes.common import Task, average_affect, see
from emokd.reporting.provenance import provenance
from emokd.reporting.report import write_report
from emokd.training import evaluation, loop
from emokd.training.loop import Job
from emokd.training.programs import Programs, make_room
from emokd.training.sharding import check_batch_size, create_mesh
from emokd.training.streams import Streams
from emokd.weights import importing, model_folder
from emokd.weights.places import find_file
from emokd.workdir import OPERATIONAL, check, claim, has_results, read_config, write_atomically

# Among the operational keys, those on which compiled programs depend.
PROGRAM_KEYS = ("devices", "mesh.", "sharding.", "remat")

TrainTeacher = Callable[[str, pathlib.Path], pathlib.Path]
Data = tuple[dict[str, Examples], Examples | None]
"""The splits, and the unlabelled pictures where there are any."""


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    report: bool = True,
    shared: dict[str, Programs] | None = None,
    accept_changed_data: bool = False,
) -> dict:
    """Runs the job in `workdir`, continuing it if it has begun; returns the scores, also in `scores.json`.

    Nothing is written before the job could be made: a refused run leaves no folder behind.

    Args:
      config: the resolved configuration.
      workdir: the run's folder.
      report: write `report.html` at the end; `python -m emokd.report` does it later.
      shared: programs of runs in this process, to use again and to add to.
      accept_changed_data: go on although the data or files are not what the run began with, see `emokd.began`.

    Raises:
      InputError: the input is wrong, `workdir` holds a run of another configuration or of other data, or another
        process runs there.
    """
    workdir = pathlib.Path(workdir)
    with locks.held(workdir):
        in_first_process(lambda: check(workdir, config))
        if finished.is_finished(workdir):
            in_first_process(lambda: finished.look(config, workdir, load_data, report, accept_changed_data))
            logging.info("%s is done already.", workdir)
            return finished.read_scores(workdir)
        return _train(config, workdir, report, shared, accept_changed_data)


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    report: bool,
    shared: dict[str, Programs] | None,
    accept: bool,
) -> dict:
    data = load_data(config)
    now = began.describe(config, *data)
    begun = has_results(workdir)
    changes: list[str] = []

    def compare() -> None:
        if config.start_from and (pathlib.Path(config.start_from) / "scores.json").exists():
            changes.extend(began.check_start(pathlib.Path(config.start_from), now, accept))
        if begun:
            changes.extend(began.compare(workdir, now, accept))

    in_first_process(compare)
    trainer = teacher_trainer(workdir, config.data, accept)
    job = _create_job(config, trainer, bool(config.cache.dir), {} if shared is None else shared, data)[0]

    check_batch_size(config.batch_size, job.programs.mesh, config.accumulate)

    def begin() -> None:
        claim(workdir, config)
        began.begin(workdir, now, begun, changes)

    in_first_process(begin)
    state, scores = loop.train(job, workdir)
    for name, entry in {"student": scores["student"], **scores["teachers"]}.items():
        if name in job.recipe.networks:
            entry |= describe(job.recipe.networks[name])
    scores["data"] = job.splits["train"].name
    if marks := list(dict.fromkeys([*began.accepted(workdir), *changes])):
        scores["accepted_changes"] = marks
    scores["provenance"] = provenance()
    params, stats = job.recipe.extract(*jax.tree.map(evaluation.fetch, (state.params, state.stats)))
    if jax.process_index() == 0:
        origin = {"config": configuration.to_json(config), "step": int(state.step), "split": scores["split"]}
        origin["face_crop"] = job.splits["train"].face_crop
        model_folder.save_model(workdir / "student", job.recipe.student_spec, params, stats, origin)
        write_atomically(workdir / "scores.json", json.dumps(scores, indent=2))
        if report:
            write_report(workdir)
    together("run finished")  # before another process reads the student, or leaves
    return scores


def teacher_trainer(
    workdir: pathlib.Path, data: ml_collections.ConfigDict, accept_changed_data: bool = False
) -> TrainTeacher:
    """Trains teachers that have a configuration but no weights, each in a folder of its own under `workdir`.

    A teacher that learns from the same data set as the run (`data`) gets the run's split: it must not see what the
    student is scored on.
    """

    def train_teacher(file: str, name: pathlib.Path) -> pathlib.Path:
        logging.info("Training teacher %s with %s.", name, file)
        folder = workdir / "teachers" / name
        config = configuration.load(file)
        if config.data.source == data.source:
            config.data.split = data.split
        train(config, folder, accept_changed_data=accept_changed_data)
        return folder / "student"

    return train_teacher


def load_splits(config: ml_collections.ConfigDict) -> dict[str, Examples]:
    """Reads the data set of `config.data` and splits it.

    Raises:
      InputError: the source is unknown, its files are wrong, or a split would be too small.
    """
    data = config.data
    examples = load_examples(data, data.canvas)
    section = data.split
    parts = splits.split(
        examples,
        {name: section[name] for name in ("train", "validation", "test")},
        section.seed,
        folds=section.folds,
        fold=section.fold,
        by_group=section.by_group,
        use_prescribed=section.use_prescribed,
        leave_one_group_out=section.leave_one_group_out,
        validation_is_test=section.validation_is_test,
    )
    return sources.finish(data.source, parts, data.options)


def load_examples(section: ml_collections.ConfigDict, canvas: int) -> Examples:
    """Reads the data set of a section with `source`, `dir` and `options`; JPEGs are decoded no larger than needed."""
    return sources.load(section.source, section.dir, section.options.to_dict(), min_side=canvas)


def load_data(config: ml_collections.ConfigDict) -> Data:
    """The run's splits and, where it has any, its unlabelled pictures.

    Raises:
      InputError: as `load_splits` and `load_examples`.
    """
    extra = load_examples(config.data.extra, config.data.canvas) if config.data.extra.source else None
    return load_splits(config), extra


def create_job(
    config: ml_collections.ConfigDict, train_teacher: TrainTeacher, shared: dict[str, Programs] | None = None
) -> Job:
    """Everything that training needs, with teachers read from the cache where the configuration names one.

    Args:
      config: the resolved configuration.
      train_teacher: (configuration file, teacher's name) -> model folder; trains a teacher that has no weights.
      shared: programs that may be used again; what is new is added.

    Raises:
      InputError: data, models or options are wrong, or the batch is larger than the training split.
    """
    shared = {} if shared is None else shared
    return _create_job(config, train_teacher, cached=bool(config.cache.dir), shared=shared)[0]


def _create_job(
    config: ml_collections.ConfigDict,
    train_teacher: TrainTeacher,
    cached: bool,
    shared: dict[str, Programs],
    data: Data | None = None,
) -> tuple[Job, dict[str, TrainedModel]]:
    parts, extra = load_data(config) if data is None else data
    train_split = parts["train"]
    if config.batch_size > len(train_split):
        raise InputError(
            f"config.batch_size is {config.batch_size}, but the training split of {train_split.name} has only "
            f"{len(train_split)} examples; lower it."
        )
    task = Task(
        classes=train_split.classes,
        columns=tuple(train_split.columns),
        sizes={"labelled": len(train_split), "all": len(train_split) + (len(extra) if extra else 0)},
        batch_size=config.batch_size,
        counts=class_counts(train_split),
        devices=create_mesh(config.devices, **config.mesh).size,
        inputs={n: np.asarray(read(0)).shape for n, read in train_split.inputs.items() if n != "image"},
    )
    models = load_models(config, train_teacher)
    start = pathlib.Path(config.start_from) if config.start_from else None
    done = predecessor.phases_done(start) if start else set()
    key = program_key(config, task, models, done)
    if key not in shared:
        make_room(shared)
        recipe = recipes.find(config.recipe).build(config, task, models)
        if start:
            recipe = predecessor.without(recipe, done, start)
        shared[key] = Programs(recipe, config, len(task.classes.get("expression", ())))
    programs = shared[key] = shared.pop(key)  # the last one used is the last one to go
    begin = predecessor.load(start, programs.abstract, programs.placement.state) if start else None
    job = Job(config, programs.recipe, parts, extra, begin=begin, programs=programs)
    return (dataclasses.replace(job, attach=caching.open_cache(job, models).attach) if cached else job), models


def program_key(
    config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel], done: Collection[str]
) -> str:
    """What decides a run's recipe and programs: everything but its seed, which examples it has, and how it is logged.

    Args:
      config: the run's configuration.
      task: the facts of its data.
      models: what it reads from files.
      done: phases that it leaves out.
    """
    aside = (*OPERATIONAL, "seed", "start_from", "data.split.", "data.options.", "cache.", "evaluation.", "select.")
    kept = {
        name: value
        for name, value in configuration.leaves(config)
        if name.startswith(PROGRAM_KEYS) or not name.startswith(aside)
    }
    origins = {name: model.origin for name, model in models.items()}
    # Schedules know how many steps an epoch has; of all else in which a study's folds differ no program depends.
    facts = dataclasses.asdict(task)
    facts["sizes"] = {name: task.steps_per_epoch(name) for name in task.sizes}
    facts["counts"] = task.counts if config.get("class_weights", "none") != "none" else ()
    return json.dumps([kept, facts, origins, sorted(done)], default=str, sort_keys=True)


def class_counts(examples: Examples) -> tuple[float, ...]:
    """How many examples each expression has; votes count as fractions. Empty without expressions."""
    if "votes" in examples.columns:
        return tuple(map(float, examples.columns["votes"].sum(0)))
    if "expression" not in examples.columns:
        return ()
    labels = examples.columns["expression"]
    return tuple(map(float, np.bincount(labels[labels >= 0], minlength=len(examples.classes["expression"]))))


def write_cache(config: ml_collections.ConfigDict, folder: pathlib.Path, train_teacher: TrainTeacher) -> dict:
    """Asks every frozen teacher for its features of every example in every view, see `emokd.caching`.

    Returns:
      The cache's key and its size in bytes.

    Raises:
      InputError: as `create_job` and `caching.write_cache`.
    """
    # Every process asks on its own devices, so each holds the teachers whole.
    config = configuration.locked(config, {"sharding.teachers": ()})
    job, models = _create_job(config, train_teacher, cached=False, shared={})
    with locks.held(folder):
        return caching.write_cache(job, models, folder)


def load_models(config: ml_collections.ConfigDict, train_teacher: TrainTeacher) -> dict[str, TrainedModel]:
    """The networks that the configuration takes from files: "student" and teachers by name.

    "{fold}" in a teacher's checkpoint stands for `config.data.split.fold`, for teachers trained fold by fold.

    Raises:
      InputError: a file is missing or does not fit its architecture, or its classes are not the data's.
    """
    models = {}
    if "student" in config and config.student.init:
        models["student"] = load_model(config.student.init, config.student, "config.student.init")
    for name in sorted(config.get("teachers", {})):
        section = config.teachers[name]
        path = section.checkpoint.replace("{fold}", str(config.data.split.fold))
        if not path and section.train:
            path = str(train_teacher(section.train, pathlib.Path(name)))
        if path:
            models[name] = load_model(path, section, f"config.teachers.{name}.checkpoint")
            logging.info("Teacher %s: %s", name, models[name].origin)
    for name in sorted(config.get("modalities", {})):
        section = config.modalities[name]
        if section.init:
            models[name] = load_model(section.init, section, f"config.modalities.{name}.init")
    return models


def load_model(path: str, section: ml_collections.ConfigDict, key: str) -> TrainedModel:
    """Reads a model folder, or a weights file of another framework for `section.backbone`.

    Paths that do not exist as they stand are looked for under $EMOKD_DATA.
    """
    found = find_file(path, key)
    if found.is_dir():
        model = model_folder.require_pictures(model_folder.load_trained(found), key)
    else:
        model = importing.import_file(section.backbone, found, options=section.options.to_dict())
    if section.size and section.size != model.spec.preprocessing.size:
        preprocessing = dataclasses.replace(model.spec.preprocessing, size=section.size)
        model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, preprocessing=preprocessing))
    return model


def evaluate_student(workdir: pathlib.Path, split: str, *, accept_changed_data: bool = False) -> dict:
    """Scores the student's folder of a finished run on a split of the run's data.

    Args:
      workdir: the run's folder.
      split: "train", "validation" or "test".
      accept_changed_data: score it although the data are not what the run began with; the scores then say so.

    Raises:
      InputError: there is no finished run, its data are gone, or its batch does not divide over the devices here.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(f"{workdir} holds no run: there is no {path}.")
    if not (workdir / "student").exists():
        raise InputError(
            f"{workdir} holds no student: python -m emokd.train with the run's configuration finishes it, or makes the "
            "student again from the checkpoints."
        )
    config = read_config(path)
    model = model_folder.load_trained(workdir / "student")
    parts, extra = load_data(config)
    now = {**began.describe(config, parts, extra), "devices": None}
    changes = began.compare(workdir, now, accept_changed_data)
    marks = list(dict.fromkeys([*began.accepted(workdir), *changes]))
    found, expected = model.spec.classes, parts[split].classes
    for head, names in found.items():
        if tuple(expected.get(head, names)) != tuple(names):
            raise InputError(f"The student's classes of {head!r} are {names}, but the data has {expected[head]}.")
    network = functional(model.spec, precision=config.precision)

    def look(params, stats, batch, mirrored):
        view = centre_views(batch["id"].shape[0], mirrored)
        return network(params, stats, see(model.spec, batch, view))[0]

    def predict(params, stats, constants, batch):
        signals = look(params, stats, batch, False)
        if config.get("mirror", False):
            signals = average_affect(signals, look(params, stats, batch, True))
        return {"student": signals}

    mesh = create_mesh(config.devices)
    try:
        check_batch_size(config.batch_size, mesh)
    except InputError as error:  # say where: no flag of the command has set it
        raise InputError(f"{path}: {error}") from error
    compiled = evaluation.create_predict(predict, tuple(model.spec.heads), mesh)
    batches = Streams(config, mesh).evaluation(parts[split])
    predictions, columns = evaluation.collect(compiled, model.params, model.stats, {}, batches)
    scores = {"split": split, **evaluation.score(predictions, columns, expected)["student"]}
    return {**scores, "accepted_changes": marks} if marks else scores
