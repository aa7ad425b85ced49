"""A training job from its configuration to its scores: data, models, recipe, loop, student."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from emokd import imports, recipes
from emokd.configuration import config as configuration
from emokd.configuration import ranges
from emokd.data import reference
from emokd.data.examples import Rows
from emokd.data.pipeline import readable
from emokd.data.tables.class_counts import class_counts
from emokd.errors import InputError
from emokd.files import write_with_sum
from emokd.jobs import available_teachers, baseline, began, caching, finished, held_out, intention, locks, predecessor
from emokd.jobs.datasets import Data, load_data, refer
from emokd.jobs.held_out import HeldOut
from emokd.jobs.models import TrainTeacher, answering, load_answers, load_models
from emokd.jobs.page import write_page
from emokd.jobs.workdir import OPERATIONAL, check, claim, has_results, kept
from emokd.models.cost import describe
from emokd.models.network import TrainedModel
from emokd.phase import Recipe
from emokd.recipes.common import classification
from emokd.recipes.common.baseline import create_baseline
from emokd.recipes.common.task import Task
from emokd.reporting import kept_warnings
from emokd.reporting.provenance import provenance
from emokd.reporting.sinks import choice as sinks
from emokd.training import evaluation, loop
from emokd.training.distributed import in_first_process, together
from emokd.training.loop import UNLABELLED, Job
from emokd.training.programs import Programs, make_room
from emokd.training.selection import check_early_stopping
from emokd.training.sharding import check_batch_size, create_mesh
from emokd.training.state import weights_for_use
from emokd.weights import model_folder

# Among the operational keys, those on which compiled programs depend.
PROGRAM_KEYS = ("devices", "mesh.", "sharding.", "remat")


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    report: bool = True,
    shared: dict[str, Programs] | None = None,
    accept_changed_data: bool = False,
    runs: Sequence[HeldOut] = (),
) -> dict:
    """Runs the job in `workdir`, continuing it if it has begun; returns the scores, also in `scores.json`.

    Nothing is written before the job could be made: a refused run leaves no folder behind.

    Args:
      config: the resolved configuration.
      workdir: the run's folder.
      report: write `report.html` at the end; `python -m emokd.report` does it later.
      shared: compiled programs of runs in this process, by key; reused, and added to.
      accept_changed_data: go on although the data or files are not what the run began with, see `emokd.jobs.began`.
      runs: what the runs are scored on for which this one trains a teacher; it learns from none of those examples.

    Raises:
      InputError: the input is wrong, `workdir` holds a run of another configuration or of other data, or another
        process runs there.
    """
    workdir, config = pathlib.Path(workdir), configuration.anchored(config)
    imports.trust(config)
    with locks.held(workdir), kept_warnings.kept() as keeper:
        config = available_teachers.choose(config, workdir)
        in_first_process(lambda: check(workdir, config))
        if finished.is_finished(workdir):
            in_first_process(lambda: finished.look(config, workdir, load_data, report, accept_changed_data))
            logging.info("%s is done already.", workdir)
            return finished.read_scores(workdir)
        return _train(config, workdir, report, shared, accept_changed_data, runs, keeper)


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    report: bool,
    shared: dict[str, Programs] | None,
    accept: bool,
    runs: Sequence[HeldOut],
    keeper: kept_warnings.Keeper,
) -> dict:
    ranges.check_numbers(config)
    sinks.check(config.log.sinks)
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
    job = _create_job(config, trainer, bool(config.cache.dir), {} if shared is None else shared, data, runs)[0]

    check_batch_size(config.batch_size, job.programs.mesh, config.accumulate)

    def begin() -> None:
        claim(workdir, config)
        began.begin(workdir, now, begun, changes)

    in_first_process(begin)
    keeper.open(workdir)
    logging.info("%s", intention.in_words(job, workdir))
    state, scores = loop.train(job, workdir)
    for name, entry in {"student": scores["student"], **scores["teachers"]}.items():
        if name in job.recipe.networks:
            entry |= describe(job.recipe.networks[name])
    if job.baseline:
        scores = baseline.train(job.baseline, workdir, scores)
    scores["data"] = job.splits["train"].name
    if marks := list(dict.fromkeys([*began.accepted(workdir), *changes])):
        scores["accepted_changes"] = marks
    scores["provenance"] = provenance()
    params, stats = job.recipe.extract(*jax.tree.map(evaluation.fetch, weights_for_use(state)))
    if jax.process_index() == 0:
        origin = {"config": configuration.to_json(config), "step": int(state.step), "split": scores["split"]}
        origin["face_crop"] = job.splits["train"].face_crop
        origin["references"] = reference.to_json(job.splits["train"])
        origin["columns"] = reference.column_names(job.splits["train"])
        model_folder.save_model(workdir / "student", job.recipe.student_spec, params, stats, origin)
        write_with_sum(workdir / "scores.json", json.dumps(scores, indent=2))
        if report:
            write_page(workdir)
    together("run finished")  # before another process reads the student, or ends
    return scores


def teacher_trainer(
    workdir: pathlib.Path, data: ml_collections.ConfigDict, accept_changed_data: bool = False
) -> TrainTeacher:
    """A function that trains a teacher by its configuration, each teacher in a folder of its own under `workdir`.

    A teacher that learns from the same data set as the run (`data`) gets the run's folder and split. Whatever it learns
    from, examples that the runs are scored on are left out, and duplicates of them, see `held_out`.
    """

    def train_teacher(file: str, name: pathlib.Path, runs: Sequence[HeldOut]) -> pathlib.Path:
        logging.info("Training teacher %s with %s.", name, file)
        folder = workdir / "teachers" / name
        try:
            config = configuration.load(file)
        except InputError as error:
            raise InputError(f"config.teachers.{name}.train: {error}") from error
        with config.unlocked():
            held_out.for_teacher(config, data)
        accepted = accept_changed_data or began.accepted(workdir)
        if accepted and has_results(workdir) and has_results(folder):
            config = kept(folder, config)  # the run's record holds these changes as accepted
        train(config, folder, accept_changed_data=accept_changed_data, runs=runs)
        return folder / "student"

    return train_teacher


def create_job(
    config: ml_collections.ConfigDict,
    train_teacher: TrainTeacher,
    shared: dict[str, Programs] | None = None,
    runs: Sequence[HeldOut] = (),
    data: Data | None = None,
    mesh: Mesh | None = None,
) -> Job:
    """Everything that training needs, with teachers read from the cache where the configuration names one.

    Args:
      config: the resolved configuration.
      train_teacher: trains a teacher that has no weights.
      shared: compiled programs by key; reused, and added to.
      runs: what the runs are scored on for which this one trains a teacher; it learns from none of those examples.
      data: splits and unlabelled examples; None to read those of the configuration.
      mesh: the devices to compile for, which need not be here; None for those that the configuration says.

    Raises:
      InputError: data, models or options are wrong, a split is missing, or the batch is larger than the training
        split.
    """
    shared = {} if shared is None else shared
    cached = bool(config.cache.dir)
    return _create_job(config, train_teacher, cached, shared, data, runs, mesh)[0]


def _create_job(
    config: ml_collections.ConfigDict,
    train_teacher: TrainTeacher,
    cached: bool,
    shared: dict[str, Programs],
    data: Data | None = None,
    runs: Sequence[HeldOut] = (),
    mesh: Mesh | None = None,
) -> tuple[Job, dict[str, TrainedModel]]:
    ranges.check_numbers(config)
    config = available_teachers.choose(config)
    parts, extra = load_data(config) if data is None else data
    method = recipes.find(config.recipe)
    if config.get("teachers") and not method.uses_teachers(config):
        logging.info("No phase of this run asks a teacher: %s are not read.", ", ".join(sorted(config.teachers)))
        config = configuration.locked(config, {})
        with config.unlocked():
            config.teachers = {}
    held_out.require_scored_splits(config, parts)
    parts = held_out.keep_out(config, parts, runs)
    runs = (*runs, HeldOut(config.data, parts))
    if extra:
        extra = held_out.keep_extra_out(config, extra, runs)
    start = pathlib.Path(config.start_from) if config.start_from else None
    done = predecessor.phases_done(start) if start else set()
    parts, extra = refer(config, parts, extra, start)
    train_split = parts["train"]
    if config.batch_size > len(train_split):
        raise InputError(
            f"config.batch_size is {config.batch_size}, but the training split of {train_split.name} has only "
            f"{len(train_split)} examples; lower it."
        )
    without_labels = [part for part in (parts.get(UNLABELLED), extra) if part is not None]
    if mesh is None:
        mesh = create_mesh(config.devices, **config.mesh)
    task = Task(
        classes=train_split.classes,
        columns=tuple(train_split.columns),
        sizes={"labelled": len(train_split), "all": sum(map(len, (train_split, *without_labels)))},
        batch_size=config.batch_size,
        counts={column: class_counts(train_split, column) for column in train_split.classes},
        devices=mesh.size,
        inputs={name: readable(train_split, name).shape for name in train_split.inputs if name != "image"},
        names={n: read.names for n, read in train_split.inputs.items() if isinstance(read, Rows) and read.names},
    )
    for concern in classification.concerns(config, task):
        logging.warning("%s: %s", train_split.name, concern)
    answers = load_answers(config, [*parts.values(), *([extra] if extra else [])])
    models = {**load_models(config, train_teacher, runs), **{name: answering(file) for name, file in answers.items()}}
    key = program_key(config, task, models, done)
    whole = functools.cache(lambda: method.build(config, task, models))
    share = functools.partial(_share, shared, config, len(task.classes.get("expression", ())), mesh)
    programs = share(key, lambda: predecessor.without(whole(), done, start) if start else whole())
    check_early_stopping(programs.recipe, config)
    if without_labels and not any(phase.data == "all" for phase in programs.recipe.phases):
        logging.info(
            "No phase of this run reads examples without labels, so %s are left out.",
            " and ".join(f"{len(part)} of {part.name}" for part in without_labels),
        )
    begin = predecessor.load(start, programs.abstract, programs.placement.state) if start else None
    job = Job(config, programs.recipe, parts, extra, programs, begin=begin)
    cache = caching.open_cache(job, models).attach if cached and caching.asked(job) else dict

    def attach(batch):
        return {**cache(batch), **{f"features/{name}": file.lookup(batch) for name, file in answers.items()}}

    job = dataclasses.replace(job, attach=attach if answers else cache)
    if baseline.is_wanted(programs.recipe, config.baseline.enabled):
        if start:
            baseline.check_start(whole(), done, start)
        alone = share(f"{key} {baseline.FOLDER}", lambda: create_baseline(whole(), config, task))
        job = dataclasses.replace(job, baseline=baseline.create_job(job, alone))
    return job, models


def _share(
    shared: dict[str, Programs],
    config: ml_collections.ConfigDict,
    classes: int,
    mesh: Mesh,
    key: str,
    make: Callable[[], Recipe],
) -> Programs:
    """The programs under a key, made where they are not there yet; the last one used is the last one to go."""
    if key not in shared:
        make_room(shared)
        shared[key] = Programs(make(), config, classes, mesh)
    programs = shared[key] = shared.pop(key)
    return programs


def program_key(
    config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel], done: Collection[str]
) -> str:
    """What decides a run's recipe and programs: everything but its seed, which examples it has, and how it is logged.

    Args:
      config: the run's configuration.
      task: the facts of its data.
      models: networks that it reads from files, by name.
      done: names of the phases that it leaves out.
    """
    choosing = ("evaluation.", "select.", "early_stopping.")
    aside = (*OPERATIONAL, "seed", "start_from", "data.split.", "data.labels.", "data.options.", "cache.", *choosing)
    kept = {
        name: value
        for name, value in configuration.leaves(config)
        if name.startswith(PROGRAM_KEYS) or not name.startswith(aside)
    }
    origins = {name: model.origin for name, model in models.items()}
    # Schedules depend on the steps of an epoch; on nothing else in which a study's folds differ does a program depend.
    facts = dataclasses.asdict(task)
    facts["sizes"] = {name: task.steps_per_epoch(name) for name in task.sizes}
    facts["counts"] = task.counts if config.get("class_weights", "none") != "none" else {}
    return json.dumps([kept, facts, origins, sorted(done)], default=str, sort_keys=True)


def write_cache(config: ml_collections.ConfigDict, folder: pathlib.Path, train_teacher: TrainTeacher) -> dict:
    """Computes every frozen teacher's features of every example in every view, see `emokd.jobs.caching`.

    Returns:
      The cache's key and its size in bytes.

    Raises:
      InputError: as `create_job` and `caching.write_cache`.
    """
    # Every process runs the teachers on its own devices, so their weights are not split.
    config = configuration.locked(config, {"sharding.teachers": ()})
    job, models = _create_job(config, train_teacher, cached=False, shared={})
    with locks.held(folder):
        return caching.write_cache(job, models, folder)
