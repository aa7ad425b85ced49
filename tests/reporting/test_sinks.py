"""Sinks: each service gets what metrics.jsonl has, a continued run keeps its name, and no failure stops a run."""

import json
import sys
import types

import pytest

from emokd.errors import InputError
from emokd.reporting.metrics_log import MetricsLog, read_metrics
from emokd.reporting.sinks import choice
from emokd.reporting.sinks.sink import IDS, Guarded


class StandIn(types.ModuleType):
    """In place of wandb: notes every call; `broken` makes logging fail."""

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.broken = [], False

    def init(self, **options):
        self.calls.append(("init", options))
        return self

    def define_metric(self, name, step_metric):
        self.calls.append(("define", name, step_metric))

    def log(self, values):
        if self.broken:
            raise OSError("no route")
        self.calls.append(("log", values))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch):
    found = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", found)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return found


class Client:
    """In place of MLflow's client: `runs` holds the metrics of every run by its id."""

    runs: dict = {}
    settings: dict = {}
    status: dict = {}

    def __init__(self, tracking_uri):
        self.uri = tracking_uri

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment, run_name):
        name = f"{run_name}{len(self.runs)}"
        self.runs[name] = []
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=name))

    def update_run(self, run, status):
        self.status[run] = status

    def log_batch(self, run, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[run] += metrics
        self.settings.update(params)

    def set_terminated(self, run):
        self.status[run] = "FINISHED"


@pytest.fixture
def mlflow(monkeypatch):
    for name in ("runs", "settings", "status"):
        monkeypatch.setattr(Client, name, {})
    entities = types.ModuleType("mlflow.entities")
    entities.Metric, entities.Param = lambda *fields: fields, lambda *fields: fields
    tracking = types.ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client
    for module in (types.ModuleType("mlflow"), entities, tracking):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Client


def write(folder, sinks, steps, resume_step=0):
    with MetricsLog(folder, resume_step=resume_step, sinks=sinks, facts={"seed": 3, "data.dir": "x" * 900}) as log:
        for step in steps:
            log.write(step, "distill", {"loss/a b": 1 / step, "bad": float("nan")})


def test_wandb_gets_what_the_file_has_and_a_continued_run_keeps_its_id(tmp_path, wandb):
    write(tmp_path, ["wandb"], [1, 2])
    write(tmp_path, ["wandb"], [3], resume_step=2)
    logged = [call[1] for call in wandb.calls if call[0] == "log"]
    assert logged == [{"step": s, "phase": "distill", "loss/a b": 1 / s} for s in (1, 2, 3)]  # and no NaN
    first, second = (call[1] for call in wandb.calls if call[0] == "init")
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert first["mode"] == "offline" and first["dir"] == str(tmp_path) and first["config"]["seed"] == 3
    assert ("define", "*", "step") in wandb.calls and wandb.calls.count(("finish",)) == 2
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
    assert not (tmp_path / "tensorboard").exists()


def test_wandbs_own_variables_decide(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "faces")
    write(tmp_path, ["wandb"], [1])
    assert (wandb.calls[0][1]["mode"], wandb.calls[0][1]["project"]) == ("online", "faces")


def test_mlflow_gets_what_the_file_has_and_a_continued_run_keeps_its_id(tmp_path, mlflow):
    write(tmp_path, ["mlflow"], [1, 2])
    write(tmp_path, ["mlflow"], [3], resume_step=2)
    ((name, metrics),) = mlflow.runs.items()
    assert [(metric, value, step) for metric, value, _, step in metrics] == [
        ("loss/a b", 1.0, 1), ("loss/a b", 0.5, 2), ("loss/a b", 1 / 3, 3),
    ]  # fmt: skip
    assert mlflow.settings == {"seed": "3", "data.dir": "x" * 500}
    assert mlflow.status == {name: "FINISHED"} and json.loads((tmp_path / IDS).read_text()) == {"mlflow": name}


def test_mlflow_takes_names_only_of_some_characters():
    from emokd.reporting.sinks.mlflow import allowed

    assert allowed("weight/my teacher#1:ä") == "weight/my teacher_1_ä"


def test_a_sink_that_fails_stops_nothing_is_told_once_and_counted(tmp_path, wandb, caplog):
    wandb.broken = True
    write(tmp_path, ["wandb", "tensorboard"], [1, 2, 3])
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "OSError: no route" in text]) == 1
    assert [text for text in told if "wandb failed 3 times" in text]
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_sink_that_does_not_open_is_counted_too(caplog):
    def refuse():
        raise RuntimeError("no key")

    sink = Guarded("mlflow", refuse)
    sink.write(1, "p", 0.0, {"loss": 1.0})
    sink.flush()
    sink.close()
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in told] == ["config.log.sinks"] * 2 and "failed 2 times" in told[1]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("tensorbord",), "no sink 'tensorbord'.*tensorboard"),
        (("tensorboard", "tensorboard"), "twice"),
        ("wandb", "a tuple"),
        (("mlflow",), r"pip install 'emokd\[mlflow\]'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(names, told, monkeypatch):
    monkeypatch.setattr(choice, "_installed", lambda name: False)
    with pytest.raises(InputError, match=told):
        choice.check(names)


@pytest.mark.slow
def test_the_real_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    write(tmp_path, ["wandb"], [1, 2])
    write(tmp_path, ["wandb"], [3], resume_step=2)
    folders = sorted(path.name for path in (tmp_path / "wandb").glob("offline-run-*"))
    name = json.loads((tmp_path / IDS).read_text())["wandb"]
    assert folders and all(folder.endswith(name) for folder in folders)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert stored.count(b"loss/a b") >= 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own, of the packages that it uses
def test_the_real_mlflow_in_the_runs_folder(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path, ["mlflow"], [1, 2])
    write(tmp_path, ["mlflow"], [3], resume_step=2)
    name = json.loads((tmp_path / IDS).read_text())["mlflow"]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = client.get_metric_history(name, "loss/a b")
    assert sorted((entry.step, entry.value) for entry in history) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert client.get_run(name).info.status == "FINISHED" and client.get_run(name).data.params["seed"] == "3"
