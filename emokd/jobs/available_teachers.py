"""Which teachers a run has, where it takes those whose files are there (`config.teachers.NAME.if_there`)."""

import os
import pathlib

import ml_collections
from absl import logging

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.errors import InputError
from emokd.jobs.models import of_fold
from emokd.jobs.workdir import has_results, stored_config
from emokd.training.distributed import agreed, in_first_process
from emokd.weights.importing import split_key
from emokd.weights.places import find_file

_ORIGINS = ("checkpoint", "answers", "train", "task")
"""The keys of a teacher that say where it comes from; with one of them `if_there` is not asked."""


def choose(config: ml_collections.ConfigDict, workdir: pathlib.Path | None = None) -> ml_collections.ConfigDict:
    """The configuration with the teachers that are there; the log says which, and which are not.

    A file that is there becomes the teacher's `checkpoint`. A run that continues has the teachers that it began with,
    whatever is there now.

    Args:
      config: the resolved configuration; left as it is.
      workdir: the run's folder, where there is one.

    Raises:
      InputError: the run needs a teacher, and none is there; or the configuration of the run in `workdir` is gone.
    """
    sections = config.get("teachers", {})
    optional = {
        name: section.if_there
        for name, section in sections.items()
        if section.get("if_there") and not any(section[key] for key in _ORIGINS)
    }
    if not optional or not recipes.find(config.recipe).uses_teachers(config):
        return config
    # Of several processes the first one decides: with other teachers each would run another program.
    begun = agreed(workdir is not None and has_results(workdir))
    if workdir is not None and begun:
        stored: set[str] = set()
        in_first_process(lambda: stored.update(stored_config(workdir).get("teachers", {})))
        there = [name for name in sorted(optional) if agreed(name in stored)]
    else:
        there = [name for name, path in sorted(optional.items()) if agreed(is_there(of_fold(path, config)))]
    absent = [name for name in sorted(optional) if name not in there]
    named = ", ".join(f"{name} ({optional[name]})" for name in absent)
    if begun and len(absent) == len(sections):
        return config  # of another configuration than the run, which refuses it
    if len(absent) == len(sections):
        free = [name for name in absent if not sections[name].size] or absent  # a network keeps its own size there
        raise InputError(
            f"No teacher is there. Looked for, in {' and '.join(_places())}: {named}. Put one of these files there "
            "(docs/weights.md says where to get them), or name a network of your own: a model folder, in "
            f"config.teachers.{free[0]}.checkpoint."
        )
    left_out = f" {'Begun without' if begun else 'Not there'}: {named}." if named else ""
    logging.info("Teachers: %s.%s", ", ".join(sorted(set(sections) - set(absent))), left_out)
    chosen = configuration.locked(config)
    with chosen.unlocked():
        for name in absent:
            del chosen.teachers[name]
        for name in there:
            chosen.teachers[name].checkpoint, chosen.teachers[name].if_there = optional[name], ""
    return chosen


def is_there(path: str) -> bool:
    """Whether the file or folder of a teacher's weights is there; `path` may name one set of weights in a file."""
    try:
        find_file(split_key(path)[0], "")
    except InputError:
        return False
    return True


def _places() -> list[str]:
    """The folders that relative paths of weights count from."""
    return [str(pathlib.Path.cwd()), *filter(None, [os.environ.get("EMOKD_DATA")])]
