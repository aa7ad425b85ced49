"""What `pip install emokd[onnx]` can do: a Python that finds its packages alone, and so neither JAX nor the others."""

import configparser
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from random_state import random_tree

import emokd
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16


def requirements(*extras):
    """The names that `setup.cfg` asks for, of these extras too."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = [parser["options"]["install_requires"], *(parser["options.extras_require"][extra] for extra in extras)]
    return [Requirement(line).name for text in lines for line in text.splitlines() if line and line[0] != "#"]


def closure(names):
    """The installed distributions with these names, and those that they require on this machine."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needs = map(Requirement, found[name].requires or [])
            waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


HIDE = """
import importlib.machinery
hidden, find = set({hidden}), importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.partition(".")[0] in hidden else find(name, path, target)
)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a `sitecustomize.py` that hides every installed package but these distributions'."""
    known = {distribution.name for distribution in closure(requirements("onnx", "video")).values()}
    packages = importlib.metadata.packages_distributions()
    hidden = sorted(top for top, names in packages.items() if known.isdisjoint(names) and "emokd" not in names)
    assert {"jax", "flax", "matplotlib", "scipy", "onnx", "torch"} & packages.keys() <= set(hidden)
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    spec = NetworkSpec(
        "basic_cnn",
        {"width": 2, "size": SIZE},
        {"expression": 2, "valence_arousal": 2},
        {"expression": ("calm", "glad")},
        Preprocessing(SIZE),
    )
    params, stats = functional(spec).abstract
    path = tmp_path_factory.mktemp("model") / "student"
    model_folder.save_model(path, spec, random_tree(params, 1), random_tree(stats, 2), {})
    from emokd.exporting.export import export

    export(path, path.with_name("out") / "model.onnx", timed=False)
    return path


def run(site, *arguments, code=0):
    """Runs this Python without what is hidden."""
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (site, ROOT))), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr
    return done


PROGRAM = """
import json, pathlib, sys
import emokd
assert not {"numpy", "PIL", "cv2"} & set(sys.modules), "importing emokd alone is to be light"
from emokd.inference.faces import Face, FaceCropper

class Whole:
    def detect(self, picture):
        return [Face((0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])), 0.9)]

picture, video, model, stored = sys.argv[1:]
student = emokd.load(model)
student.warm_up()
found = {
    "one": student(picture).to_json(),
    "several": [answer.to_json() for answer in student([picture, picture])],
    "faces": student(picture, faces=FaceCropper(Whole(), "box"))[0].to_json(),
    "frames": [frame.answer.to_json() for frame in student.stream(video, smooth=0.5)],
    "drawn": len(student.explain(picture).png()),
}
try:
    emokd.load(stored)
except emokd.InputError as error:
    found["said"] = str(error)
found["modules"] = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    return path


def make_video(path):
    from emokd.inference.video import VideoWriter

    writer = VideoWriter(path, 10.0)
    for frame in range(3):
        writer.write(np.full((32, 32, 3), 60 * frame, np.uint8), frame / 10)
    writer.close()
    return path


def test_an_export_is_used_without_jax(site, folder, picture, tmp_path):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    video = make_video(tmp_path / "a.mp4")
    exported = folder.with_name("out") / "model.onnx"
    found = json.loads(run(site, "-c", PROGRAM, picture, video, exported, folder).stdout)
    assert not {"jax", "jaxlib", "flax", "ml_collections", "matplotlib", "scipy"} & set(found["modules"])
    student = emokd.load(folder)
    wanted = student(picture).to_json()
    for answer in (found["one"], *found["several"]):
        assert answer["expression"] == wanted["expression"]
        np.testing.assert_allclose(
            list(answer["expression_probabilities"].values()), list(wanted["expression_probabilities"].values()),
            atol=2e-5,
        )  # fmt: skip
    frames = [frame.answer.valence for frame in student.stream(video, smooth=0.5)]
    np.testing.assert_allclose([frame["valence"] for frame in found["frames"]], frames, atol=2e-5)
    assert found["drawn"] and "valence" in found["faces"]
    assert "pip install emokd[train]" in found["said"]


def test_the_command_predicts_without_jax(site, folder, picture):
    done = run(site, "-m", "emokd.predict", f"--model={folder.with_name('out')}", picture)
    record = json.loads(done.stdout)
    assert record["file"] == str(picture) and set(record["expression_probabilities"]) == {"calm", "glad"}
    done = run(site, "-m", "emokd.predict", f"--model={folder}", picture, code=2)
    assert "pip install emokd[train]" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["benchmark", "cache_teachers", "check_data", "evaluate", "export", "import_weights", "report", "study", "train"],
)
def test_a_command_that_trains_names_the_extra(site, command):
    done = run(site, "-m", f"emokd.{command}", "--model=x", code=2)
    assert done.stderr.startswith(f"{command}: this command needs packages that are not installed")
    assert done.stderr.endswith("pip install emokd[train].\n")
