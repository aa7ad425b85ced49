"""Weights & Biases.

Its own environment variables say where a run goes (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR). Where
WANDB_MODE is not set, the run stays in `WORKDIR/wandb`, and `wandb sync` uploads it when somebody wants that.
"""

import os
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from emokd.reporting.sinks.sink import store_id, stored_id

STEP = "step"
"""The horizontal axis of all metrics: W&B's own count may not go back, as that of a continued run does."""


class WandB:
    """Writes a run of W&B; one that continues keeps its id."""

    def __init__(self, workdir: pathlib.Path, facts: Mapping[str, Any]):
        import wandb

        name = stored_id(workdir, "wandb") or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "emokd"),
            name=os.environ.get("WANDB_NAME", workdir.absolute().name),
            id=name,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(workdir.absolute())),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(facts),
        )
        store_id(workdir, "wandb", name)
        self._run.define_metric("*", step_metric=STEP)

    def write(self, step: int, phase: str, time: float, values: Mapping[str, float]) -> None:
        """Logs the metrics of a step together."""
        self._run.log({STEP: step, "phase": phase, **values})

    def flush(self) -> None:
        """W&B hands on by itself."""

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()
