"""A run's folder: the configuration that it belongs to, and what an earlier run has left in it."""

import json
import pathlib
import shutil
from typing import Any

import ml_collections
from absl import logging

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError, excerpt
from emokd.files import write_whole

# Keys that change how a run works, not what it computes: they may differ when it is continued. The data's folder may
# differ because the data themselves are compared (`emokd.jobs.began`), as is the number of devices where a loss depends
# on it.
OPERATIONAL = (
    "log.",
    "data.num_threads",
    "data.dir",
    "data.extra.dir",
    "data.in_memory",
    "data.max_bad_fraction",
    "devices",
    "mesh.",
    "sharding.",
    "remat",
    "checkpoint.",
)

RECORD = "began_with.json"
"""The file with what a run began with, see `emokd.jobs.began`; its `config` stands in for a lost config.json."""

RESULTS = ("student", "scores.json")
"""What a run leaves behind besides its checkpoints."""

LEFTOVERS = (
    "config.json",
    RECORD,
    "metrics.jsonl",
    "teacher_weights.json",
    "observations",
    "baseline",
    "warnings.jsonl",
)
"""What a run writes before its first checkpoint; while there is none, the next run in the folder removes it."""


_KINDS = {
    **dict.fromkeys(("checkpoints", "student", "observations", "teachers", "baseline"), True),
    **dict.fromkeys(("metrics.jsonl", "scores.json", "teacher_weights.json", "report.html"), False),
    **dict.fromkeys(("predictions.npz", "warnings.jsonl"), False),
}
"""What a run writes, and whether it is a folder."""


def has_results(workdir: pathlib.Path) -> bool:
    """Whether the folder holds what a run has learnt: a checkpoint, its student or its scores."""
    checkpoints = workdir / "checkpoints"
    saved = checkpoints.is_dir() and any(path.name.isdecimal() for path in checkpoints.iterdir())
    return saved or any((workdir / name).exists() for name in RESULTS)


def check(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Checks that `workdir` holds nothing learnt, or a run of this configuration; writes nothing.

    Raises:
      InputError: the path has a character of file patterns; the run there is of another configuration, whose differing
        keys are named; its configuration cannot be read, or is gone while its results are there; or a path that a run
        writes is a folder instead of a file, or the other way round.
    """
    if patterns := sorted(set("*?[") & set(str(workdir.absolute()))):
        # Its checkpoints would lack their arrays: orbax looks for the files that it has written by a pattern.
        raise InputError(f"--workdir={workdir}: no folder in the path may have {' '.join(patterns)} in its name.")
    for name, is_folder in _KINDS.items():
        path = workdir / name
        if path.exists() and path.is_dir() != is_folder:
            raise InputError(f"{path} is a {'file' if is_folder else 'folder'}. Remove it, or use another --workdir.")
    if not has_results(workdir):
        return
    differing = differing_keys(config, stored_config(workdir))
    if differing:
        raise InputError(
            f"{workdir} holds a run of another configuration; these keys differ: {excerpt(differing)}. "
            f"Use another --workdir, or the configuration in {workdir / 'config.json'}."
        )


def differing_keys(config: ml_collections.ConfigDict, stored: ml_collections.ConfigDict) -> list[str]:
    """The keys that decide what a run computes and in which two configurations differ.

    The path in `start_from` may differ, as from another working directory: the run there is compared by its content
    (`emokd.jobs.began`).
    """
    placed = ("start_from",) if config.get("start_from") and stored.get("start_from") else ()
    return [
        key
        for key in configuration.differing_keys(with_defaults(config), stored)
        if not _is_operational(key) and key not in placed
    ]


def _is_operational(key: str) -> bool:
    return key.startswith(OPERATIONAL) or key.endswith(".licence")


def kept(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration of the run in `workdir` where `config` differs from it, with a warning; else `config`.

    Operational keys always have the values of `config`.

    Raises:
      InputError: its configuration cannot be read.
    """
    stored = stored_config(workdir)
    differing = differing_keys(config, stored)
    if not differing:
        return config
    logging.warning(
        "%s stays what it was trained as, though its configuration changed since: %s. Remove that folder and the run "
        "that learns from it to train both anew.",
        *(workdir, excerpt(differing)),
    )
    now = dict(configuration.leaves(config))
    working = {key: now[key] for key, _ in configuration.leaves(stored) if _is_operational(key) and key in now}
    return configuration.locked(stored, working)


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Stores the configuration in `workdir`, which makes it the folder of this run.

    To be called when the run can begin, by one process, which has the folder's lock.

    It removes what an earlier run left behind that was stopped or refused before its first checkpoint.

    Raises:
      InputError: as `check`.
    """
    check(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)
    if not has_results(workdir):
        for path in (workdir / name for name in LEFTOVERS):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
    path, text = workdir / "config.json", configuration.to_json(config)
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # data may have moved: `evaluate` must find them
        write_whole(path, text)


def stored_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the run in `workdir`, from its record where config.json is lost.

    Raises:
      InputError: it cannot be read, or is gone.
    """
    path = workdir / "config.json"
    if path.exists():
        return read_config(path)
    if (workdir / RECORD).exists():
        record = read_json(workdir / RECORD, "Restore it, or use another --workdir.")
        if "config" in record:
            return with_defaults(configuration.from_json(json.dumps(record["config"])))
    raise InputError(
        f"{workdir} holds what a run has learnt, but no config.json: nobody knows of which configuration it is. "
        "Restore config.json, or use another --workdir."
    )


def read_config(path: pathlib.Path) -> ml_collections.ConfigDict:
    """A run's configuration; a key that came with a newer emokd was at its default then.

    Raises:
      InputError: it cannot be read as one.
    """
    try:
        config = with_defaults(configuration.from_json(path.read_text(encoding="utf-8")))
        _check_kinds(config, recipes.find(config.get("recipe")).default_config())
        return config
    except (InputError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a configuration: {error} Restore it, or remove it and train with the run's own "
            "configuration again, which writes it anew."
        ) from error


def _check_kinds(config: ml_collections.ConfigDict, known: ml_collections.ConfigDict, prefix: str = "") -> None:
    """Checks that what every run of a recipe reads is there, sections as sections and numbers as numbers."""
    for key, default in known.items():
        if key.endswith(tuple(f"_{unit}" for unit in configuration.UNITS)):
            continue  # one of them is enough
        value = config.get(key)
        kinds = (ml_collections.ConfigDict, int | float)
        if any(isinstance(default, kind) and not isinstance(value, kind) for kind in kinds):
            raise InputError(f"config.{prefix}{key} is {str(value)[:60]!r}.")
        if isinstance(default, str) and isinstance(value, int | float):
            raise InputError(f"config.{prefix}{key} is {value}.")
        if isinstance(default, ml_collections.ConfigDict):
            _check_kinds(value, default, f"{prefix}{key}.")


def read_json(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """An object from a JSON file.

    Args:
      path: the file.
      remedy: what to do where it cannot be read, a sentence.

    Raises:
      InputError: it cannot be read, or is no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object. {remedy}")
    return content


def with_defaults(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration with those keys that its recipe reads and it lacks, at their defaults; each teacher's too."""
    if "recipe" not in config:
        return config
    known = recipes.find(config.recipe).default_config()
    teachers = config.get("teachers")
    if isinstance(teachers, ml_collections.ConfigDict):
        sections = [name for name, section in teachers.items() if isinstance(section, ml_collections.ConfigDict)]
        with known.unlocked():
            known.teachers = {name: defaults.teacher() for name in sections}
    return configuration.with_missing(config, known)
