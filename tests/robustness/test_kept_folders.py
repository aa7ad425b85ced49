"""A run, a cache and a model that emokd 0.1 wrote still open: tests/robustness/kept, made by running this file.

They hold the painter's faces alone. A version that cannot read them must say so, and how to convert them.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

KEPT = pathlib.Path(__file__).parent / "kept"
sys.path.append(str(KEPT.parents[1]))

from cached_jobs import make_config, no_training, save_teacher  # noqa: E402
from small_jobs import paint  # noqa: E402

import emokd  # noqa: E402
from emokd.configuration import config as configuration  # noqa: E402
from emokd.data.cache.reader import CENTRE, TeacherCache  # noqa: E402
from emokd.jobs import job, scoring, workdir  # noqa: E402
from emokd.jobs.record import read  # noqa: E402
from emokd.recipes import smkd, supervised  # noqa: E402
from emokd.reporting.report import write_report  # noqa: E402
from emokd.weights import model_folder  # noqa: E402


@pytest.fixture
def kept(tmp_path, monkeypatch) -> pathlib.Path:
    """A copy, which is the working directory: the paths in the run's configuration are relative."""
    shutil.copytree(KEPT, tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "kept")
    return tmp_path / "kept"


def config_of(run: pathlib.Path):
    return workdir.read_config(run / "config.json")


def test_what_is_kept_is_small():
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) < 200_000


def test_a_finished_run_is_done_and_is_compared_with_its_data(kept):
    before = json.loads((kept / "run" / "scores.json").read_text())
    assert read(kept / "run") is not None
    assert job.train(config_of(kept / "run"), kept / "run") == before
    assert "painted" in write_report(kept / "run").read_text()


def test_its_student_is_made_again_from_its_checkpoints_and_answers_and_scores(kept):
    before = model_folder.model_hash(kept / "run" / "student")
    shutil.rmtree(kept / "run" / "student")
    (kept / "run" / "scores.json").unlink()
    job.train(config_of(kept / "run"), kept / "run")
    assert model_folder.model_hash(kept / "run" / "student") == before
    answer = emokd.load(kept / "run")(np.full((20, 20, 3), 128, np.uint8))
    assert abs(sum(answer.probabilities.values()) - 1) < 1e-5
    assert scoring.evaluate_student(kept / "run", "test")["expression"]["count"] == 11


def test_a_cache_opens(kept):
    """By its own key: what a run asks of it is compared with that."""
    key = json.loads((kept / "cache" / "cache.json").read_text())["key"]
    cache = TeacherCache(kept / "cache", key)
    ids = np.load(kept / "cache" / "index.npy")
    batch = {"id": (ids >> np.uint64(32)).astype(np.uint32), "check": ids.astype(np.uint32)}
    batch |= {"view": np.full(len(ids), CENTRE, np.int32), "mask": np.ones(len(ids), bool)}
    features = np.load(kept / "cache" / "features.npy")
    np.testing.assert_array_equal(cache.attach(batch)["features/one"], features[:, -1])


def make() -> None:
    """Writes them into the working directory."""
    save_teacher(pathlib.Path("teacher"), 0)
    job.write_cache(make_config(smkd, {"one": "teacher"}), pathlib.Path("cache"), no_training)
    config = paint(supervised.default_config(), steps=2)
    config.devices, config.checkpoint.keep = 1, 1
    job.train(configuration.locked(config, {}), "run", report=False)
    for place in ("run/tensorboard", "teacher"):
        shutil.rmtree(place)


if __name__ == "__main__":
    make()
