"""Weights files and model folders with seeded damage: each is read, or refused by one message; in time, and in memory.

The default suite has a few cases of each format; the slow one has more of the same kind.
"""

import hashlib
import json
import pathlib
import struct
from collections.abc import Iterator

import damages
import h5py
import numpy as np
import pytest
import safetensors.numpy
from damages import amounts, refused, try_all

from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder
from emokd.weights.description import sealed
from emokd.weights.formats import read_file

SPEC = NetworkSpec(
    "basic_cnn",
    options={"width": 2, "size": 16},
    heads={"expression": 3, "valence_arousal": 2},
    classes={"expression": ("glad", "sad", "none")},
    preprocessing=Preprocessing(size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)),
)
ARRAYS = {
    "conv1.weight": np.linspace(-1, 1, 54, dtype=np.float32).reshape(2, 3, 3, 3),
    "bn1.running_var": np.ones(2, np.float32),
    "fc.weight": np.zeros((3, 2), np.float32),
}


def write_model(folder: pathlib.Path) -> pathlib.Path:
    params, stats = (_filled(tree) for tree in functional(SPEC).abstract)
    config = json.dumps({"data": {"canvas": 20, "fit": "pad"}, "precision": "float32", "mirror": False})
    model_folder.save_model(folder / "model", SPEC, params, stats, {"config": config, "face_crop": "box"})
    return folder / "model"


def _filled(tree):
    return {k: _filled(v) if isinstance(v, dict) else np.ones(v.shape, v.dtype) for k, v in tree.items()}


def write_safetensors(folder: pathlib.Path) -> pathlib.Path:
    safetensors.numpy.save_file(ARRAYS, folder / "x.safetensors")
    return folder / "x.safetensors"


def write_keras(folder: pathlib.Path) -> pathlib.Path:
    with h5py.File(folder / "x.h5", "w") as file:
        for layer in ("conv2d_1", "dense_1"):
            group = file.create_group(f"model_weights/{layer}/{layer}")
            group["kernel:0"], group["bias:0"] = np.ones((3, 4), np.float32), np.zeros(4, np.float32)
    return folder / "x.h5"


def write_tfjs(folder: pathlib.Path) -> pathlib.Path:
    (folder / "shard1").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    entry = {"name": "conv/filters", "shape": [2, 4], "dtype": "float32"}
    (folder / "x-weights_manifest.json").write_text(json.dumps([{"paths": ["shard1"], "weights": [entry]}]))
    return folder / "x-weights_manifest.json"


def write_torch(folder: pathlib.Path) -> pathlib.Path:
    import torch

    torch.save({"state_dict": {name: torch.tensor(array) for name, array in ARRAYS.items()}}, folder / "x.pth")
    return folder / "x.pth"


WRITERS = {"safetensors": write_safetensors, "keras": write_keras, "tfjs": write_tfjs, "torch": write_torch}


@pytest.fixture(autouse=True)
def within_bounds() -> Iterator[None]:
    with damages.bounded():
        yield


@pytest.mark.parametrize(("kind", "count"), amounts(WRITERS))
def test_a_damaged_foreign_file_is_read_or_refused(tmp_path, kind, count):
    path = WRITERS[kind](tmp_path)
    assert any(try_all(path, lambda: read_file(path), count, seed=1))


@pytest.mark.parametrize(("name", "count"), amounts(["model.json", "weights.safetensors"]))
def test_a_damaged_model_folder_is_refused(tmp_path, name, count):
    folder = write_model(tmp_path)
    whole = model_folder.load_with_canvas(folder)[0].spec
    for message, number in zip(
        try_all(folder / name, lambda: model_folder.load_with_canvas(folder), count, seed=2), range(count), strict=True
    ):
        # What is not refused is the same model: a changed space, or the version that wrote it.
        assert message or whole == SPEC, number


@pytest.mark.parametrize(("what", "count"), amounts(["any value"]))
def test_any_value_in_the_place_of_any_other_is_refused_or_harmless(tmp_path, what, count):
    """Written with the right hash, as by somebody who knows how; probabilities stay numbers."""
    folder = write_model(tmp_path)
    path, rng = folder / "model.json", np.random.default_rng(3)
    original = path.read_text()
    others = [None, -1, 0, 1, 2.5, 10**400, 1e308, float("nan"), "", "x", [], [[]], {}, {"a": 1}, True, [3], 10**6]
    for _ in range(3 * count):
        description = json.loads(original)
        places = list(_places(description))
        parent, key = places[rng.integers(len(places))]
        parent[key] = others[rng.integers(len(others))]
        path.write_text(json.dumps(sealed(description)))
        refused(lambda: model_folder.load_with_canvas(folder))


def _places(value):
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def test_nested_brackets_are_refused(tmp_path):
    folder = write_model(tmp_path)
    (folder / "model.json").write_text("[" * 100_000)
    assert "is not JSON" in refused(lambda: model_folder.load_model(folder))


def test_a_safetensors_header_that_claims_a_terabyte_is_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    assert "cannot be read as safetensors" in refused(lambda: read_file(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_arrays_of_a_type_that_numpy_lacks_are_refused(tmp_path, dtype):
    header = json.dumps({"x": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    (tmp_path / "x.safetensors").write_bytes(content)
    assert "of a type that is not read" in refused(lambda: read_file(tmp_path / "x.safetensors"))
    folder = write_model(tmp_path)
    (folder / "weights.safetensors").write_bytes(content)
    description = json.loads((folder / "model.json").read_text())
    description["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "model.json").write_text(json.dumps(sealed(description)))
    assert "cannot be read as safetensors" in refused(lambda: model_folder.load_model(folder))
