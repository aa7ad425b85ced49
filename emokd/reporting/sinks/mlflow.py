"""MLflow.

Its own environment variables say where a run goes (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME). Where the first is not
set, everything is in `WORKDIR/mlflow.db`; `mlflow ui --backend-store-uri sqlite:///WORKDIR/mlflow.db` shows it.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from emokd.reporting.sinks.sink import store_id, stored_id

LONGEST = 500
"""Characters of a setting's value, as servers of any age take them."""
SETTINGS = 100
"""Settings of one request, MLflow's limit."""

_FORBIDDEN = re.compile(r"[^\w\-. /]")


def allowed(name: str) -> str:
    """A name as MLflow takes it: letters, digits, underscores, hyphens, dots, spaces and slashes; others become "_"."""
    return _FORBIDDEN.sub("_", name)


class MLflow:
    """Writes a run of MLflow; one that continues appends to it."""

    def __init__(self, workdir: pathlib.Path, facts: Mapping[str, Any]):
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        local = f"sqlite:///{workdir.absolute() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or local)
        self._run = stored_id(workdir, "mlflow")
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
            return
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "emokd")
        known = self._client.get_experiment_by_name(title)
        experiment = known.experiment_id if known is not None else self._client.create_experiment(title)
        self._run = self._client.create_run(experiment, run_name=workdir.absolute().name).info.run_id
        store_id(workdir, "mlflow", self._run)
        settings = [Param(allowed(key), str(value)[:LONGEST]) for key, value in facts.items()]
        for begin in range(0, len(settings), SETTINGS):
            self._client.log_batch(self._run, params=settings[begin : begin + SETTINGS])

    def write(self, step: int, phase: str, time: float, values: Mapping[str, float]) -> None:
        """Logs the metrics of a step together."""
        moment = round(time * 1000)
        metrics = [self._metric(allowed(name), value, moment, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def flush(self) -> None:
        """Every request is handed on at once."""

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)
