"""An exported model in use: the answers of its model folder, from ONNX Runtime, and how it is refused."""

import hashlib
import json
import pathlib
import shutil
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from damages import try_all
from random_state import random_tree

import emokd
from emokd.data.augment import centre_views, render
from emokd.errors import InputError
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.rendering import render_whole
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder
from emokd.weights.seal import sealed

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

SIZE, CANVAS = 16, 24
CLASSES = ("calm", "glad", "cross")
DATA = {"source": "painter", "canvas": CANVAS, "fit": "pad", "split": {"seed": 0, "fold": 0, "folds": 0}}
CONFIG = {"recipe": "supervised", "seed": 0, "data": DATA}
PICTURES = np.random.default_rng(0).integers(0, 256, (9, 20, 28, 3), np.uint8)


def save(folder, spec, config, **provenance):
    params, stats = functional(spec).abstract
    weights = random_tree(params, 1), random_tree(stats, 2)
    model_folder.save_model(folder, spec, *weights, {"config": json.dumps(config), "step": 1, **provenance})
    return folder


def of_pictures(folder, channels=3, **config):
    mean, std = ((0.4,), (0.2,)) if channels == 1 else ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    spec = NetworkSpec(
        "mini_xception" if channels == 1 else "basic_cnn",
        {} if channels == 1 else {"width": 2, "size": SIZE},
        {"expression": 3, "valence_arousal": 2, "light": 2},
        {"expression": CLASSES},
        Preprocessing(32 if channels == 1 else SIZE, mean, std, channels),
    )
    return save(folder, spec, CONFIG | config)


def of_modalities(folder):
    """Eyes whose clock float32 could not hold, a pulse, frames; the heart existed in training alone."""
    spec = MultimodalSpec(
        {
            "eye": ModalitySpec("features/eye", (3,), "mlp", {"widths": (4,)}),
            "pulse": ModalitySpec("physiology", (16, 2), "conv1d", {"width": 4, "depth": 1}),
        },
        ("heart",),
        4,
        "transformer",
        {},
        {"encoder": (4, 2), "decoder": (4,)},
        {"expression": 3},
        {"expression": CLASSES},
    )
    modalities = {
        name: {"input": f"features/{name}", "privileged": name == "heart"} for name in ("eye", "pulse", "heart")
    }
    references = {"features/eye": {"centre": [1.7e12, 0, 0], "unit": [1024.0, 1, 0]}}
    columns = {"features/eye": ["clock", "x", "y"]}
    return save(folder, spec, CONFIG | {"modalities": modalities}, references=references, columns=columns)


FRAMES = {"backbone": "basic_cnn", "options": {"width": 2, "size": SIZE}}


def of_videos(folder):
    seen = Preprocessing(SIZE, (0.5,) * 3, (0.2,) * 3)
    spec = MultimodalSpec(
        {"clip": ModalitySpec("video", (2, SIZE, SIZE, 3), "frames", FRAMES, seen)},
        (),
        4,
        "concatenation",
        {},
        {},
        {"expression": 3},
        {"expression": CLASSES},
    )
    return save(folder, spec, CONFIG | {"modalities": {"clip": {"input": "video", "privileged": False}}})


def export(folder, **options):
    from emokd.exporting.export import export as write

    output = folder.with_name(f"{folder.name}_onnx") / "model.onnx"
    write(folder, output, timed=False, **options)
    return output


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model folder and its export, of each kind; made when it is first asked for."""
    kinds = {
        "plain": (of_pictures, {}, {}),
        "mirrored": (of_pictures, {"mirror": True}, {}),
        "grey": (of_pictures, {"channels": 1}, {}),
        "prepared": (of_pictures, {}, {"preprocess": True}),
        "modalities": (of_modalities, {}, {}),
        "videos": (of_videos, {}, {}),
    }
    made = {}

    def get(kind):
        if kind not in made:
            make, options, exported = kinds[kind]
            folder = make(tmp_path_factory.mktemp(kind) / "student", **options)
            made[kind] = folder, export(folder, **exported)
        return made[kind]

    return get


def numbers(answers):
    """The numbers of answers, [B, N]."""
    return np.array(
        [[v for v in answer.to_cells().values() if not isinstance(v, str)] for answer in answers], np.float64
    )


def assert_same(found, wanted):
    assert numbers(wanted).std(0).max() > 1e-3  # examples differ in their answers
    np.testing.assert_allclose(numbers(found), numbers(wanted), atol=2e-5)
    assert [list(answer.to_cells()) for answer in found] == [list(answer.to_cells()) for answer in wanted]


@pytest.mark.parametrize("kind", ["plain", "mirrored", "grey", "prepared"])
def test_pictures_get_the_answers_of_the_model_folder(models, kind):
    folder, file = models(kind)
    exported = emokd.load(file, batch_size=4)
    assert_same(exported(PICTURES), emokd.load(folder, batch_size=9)(PICTURES))
    assert exported.seen_as.mirror == (kind == "mirrored")


def test_the_names_of_columns_go_with_the_export(models):
    for path in models("modalities"):
        columns = {name: seen.columns for name, seen in emokd.load(path).signature.inputs.items()}
        assert columns == {"eye": ("clock", "x", "y"), "pulse": ()}


def test_the_folder_of_an_export_is_opened_as_its_file_is(models):
    folder, file = models("plain")
    assert emokd.load(file.parent)(PICTURES[0]) == emokd.load(file, engine="onnx")(PICTURES[0])
    other = emokd.load(file, canvas=8, fit="squash", face_crop="box")
    assert (other.seen_as.canvas, other.seen_as.fit, other.seen_as.face_crop) == (8, "squash", "box")
    assert_same(other(PICTURES), emokd.load(folder, canvas=8, fit="squash")(PICTURES))


class Halves:
    def detect(self, picture):
        height, width = picture.shape[:2]
        return [Face((0.0, 0.0, width / 2, height), 0.9), Face((width / 2, 0.0, width, height), 0.8)]


def test_faces_and_explanations_are_those_of_the_model_folder(models):
    students = [emokd.load(path) for path in models("plain")]
    wanted, found = ([a for faces in s(PICTURES, faces=FaceCropper(Halves())) for a in faces] for s in students)
    assert len(found) == 18 and [a.face for a in found] == [a.face for a in wanted]
    assert_same(found, wanted)
    wanted, found = (student.explain(PICTURES[0]) for student in students)
    assert found.label == wanted.label
    np.testing.assert_allclose(found.drop, wanted.drop, atol=2e-5)


def test_modalities_may_be_absent_and_privileged_ones_are_not_looked_at(models, caplog):
    rng = np.random.default_rng(0)
    eye, pulse = rng.normal(size=(6, 3)), rng.normal(size=(6, 16, 2))
    eye[:, 0] = 1.7e12 + 2000 * rng.integers(0, 9, 6)
    eye[0], pulse[1], eye[2, 1] = np.nan, np.nan, np.nan
    students = [emokd.load(path, batch_size=4) for path in models("modalities")]
    wanted, found = (s({"features/eye": eye, "pulse": pulse}) for s in students)
    assert_same(found, wanted)
    assert students[1]({"eye": eye, "pulse": pulse, "heart": rng.normal(size=(6, 2))}) == found
    assert "Not looked at: heart" in caplog.text
    wanted, found = (s({"pulse": pulse[3]}) for s in students)
    np.testing.assert_allclose(numbers([found]), numbers([wanted]), atol=2e-5)
    with pytest.raises(InputError, match=r"no modality 'ear'. It takes eye \[3\]"):
        students[1]({"ear": eye})
    with pytest.raises(InputError, match="not pictures alone"):
        students[1](PICTURES)


def test_frames_of_any_size_are_those_of_the_model_folder(models):
    frames = np.random.default_rng(0).integers(0, 256, (5, 2, 40, 40, 3), np.uint8)
    frames[1:3] //= 2
    wanted, found = (emokd.load(path)({"clip": frames}) for path in models("videos"))
    assert_same(found, wanted)


@pytest.mark.parametrize("sizes", [(16, 16), (24, 16), (16, 24), (61, 20), (9, 31)])
def test_a_picture_is_resized_as_in_training(sizes):
    source, target = sizes
    pictures = np.random.default_rng(0).integers(0, 256, (3, source, source, 3), np.uint8)
    wanted = render(jnp.asarray(pictures), centre_views(3), target)
    np.testing.assert_allclose(render_whole(pictures, target), wanted, atol=2e-6)


def test_many_threads_may_use_one_student(models):
    exported = emokd.load(models("plain")[1], batch_size=4)
    wanted, found = numbers(exported(PICTURES)), {}

    def use(thread):
        found[thread] = [numbers(exported(PICTURES[: 1 + (thread + i) % 9])) for i in range(9)]

    threads = [threading.Thread(target=use, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread, answers in found.items():
        for i, each in enumerate(answers):
            np.testing.assert_allclose(each, wanted[: 1 + (thread + i) % 9], atol=1e-6)
    assert len(found) == 6


def test_nothing_is_compiled_by_an_export(models, compilations):
    exported = emokd.load(models("mirrored")[1])
    exported.warm_up()
    exported(PICTURES)
    exported.explain(PICTURES[0])
    assert compilations == []


def test_what_is_wrong_with_an_export_is_said(models, tmp_path, monkeypatch):
    folder, file = models("plain")
    for path, options, said in (
        (file, {"engine": "jax"}, "is an export, which JAX does not run"),
        (file, {"precision": "bfloat16"}, "has its own precision"),
        (folder, {"engine": "onnx"}, "is no export. Make one, python -m emokd.export --model="),
        (tmp_path / "no.onnx", {}, "There is no file"),
        (file.with_name("README.md"), {}, "is no .onnx file"),
        (file, {"engine": "tensorrt"}, "There is no engine 'tensorrt'. Known: jax, onnx"),
    ):
        with pytest.raises(InputError, match=said):
            emokd.load(path, **options)
    copy = pathlib.Path(shutil.copytree(file.parent, tmp_path / "copy"))
    shutil.copy(file, copy / "other.onnx")
    with pytest.raises(InputError, match=r"should hold one .onnx file, and holds model.onnx, other.onnx"):
        emokd.load(copy)
    (copy / "other.onnx").write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="other.onnx is not the file that student.json beside it describes"):
        emokd.load(copy / "other.onnx")
    description = json.loads((copy / "student.json").read_text())
    for change, said in (
        ({"format": 2}, "has format 2; this emokd reads format 1"),
        ({"inputs": {"image": {**description["inputs"]["image"], "kind": "sound"}}}, "inputs.image.kind is 'sound'"),
        ({"inputs": {"picture": description["inputs"]["image"]}}, "takes image, but its description names picture"),
    ):
        (copy / "student.json").write_text(json.dumps(sealed(description | change)))
        with pytest.raises(InputError, match=said):
            emokd.load(copy / "model.onnx")
    (copy / "student.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(InputError, match="lacks attends_to_batch, canvas, inputs"):
        emokd.load(copy / "model.onnx")
    (copy / "student.json").unlink()
    with pytest.raises(InputError, match="has no student.json beside it"):
        emokd.load(copy / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*pip install emokd\[onnx\]"):
        emokd.load(file)


def test_a_file_that_is_no_model_is_refused(models, tmp_path):
    copy = pathlib.Path(shutil.copytree(models("plain")[1].parent, tmp_path / "copy"))
    (copy / "model.onnx").write_bytes(b"nothing")
    description = json.loads((copy / "student.json").read_text())
    description["sha256"] = hashlib.sha256(b"nothing").hexdigest()
    (copy / "student.json").write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match="model.onnx cannot be read by ONNX Runtime"):
        emokd.load(copy)


@pytest.mark.parametrize("name", ["student.json", "model.onnx"])
def test_a_damaged_export_is_refused(models, tmp_path, name):
    """Seeded damage to either file: one message, or the same answers."""
    shutil.copytree(models("plain")[1].parent, tmp_path / "x")
    wanted = emokd.load(tmp_path / "x")(PICTURES[0]).to_json()

    def read():
        assert emokd.load(tmp_path / "x")(PICTURES[0]).to_json() == wanted

    assert any(try_all(tmp_path / "x" / name, read, 30, seed=1))
