"""A training job from its configuration to its scores: data, models, recipe, loop, student."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import ml_collections
from absl import logging

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.configuration import ranges
from emokd.data import reference, sources
from emokd.data.augment import centre_views
from emokd.data.cache.answers import AnswersFile
from emokd.data.division import splits
from emokd.data.examples import Examples, Rows
from emokd.data.pipeline import readable
from emokd.data.tables.class_counts import class_counts, named_counts
from emokd.errors import InputError
from emokd.jobs import began, caching, finished, held_out, locks, predecessor
from emokd.jobs.held_out import HeldOut
from emokd.jobs.workdir import OPERATIONAL, check, claim, has_results, read_config, write_atomically
from emokd.models.answers import AnswersSpec
from emokd.models.cost import describe
from emokd.models.network import TrainedModel, functional
from emokd.names import normal
from emokd.recipes import classification
from emokd.recipes.common import Task, average_affect, see
from emokd.reporting import rare_classes
from emokd.reporting.provenance import provenance
from emokd.reporting.report import write_report
from emokd.training import evaluation, loop
from emokd.training.distributed import in_first_process, together
from emokd.training.loop import Job
from emokd.training.programs import Programs, make_room
from emokd.training.sharding import check_batch_size, create_mesh
from emokd.training.streams import Streams
from emokd.weights import importing, model_folder
from emokd.weights.places import find_file

# Among the operational keys, those on which compiled programs depend.
PROGRAM_KEYS = ("devices", "mesh.", "sharding.", "remat")

TrainTeacher = Callable[[str, pathlib.Path, Sequence[HeldOut]], pathlib.Path]
"""(configuration file, teacher's name, what it must not learn from) -> model folder."""
Data = tuple[dict[str, Examples], Examples | None]
"""The splits, and the unlabelled pictures where there are any."""


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
      shared: programs of runs in this process, to use again and to add to.
      accept_changed_data: go on although the data or files are not what the run began with, see `emokd.jobs.began`.
      runs: what the runs that this one trains a teacher for are scored on: it learns from nothing of that.

    Raises:
      InputError: the input is wrong, `workdir` holds a run of another configuration or of other data, or another
        process runs there.
    """
    workdir, config = pathlib.Path(workdir), configuration.anchored(config)
    with locks.held(workdir):
        in_first_process(lambda: check(workdir, config))
        if finished.is_finished(workdir):
            accept = accept_changed_data
            in_first_process(lambda: finished.look(config, workdir, lambda: load_data(config), report, accept))
            logging.info("%s is done already.", workdir)
            return finished.read_scores(workdir)
        return _train(config, workdir, report, shared, accept_changed_data, runs)


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    report: bool,
    shared: dict[str, Programs] | None,
    accept: bool,
    runs: Sequence[HeldOut],
) -> dict:
    ranges.check_numbers(config)
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
        origin["references"] = reference.to_json(job.splits["train"])
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

    A teacher that learns from the same data set as the run (`data`) gets the run's folder and split. Whatever it learns
    from, examples that the runs are scored on are left out, and copies of them, see `held_out`.
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
        train(config, folder, accept_changed_data=accept_changed_data, runs=runs)
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
        keep_leaks=section.keep_leaks,
        compare_copies=section.compare_copies,
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
    config: ml_collections.ConfigDict,
    train_teacher: TrainTeacher,
    shared: dict[str, Programs] | None = None,
    runs: Sequence[HeldOut] = (),
) -> Job:
    """Everything that training needs, with teachers read from the cache where the configuration names one.

    Args:
      config: the resolved configuration.
      train_teacher: trains a teacher that has no weights.
      shared: programs that may be used again; what is new is added.
      runs: what the runs are scored on that this one trains a teacher for.

    Raises:
      InputError: data, models or options are wrong, a split is missing, or the batch is larger than the training
        split.
    """
    shared = {} if shared is None else shared
    return _create_job(config, train_teacher, cached=bool(config.cache.dir), shared=shared, runs=runs)[0]


def _create_job(
    config: ml_collections.ConfigDict,
    train_teacher: TrainTeacher,
    cached: bool,
    shared: dict[str, Programs],
    data: Data | None = None,
    runs: Sequence[HeldOut] = (),
) -> tuple[Job, dict[str, TrainedModel]]:
    ranges.check_numbers(config)
    parts, extra = load_data(config) if data is None else data
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
    task = Task(
        classes=train_split.classes,
        columns=tuple(train_split.columns),
        sizes={"labelled": len(train_split), "all": len(train_split) + (len(extra) if extra else 0)},
        batch_size=config.batch_size,
        counts={column: class_counts(train_split, column) for column in train_split.classes},
        devices=create_mesh(config.devices, **config.mesh).size,
        inputs={name: readable(train_split, name).shape for name in train_split.inputs if name != "image"},
        names={n: read.names for n, read in train_split.inputs.items() if isinstance(read, Rows) and read.names},
    )
    for concern in classification.concerns(config, task):
        logging.warning("%s: %s", train_split.name, concern)
    answers = load_answers(config, [*parts.values(), *([extra] if extra else [])])
    models = {**load_models(config, train_teacher, runs), **{name: answering(file) for name, file in answers.items()}}
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
    cache = caching.open_cache(job, models).attach if cached and caching.asked(job) else dict

    def attach(batch):
        return {**cache(batch), **{f"features/{name}": file.lookup(batch) for name, file in answers.items()}}

    return dataclasses.replace(job, attach=attach if answers else cache), models


def refer(
    config: ml_collections.ConfigDict, parts: Mapping[str, Examples], extra: Examples | None, start: pathlib.Path | None
) -> tuple[dict[str, Examples], Examples | None]:
    """The examples with the arrays of all splits read from the training split's centre, in its units.

    A run that begins where another ended goes on with that one's.

    Args:
      config: whose modalities say which arrays, and whether all columns of one share a centre and unit.
      parts: the splits.
      extra: the unlabelled examples, or None.
      start: the folder of the run that it begins with, or None.
    """
    if start:
        references = predecessor.references(start)
    else:
        sections = config.get("modalities", {}).values()
        together: dict[str, bool] = {}
        for section in sections:
            together[section.input] = together.get(section.input, False) or section.standardize == "all"
        references = reference.fit(parts["train"], together)
    referred = {name: reference.refer(part, references) for name, part in parts.items()}
    return referred, extra and reference.refer(extra, references)


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
    facts["counts"] = task.counts if config.get("class_weights", "none") != "none" else {}
    return json.dumps([kept, facts, origins, sorted(done)], default=str, sort_keys=True)


def write_cache(config: ml_collections.ConfigDict, folder: pathlib.Path, train_teacher: TrainTeacher) -> dict:
    """Asks every frozen teacher for its features of every example in every view, see `emokd.jobs.caching`.

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


def load_models(
    config: ml_collections.ConfigDict, train_teacher: TrainTeacher, runs: Sequence[HeldOut] = ()
) -> dict[str, TrainedModel]:
    """The networks that the configuration takes from files: "student" and teachers by name.

    A teacher that has learned from what the `runs` are scored on is warned of, as far as its folder says so.

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
            path = str(train_teacher(section.train, pathlib.Path(name), runs))
        if path:
            models[name] = load_model(path, section, f"config.teachers.{name}.checkpoint")
            for run in runs if section.checkpoint else ():
                held_out.warn_of_checkpoint(name, find_file(path, name), run, load_splits)
            logging.info("Teacher %s: %s", name, models[name].origin)
    for name in sorted(config.get("modalities", {})):
        section = config.modalities[name]
        if section.init:
            models[name] = load_model(section.init, section, f"config.modalities.{name}.init")
    return models


def load_answers(config: ml_collections.ConfigDict, sets: Sequence[Examples]) -> dict[str, AnswersFile]:
    """The files of answers that stand for teachers, by the teacher's name.

    Args:
      config: the run's configuration.
      sets: all examples of the run.

    Raises:
      InputError: a teacher has weights as well, or its file is missing, damaged, or lacks what this run asks.
    """
    files = {}
    for name in sorted(config.get("teachers", {})):
        section, key = config.teachers[name], f"config.teachers.{name}.answers"
        if not section.answers:
            continue
        both = [other for other in ("checkpoint", "train", "task") if section[other]]
        if both:
            raise InputError(f"{key} is given beside .{both[0]}; a teacher comes from one of them. Leave one empty.")
        files[name] = AnswersFile(find_file(section.answers.replace("{fold}", str(config.data.split.fold)), key))
        logging.info("Teacher %s: answers of %s; whose weights gave them is not known.", name, files[name].origin)
        files[name].check(name, sets, config.data)
    return files


def answering(file: AnswersFile) -> TrainedModel:
    """A teacher that is known by its answers alone, in the place of a network with weights."""
    heads = {"expression": file.widths.get("logits"), "valence_arousal": file.widths.get("valence_arousal")}
    spec = AnswersSpec(
        features=file.widths.get("features", 0),
        heads={name: width for name, width in heads.items() if width},
        classes={"expression": file.classes} if file.classes else {},
    )
    return TrainedModel(spec, {}, {}, file.origin)


def load_model(path: str, section: ml_collections.ConfigDict, key: str) -> TrainedModel:
    """Reads a model folder, or a weights file of another framework for `section.backbone`.

    "FILE#KEY" is one of several sets of weights in a file (see `importing.import_file`). Paths that do not exist as
    they stand are looked for under $EMOKD_DATA.
    """
    place, which = importing.split_key(path)
    found = find_file(place, key)
    if found.is_dir():
        model = model_folder.require_pictures(model_folder.load_trained(found), key)
    else:
        model = importing.import_file(section.backbone, found, options=section.options.to_dict(), key=which)
    if section.size and section.size != model.spec.preprocessing.size:
        preprocessing = dataclasses.replace(model.spec.preprocessing, size=section.size)
        model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, preprocessing=preprocessing))
    return model


def evaluate_student(
    workdir: pathlib.Path,
    split: str,
    *,
    devices: int = 0,
    batch_size: int = 0,
    accept_changed_data: bool = False,
) -> dict:
    """Scores the student's folder of a finished run on a split of the run's data.

    Scores do not depend on how the split is batched: padding counts nothing.

    Args:
      workdir: the run's folder.
      split: "train", "validation" or "test".
      devices: how many of the devices here; 0 for all, whatever the run had.
      batch_size: pictures at a time, rounded up to a multiple of the devices; 0 for the run's.
      accept_changed_data: score it although the data are not what the run began with; the scores then say so.

    Raises:
      InputError: there is no finished run, its data are gone, or there are not so many devices.
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
    model = model_folder.load_trained(workdir / "student")
    parts, extra = load_data(config)
    now = {**began.describe(config, parts, extra), "devices": None}
    changes = began.compare(workdir, now, accept_changed_data)
    marks = list(dict.fromkeys([*began.accepted(workdir), *changes]))
    references = reference.from_json(model_folder.provenance(workdir / "student").get("references", {}))
    parts = {name: reference.refer(part, references) for name, part in parts.items()}
    found, expected = model.spec.classes, parts[split].classes
    for head, names in found.items():
        if tuple(map(normal, expected.get(head, names))) != tuple(map(normal, names)):
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

    mesh = create_mesh(devices)
    rows = batch_size or config.batch_size
    config = configuration.locked(config, {"batch_size": rows + -rows % mesh.size})
    compiled = evaluation.create_predict(predict, tuple(model.spec.heads), mesh)
    batches = Streams(config, mesh, splits=parts).evaluation(parts[split])
    predictions, columns = evaluation.collect(compiled, model.params, model.stats, {}, batches)
    scores = evaluation.score(predictions, columns, expected)["student"]
    remarks = rare_classes.remarks({"student": scores}, split, named_counts(parts["train"]))
    for remark in remarks:
        logging.warning("%s", remark)
    found_scores = {"split": split, **scores, "remarks": remarks}
    return {**found_scores, "accepted_changes": marks} if marks else found_scores
