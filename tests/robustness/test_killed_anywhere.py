"""Commands are killed anywhere, again and again, and end as if nothing had happened.

Half of the kills come at a random moment, half at a random one of the times that the process writes, renames or removes
something. `EMOKD_KILLS` says how many each command gets (2; 50 in the run that docs/reliability.md reports). After each
kill everything that reads a run is asked of what is left: it answers as in the end, or refuses in one message.
"""

import csv
import dataclasses
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import killed
import numpy as np
import pytest
import several_processes
from PIL import Image

import emokd
from emokd.data import sources
from emokd.errors import InputError
from emokd.exporting.export import export
from emokd.jobs import scoring
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.reporting.report import write_report
from emokd.weights import model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

KILLS = int(os.environ.get("EMOKD_KILLS", "2"))
SIZE = 16

HEAD = """
import small_jobs
from emokd.configuration import defaults
from emokd.recipes import bounded, mtpkdot, smkd, supervised


def get_config():
    config = small_jobs.paint(RECIPE.default_config(), steps=3)
    config.evaluation = defaults.every(steps=1)
    config.checkpoint.min_seconds = 0.0
    config.baseline.enabled = False
"""
TEACHERS = """
    for name in ("one", "two"):
        config.teachers[name] = defaults.teacher(checkpoint=f"FOLDER/teachers/{name}")
"""
MODALITIES = f"""
    del config.student
    config.data.options.inputs = ("image", "physiology")
    config.modalities.face = defaults.modality("image", "basic_cnn", size={SIZE}, width=2)
    config.modalities.trace = defaults.modality("physiology", "conv1d", privileged=True, width=4, depth=1)
    config.width, config.adapter_width = 4, 2
    config.fusion.name = "concatenation"
    config.hallucination.options = {{"encoder": (4, 2), "decoder": (4,)}}
    config.structure.k = 3
"""
RECIPES = {"supervised": "", "smkd": TEACHERS, "bounded": TEACHERS, "mtpkdot": MODALITIES}
STUDY = """
from emokd.studies.plan import define


def get_config():
    return define(title="Killed", base="FOLDER/supervised.py", variants={"slow": {}, "decayed": {"ema.decay": 0.5}},
                  seeds=(0,), metric="student.expression.accuracy", per_seed=("seed",), baseline="slow")
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A command: its module, its arguments given where it writes, and what must be the same in the end."""

    module: str
    arguments: Callable[[pathlib.Path], list[str]]
    results: Callable[[pathlib.Path], dict[str, object]]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    """Configurations, teachers, pictures, and a finished run."""
    folder = tmp_path_factory.mktemp("killed")
    classes = sources.load("painter", "", {"size": SIZE, "train": 8, "validation": 4, "test": 4, "seed": 0}).classes
    spec = NetworkSpec(
        "basic_cnn",
        {"width": 3, "size": SIZE},
        {"expression": len(classes["expression"])},
        {"expression": tuple(classes["expression"])},
        Preprocessing(SIZE),
    )
    for seed, name in enumerate(("one", "two")):
        params, stats = functional(spec).init(jax.random.key(seed))
        model_folder.save_model(folder / "teachers" / name, spec, params, stats, {"source": "test"})
    for name, more in RECIPES.items():
        text = HEAD.replace("RECIPE", name) + more.replace("FOLDER", str(folder)) + "    return config\n"
        (folder / f"{name}.py").write_text(text)
    (folder / "study.py").write_text(STUDY.replace("FOLDER", str(folder)))
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / "pictures" / f"{number}.png")
    done = start(folder / "finished", CASES["train supervised"], folder)
    assert done.wait() == 0, log_of(folder / "finished")
    return folder


def of_run(folder: pathlib.Path) -> dict[str, object]:
    scores = json.loads((folder / "scores.json").read_text())
    assert (folder / "report.html").exists()
    return {"student": student_bytes(folder), "scores": {k: v for k, v in scores.items() if k != "provenance"}}


def student_bytes(folder: pathlib.Path) -> bytes:
    model_folder.load_trained(folder / "student")
    return (folder / "student" / model_folder.WEIGHTS).read_bytes()


def of_study(folder: pathlib.Path) -> dict[str, object]:
    students = {str(path.relative_to(folder)): student_bytes(path.parent) for path in folder.glob("runs/*/*/student")}
    assert len(students) == 2
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, name in itertools.product(rows, ("seconds", "date", "commit")):
        del row[name]
    return students | {"results": rows, "variants": sorted(p.name for p in (folder / "runs").iterdir())}


def of_cache(folder: pathlib.Path) -> dict[str, object]:
    assert sorted(path.name for path in folder.iterdir()) == ["cache.json", "features.npy", "index.npy"]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def of_export(folder: pathlib.Path) -> dict[str, object]:
    pictures = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    answers = emokd.load(folder / "exported")(list(pictures))
    return {"graph": (folder / "exported" / "model.onnx").read_bytes(), "answers": [repr(a) for a in answers]}


def of_answers(folder: pathlib.Path) -> dict[str, object]:
    return {"answers": (folder / "answers.jsonl").read_bytes()}


def of_import(folder: pathlib.Path) -> dict[str, object]:
    model_folder.load_trained(folder / "model")
    return {"weights": (folder / "model" / model_folder.WEIGHTS).read_bytes()}


OF_ONE_PLACE = ("emokd.export", "emokd.predict", "emokd.import_weights")
"""Commands that write the same few files each time, so that nothing of a killed one may be left in the end."""
MADE: list[pathlib.Path] = []


def made_at(name: str) -> str:
    return str(MADE[0] / name)


def weights_file() -> str:
    return str(pathlib.Path(os.environ["EMOKD_DATA"]) / "weights" / "mobilenet_v2-b0353104.pth")


CASES = {
    f"train {name}": Case(
        "emokd.train", lambda f, name=name: [f"--config={made_at(f'{name}.py')}", f"--workdir={f}"], of_run
    )
    for name in RECIPES
}
CASES |= {
    "cache_teachers": Case(
        "emokd.cache_teachers",
        lambda f: [f"--config={made_at('smkd.py')}", "--config.data.views=3", f"--output={f}"],
        of_cache,
    ),
    "study": Case("emokd.study", lambda f: [f"--config={made_at('study.py')}", f"--workdir={f}"], of_study),
    "export": Case(
        "emokd.export",
        lambda f: [f"--model={made_at('finished')}/student", f"--output={f}/exported/model.onnx", "--notimed"],
        of_export,
    ),
    "predict": Case(
        "emokd.predict",
        lambda f: [f"--model={made_at('finished')}", f"--output={f}/answers.jsonl", made_at("pictures")],
        of_answers,
    ),
    "import_weights": Case(
        "emokd.import_weights",
        lambda f: ["--model=mobilenet_v2", f"--checkpoint={weights_file()}", f"--output={f}/model"],
        of_import,
    ),
}


def log_of(folder: pathlib.Path) -> str:
    return pathlib.Path(f"{folder}.log").read_text()[-4000:]


def environment(made: pathlib.Path) -> dict[str, str]:
    return several_processes.environment() | {
        "JAX_NUM_CPU_DEVICES": "1",
        "EMOKD_COMPILATION_CACHE": str(made / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # every program, however small, is compiled once
        "OPENBLAS_NUM_THREADS": "1",  # else NumPy starts threads when it is imported
    }


def start(folder: pathlib.Path, case: Case, made: pathlib.Path) -> subprocess.Popen:
    """The command in a process of its own, writing to `folder`."""
    MADE[:] = [made]
    if case.module in OF_ONE_PLACE:
        folder.mkdir(exist_ok=True)
    with open(f"{folder}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, killed.__file__, str(folder), "0", case.module, *case.arguments(folder)],
            cwd=made,
            env=environment(made),
            stdout=log,
            stderr=log,
        )


@pytest.fixture(scope="module")
def fork(made):
    """A function as `start`, but in a forked process, which kills itself at its `at`-th doing in `folder`."""

    def begin(folder: pathlib.Path, case: Case, at: int = 0) -> killed.Forked:
        if case.module in OF_ONE_PLACE:
            folder.mkdir(exist_ok=True)
        return server.start(folder, at, case.module, case.arguments(folder), f"{folder}.log")

    modules = sorted({case.module for case in CASES.values()})
    with killed.Server(modules, environment(made), made) as server:
        yield begin


@pytest.fixture(scope="module", autouse=True)
def readers_compile_once(tmp_path_factory):
    """What reads runs here keeps its programs, as the commands do."""
    ours = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("readers")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in ours}
    for name, value in ours.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def ask(folder: pathlib.Path, finished: dict[str, object]) -> None:
    """Everything that reads a run answers as in the end, or refuses in one message."""
    for read in (scores_of, answers_of, exported, reported):
        try:
            answer = read(folder)
        except InputError:
            continue
        if read.__name__ in finished:
            assert answer == finished[read.__name__], f"{read.__name__} of {folder}"


def scores_of(folder: pathlib.Path) -> str:
    return json.dumps(scoring.evaluate_student(folder, "test", devices=1), sort_keys=True)


def answers_of(folder: pathlib.Path) -> list[str]:
    return [repr(answer) for answer in emokd.load(folder)([np.zeros((SIZE, SIZE, 3), np.uint8)])]


def exported(folder: pathlib.Path) -> int:
    out = folder.with_name(f"{folder.name}_exported")
    shutil.rmtree(out, ignore_errors=True)
    return export(folder / "student", out / "model.onnx", timed=False)["bytes"]


def reported(folder: pathlib.Path) -> None:
    copy = folder.with_name(f"{folder.name}_reported")
    shutil.rmtree(copy, ignore_errors=True)
    if folder.exists():  # else it was killed before it made one
        shutil.copytree(folder, copy)
    write_report(copy)


@pytest.mark.parametrize("name", CASES)
def test_a_command_that_is_killed_anywhere_ends_as_if_it_were_not(name, made, fork, tmp_path):
    case, rng = CASES[name], random.Random(f"killed {name}")
    if name == "import_weights" and not os.environ.get("EMOKD_DATA"):
        pytest.skip("EMOKD_DATA is not set: no weights file here")
    whole = tmp_path / "whole"
    assert start(whole, case, made).wait() == 0, log_of(whole)
    begun = time.monotonic()  # once more, with what it compiled at hand
    again = tmp_path / "again"
    assert fork(again, case).wait() == 0, log_of(again)
    seconds = time.monotonic() - begun
    events = int(pathlib.Path(f"{again}.events").read_text())
    wanted = case.results(whole)
    assert case.results(again) == wanted
    read = case.module == "emokd.train"
    answers = {r.__name__: r(whole) for r in (scores_of, answers_of, exported)} if read else {}

    kills, ends, number = 0, 0, 0
    folder = tmp_path / "0"
    while kills < KILLS:
        at = rng.randint(1, events) if number % 2 else 0
        process = fork(folder, case, at)
        number += 1
        if at:
            process.wait()
        else:
            try:
                process.wait(timeout=rng.uniform(0.1, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if process.returncode == -signal.SIGKILL:
            kills += 1
            if read:
                ask(folder, answers)
        else:  # it had ended before: what it left is looked at, and the next kills fall on a new one
            assert process.returncode == 0, log_of(folder)
            assert case.results(folder) == wanted
            ends += 1
            shutil.rmtree(folder)
            folder = tmp_path / str(number)
        assert number < 20 * KILLS + 20
    process = fork(folder, case)
    assert process.wait() == 0, log_of(folder)
    assert "Traceback" not in log_of(folder)
    assert case.results(folder) == wanted
    if case.module in OF_ONE_PLACE:
        assert not [path for suffix in ("tmp", "old") for path in folder.rglob(f".*.{suffix}")]
    print(
        f"\n{name}: {kills} kills; {ends + 1} ends, all bit-identical; {seconds:.0f} s and {events} doings undisturbed"
    )
