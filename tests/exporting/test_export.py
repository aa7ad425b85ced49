"""A model folder to a file with its description, and everything that can be wrong with it."""

import json
import sys

import numpy as np
import pytest
from exporting_setup import random_weights
from PIL import Image

from emokd.configuration import config as configuration
from emokd.data.decode import to_canvas
from emokd.errors import InputError
from emokd.exporting import card, checking
from emokd.exporting.export import export
from emokd.exporting.session import Session
from emokd.files import write_with_sum
from emokd.inference.forward import answers, create_forward
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import smkd
from emokd.weights.model_folder import load_model, save_model

CLASSES = ("joy", "fear", "calm")
CONFIG = {
    "recipe": "smkd",
    "seed": 3,
    "mirror": True,
    "data": {
        "source": "painter",
        "licence": "our own",
        "canvas": 32,
        "fit": "crop",
        "split": {"seed": 7, "fold": 0, "folds": 0},
    },
    "teachers": {"big": {"backbone": "resnet50", "checkpoint": "weights/big", "licence": "CC BY 4.0"}},
}


def save(folder, spec, **provenance):
    generator = np.random.default_rng(0)
    params, stats = (random_weights(tree, generator) for tree in functional(spec).abstract)
    save_model(folder, spec, params, stats, provenance)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A student of pictures, of a run of which nothing else is left."""
    spec = NetworkSpec(
        "basic_cnn",
        {"width": 2, "size": 32},
        {"expression": 3, "valence_arousal": 2},
        {"expression": CLASSES},
        Preprocessing(size=32),
    )
    return save(tmp_path / "student", spec, config=json.dumps(CONFIG), step=50)


def test_the_file_says_what_the_network_says_and_is_described(pictures, tmp_path):
    output = tmp_path / "out" / "model.onnx"
    written = export(pictures, output, timed=False)
    assert sorted(path.name for path in output.parent.iterdir()) == ["README.md", "model.onnx", "student.json"]
    stored = json.loads((output.parent / "student.json").read_text())
    assert stored == written
    assert stored["bytes"] == output.stat().st_size
    assert stored["outputs"]["expression"] == {"kind": "probabilities", "classes": list(CLASSES)}
    assert stored["inputs"]["image"]["shape"] == ["batch", 3, 32, 32]
    assert stored["training"] == {
        "recipe": "smkd", "data": "painter", "step": 50, "seed": 3, "split": {"seed": 7, "fold": 0, "folds": 0},
        "licence": "our own",
    }  # fmt: skip
    assert (stored["teachers"]["big"]["file"], stored["teachers"]["big"]["licence"]) == ("big", "CC BY 4.0")
    assert stored["check"]["source"] == "random values"
    assert max(stored["check"]["largest_difference"].values()) < 1e-5
    assert stored["check"]["same_first_class"] == {"expression": 1.0}
    card = (output.parent / "README.md").read_text()
    assert "joy, fear, calm" in card and "licence CC BY 4.0." in card and "of the training data: our own." in card

    canvases = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    spec, params, stats, _ = load_model(pictures)
    wanted = answers(spec, create_forward(spec, mirror=True)(params, stats, {"image": canvases}))
    normalised = spec.preprocessing(np.asarray(canvases / 255, np.float32))
    found = Session(output.read_bytes())({"image": np.asarray(normalised).transpose(0, 3, 1, 2)})
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], atol=1e-5)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_pictures_of_any_size_are_prepared_by_the_graph(tmp_path, fit):
    config = {**CONFIG, "mirror": False, "data": {**CONFIG["data"], "fit": fit}}
    spec = NetworkSpec(
        "basic_cnn", {"width": 2, "size": 32}, {"expression": 3}, {"expression": CLASSES}, Preprocessing(32)
    )
    folder = save(tmp_path / "student", spec, config=json.dumps(config), step=1)
    export(folder, tmp_path / "model.onnx", preprocess=True, timed=False)
    session = Session((tmp_path / "model.onnx").read_bytes())
    # Smooth, as photographs are, so that rounding to whole numbers on the way is all that can differ.
    rows, columns = np.mgrid[0:70, 0:98]
    picture = np.stack([128 + 100 * np.sin(rows / 9 + c) * np.cos(columns / 11) for c in range(3)], -1).astype(np.uint8)
    _, params, stats, _ = load_model(folder)
    canvas = to_canvas(picture, 32, fit)
    wanted = answers(spec, create_forward(spec)(params, stats, {"image": canvas[None]}))["expression"]
    found = session({"image": picture[None]})["expression"]
    np.testing.assert_allclose(found, wanted, atol=0.01)
    other = answers(spec, create_forward(spec)(params, stats, {"image": canvas[None, ::-1]}))["expression"]
    assert np.abs(found - other).max() > 5 * np.abs(found - wanted).max()  # the picture matters more than that


def test_a_model_of_arrays_takes_them_as_they_come(tmp_path):
    spec = MultimodalSpec(
        {
            "eye": ModalitySpec("features/eye", (5,), "mlp", {"widths": (8,)}),
            "pulse": ModalitySpec("physiology", (32, 2), "conv1d", {"width": 4, "depth": 2}),
        },
        ("voice",),
        8,
        "transformer",
        {},
        {"encoder": (8, 4), "decoder": (8,)},
        {"expression": 3},
        {"expression": CLASSES},
    )
    references = {"features/eye": {"centre": [1.7e12, 0, 0, 0, 0], "unit": [1024.0, 1, 1, 1, 0]}}
    config = {key: value for key, value in CONFIG.items() if key != "mirror"}
    folder = save(tmp_path / "student", spec, config=json.dumps(config), step=1, references=references)
    written = export(folder, tmp_path / "model.onnx", timed=False)
    assert written["inputs"]["eye"]["dtype"] == "float64"
    assert written["inputs"]["pulse"]["shape"] == ["batch", 32, 2]

    # A clock in milliseconds, which float32 could not hold, and an example without each modality.
    generator = np.random.default_rng(2)
    eye, pulse = generator.normal(size=(3, 5)), generator.normal(size=(3, 32, 2)).astype(np.float32)
    seen = eye.astype(np.float32)
    seen[:, 4] = 0  # constant in training, so it says nothing
    raw = np.where(np.arange(5) == 0, 1.7e12 + 1024 * seen.astype(np.float64), eye)
    for values, row in ((seen, 0), (raw, 0), (pulse, 1)):
        values[row] = np.nan
    _, params, stats, _ = load_model(folder)
    wanted = answers(spec, create_forward(spec)(params, stats, {"features/eye": seen, "physiology": pulse}))
    found = Session((tmp_path / "model.onnx").read_bytes())({"eye": raw, "pulse": pulse})
    np.testing.assert_allclose(found["expression"], wanted["expression"], atol=1e-5)
    with pytest.raises(InputError, match="takes none"):
        export(folder, tmp_path / "model.onnx", preprocess=True, timed=False)


def test_the_check_looks_at_pictures_of_a_folder(pictures, tmp_path):
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "a.png")
    check = export(pictures, tmp_path / "out" / "m.onnx", pictures=str(tmp_path), timed=False)["check"]
    assert (check["examples"], check["source"]) == (1, f"pictures of {tmp_path.name}")


def test_the_check_looks_at_the_validation_split_of_the_model_s_run(pictures, tmp_path):
    config = smkd.default_config()
    config.data.source = "painter"
    config.data.options = {"size": 32, "train": 4, "validation": 6, "test": 2, "seed": 0}
    config.data.split.by_group = False
    config.data.canvas = 32
    (tmp_path / "config.json").write_text(configuration.to_json(config))
    check = export(pictures, tmp_path / "out" / "m.onnx", timed=False)["check"]
    assert (check["examples"], check["source"]) == (6, "the run's validation split")


def test_a_file_that_disagrees_is_not_written(pictures, tmp_path, monkeypatch):
    feeds = checking.feeds
    monkeypatch.setattr(
        checking, "feeds", lambda *a, **k: {name: v + np.float32(1) for name, v in feeds(*a, **k).items()}
    )
    with pytest.raises(InputError, match="does not say what the network says.*Nothing was written"):
        export(pictures, tmp_path / "out" / "model.onnx", timed=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra(pictures, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install emokd\[export\]"):
        export(pictures, tmp_path / "model.onnx", timed=False)


def test_wrong_input_is_named(pictures, tmp_path):
    with pytest.raises(InputError, match=r"There is no format 'onx'. Did you mean 'onnx'\? Known: onnx"):
        export(pictures, tmp_path / "m", format="onx")
    with pytest.raises(InputError, match="is a folder"):
        export(pictures, tmp_path)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README.md/deeper/m cannot be written: .*README.md is a file"):
        export(pictures, tmp_path / "README.md" / "deeper" / "m")
    with pytest.raises(InputError, match="README.md is there and no export's"):
        export(pictures, tmp_path / "m")
    (tmp_path / "README.md").unlink()
    with pytest.raises(InputError, match="holds no picture"):
        export(pictures, tmp_path / "m", pictures=str(pictures))
    (pictures / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights.safetensors"):
        export(pictures, tmp_path / "m")


def test_a_card_does_not_take_over_scores_that_have_changed(tmp_path):
    scores = {"split": "test", "examples": 9, "student": {"expression": {"accuracy": 0.5, "by_class": {"a": 1}}}}
    write_with_sum(tmp_path / "scores.json", json.dumps(scores))
    assert card._scores(tmp_path) == {"split": "test", "examples": 9, "expression": {"accuracy": 0.5}}
    for content in (json.dumps(scores).replace("0.5", "0.7"), "{", "[]"):
        (tmp_path / "scores.json").write_text(content)
        with pytest.raises(InputError, match=r"scores\.json .*Restore it, or remove it"):
            card._scores(tmp_path)
