"""The sinks that `config.log.sinks` may name."""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from emokd.errors import InputError, nearest
from emokd.reporting.sinks.sink import Guarded

SINKS = ("tensorboard", "wandb", "mlflow")
EXTRAS = ("wandb", "mlflow")
"""Sinks that need a package of the same name, an extra of emokd."""


def check(names: Sequence[str]) -> None:
    """Checks `config.log.sinks` before anything is written.

    Raises:
      InputError: a sink is unknown, named twice, or its package is not installed.
    """
    if isinstance(names, str):
        raise InputError(f"config.log.sinks is {names!r}; give a tuple of names, such as ('tensorboard', 'wandb').")
    for name in names:
        if name not in SINKS:
            raise InputError(
                f"config.log.sinks: there is no sink {name!r}.{nearest(str(name), SINKS)} Known: {', '.join(SINKS)}."
            )
        if list(names).count(name) > 1:
            raise InputError(f"config.log.sinks names {name!r} twice.")
        if name in EXTRAS and not _installed(name):
            raise InputError(
                f"config.log.sinks: {name} is not installed; pip install 'emokd[{name}]', or leave it out."
            )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module without a spec, as a stand-in has none
        return True


def open_sinks(
    names: Sequence[str], workdir: pathlib.Path, resume_step: int | None, facts: Mapping[str, Any]
) -> list[Guarded]:
    """Opens the sinks of a run.

    Args:
      names: checked ones.
      workdir: the run's folder.
      resume_step: the global step from which the run continues; None where it begins.
      facts: settings by dotted key, for services that show them.
    """
    found = []
    for name in names:
        if name == "tensorboard":
            from emokd.reporting.sinks.tensorboard import TensorBoard

            found.append(Guarded(name, lambda: TensorBoard(workdir, resume_step)))
        elif name == "wandb":
            from emokd.reporting.sinks.wandb import WandB

            found.append(Guarded(name, lambda: WandB(workdir, facts)))
        else:
            from emokd.reporting.sinks.mlflow import MLflow

            found.append(Guarded(name, lambda: MLflow(workdir, facts)))
    return found
