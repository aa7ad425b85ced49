"""A bit flipped in every file of a finished run, one at a time: nothing is different in silence, nothing ends oddly.

The default suite flips a bit in the small files of the run's own; the slow test in every file of the folder.
"""

import pathlib
import shutil

import numpy as np
import pytest
from small_jobs import paint

import emokd
from emokd.configuration import config as configuration
from emokd.errors import InputError
from emokd.exporting.export import export
from emokd.jobs import job, scoring
from emokd.recipes import supervised
from emokd.reporting.report import write_report
from emokd.weights import model_folder

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
# The log of past steps, pages for reading and TensorBoard's curves: nothing is computed from them.
READ_BY_PEOPLE = ("metrics.jsonl", "report.html", "tensorboard")


@pytest.fixture(scope="module")
def shared():
    return {}


@pytest.fixture(scope="module")
def config():
    config = paint(supervised.default_config(), steps=4)
    config.devices = 1
    config.evaluation.every_steps = 2
    config.checkpoint.min_seconds = 0.0
    return configuration.locked(config, {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config, shared):
    folder = tmp_path_factory.mktemp("finished") / "run"
    job.train(config, folder, shared=shared)
    return folder


def answer(run: pathlib.Path):
    return emokd.load(run)(PICTURE).probabilities


def exported(run: pathlib.Path) -> str:
    output = run.parent / "exported" / "model.onnx"
    found = export(run / "student", output, timed=False)
    return found["sha256"] if "sha256" in found else str(output.read_bytes().__hash__())


def weights(run: pathlib.Path) -> str:
    model_folder.load_model(run / "student")
    return model_folder.model_hash(run / "student")


def outcome(act):
    """What it gives, or None where it is refused in one message; anything else fails."""
    try:
        return act()
    except InputError as error:
        assert str(error).strip() and "object at 0x" not in str(error)
        return None


def unfinished(run: pathlib.Path) -> None:
    """As if it had been stopped before its end: what it has learnt is in the checkpoints alone."""
    shutil.rmtree(run / "student")
    (run / "scores.json").unlink()
    (run / "report.html").unlink()


def flip(path: pathlib.Path, seed: int) -> None:
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


@pytest.fixture(scope="module")
def uses(config, shared):
    """What is done with a run's folder, by name; each gives what must not differ in silence."""

    def train(run):
        scores = job.train(config, run, shared=shared)
        return [scores["student"][split] for split in sorted(scores["student"]) if split != "cost"], weights(run)

    return {
        "train": train,
        "report": lambda run: write_report(run) and None,
        "evaluate": lambda run: scoring.evaluate_student(run, "test"),
        "predict": answer,
        "export": exported,
    }


@pytest.fixture(scope="module")
def try_file(finished, tmp_path_factory, uses):
    """Flips a bit of one file in a copy of the run, and compares each use with that of an undamaged copy."""
    place, expected = tmp_path_factory.mktemp("tried"), {}

    def copy(before):
        shutil.rmtree(place)
        shutil.copytree(finished, place / "run")
        if before:
            before(place / "run")
        return place / "run"

    def attempt(name, seed, names, before=None):
        for use in names:
            if (use, before) not in expected:
                expected[use, before] = outcome(lambda use=use: uses[use](copy(before)))
            run = copy(before)
            flip(run / name, seed)
            found = outcome(lambda use=use, run=run: uses[use](run))
            assert found is None or found == expected[use, before], f"{name}, seed {seed}: {use}"

    return attempt


def files(run: pathlib.Path) -> list[pathlib.Path]:
    found = sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file() and p.stat().st_size)
    return [name for name in found if name.parts[0] not in READ_BY_PEOPLE]


def test_the_small_files_of_a_finished_run(finished, try_file):
    names = [name for name in files(finished) if len(name.parts) == 1]
    assert {"config.json", "began_with.json", "scores.json"} <= set(map(str, names))
    for name in names:
        try_file(name, 0, ("train", "report"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_file_of_a_finished_run(finished, try_file, seed):
    for name in files(finished):
        learnt = name.parts[0] == "checkpoints"  # the student alone is read of a finished run, not its checkpoints
        try_file(name, seed, ("train", "report") if learnt else ("train", "report", "evaluate", "predict", "export"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_file_of_a_run_that_was_stopped_before_its_end(finished, try_file, seed):
    for name in files(finished):
        if name.parts[0] not in ("student", "scores.json"):
            try_file(name, seed, ("train",), unfinished)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scores.json", "config.json", "began_with.json"])
def test_many_bits_of_the_small_files(finished, try_file, name):
    for seed in range(60):
        try_file(pathlib.Path(name), seed, ("train",))
