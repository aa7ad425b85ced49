"""Formats by first bytes: whatever a file is called, it is read as what it is, or refused with the remedy."""

import gzip
import io
import json
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy
from lazily import Lazily

from emokd.errors import InputError
from emokd.weights.formats import FORMATS, read_file
from emokd.weights.mapping import KERAS, TFJS, TORCH

torch = Lazily("torch")
nn = Lazily("torch.nn")

ARRAY = np.arange(4, dtype=np.float32)


def write_keras(path):
    with h5py.File(path, "w") as file:
        file["dense/dense/bias:0"] = ARRAY


def write_tfjs(path):
    (path.parent / "shard").write_bytes(ARRAY.tobytes())
    weights = [{"name": "dense/bias", "shape": [4], "dtype": "float32"}]
    path.write_text(json.dumps([{"paths": ["shard"], "weights": weights}]))


WRITERS = {
    "zip": (lambda p: torch.save({"dense.bias": torch.tensor(ARRAY)}, p), TORCH),
    "legacy": (
        lambda p: torch.save({"dense.bias": torch.tensor(ARRAY)}, p, _use_new_zipfile_serialization=False),
        TORCH,
    ),
    "safetensors": (lambda p: safetensors.numpy.save_file({"dense.bias": ARRAY}, p), TORCH),
    "keras": (write_keras, KERAS),
    "tfjs": (write_tfjs, TFJS),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["model", "x.weights", "x.onnx", *(f"x{suffix}" for suffix in FORMATS)])
def test_the_first_bytes_decide(tmp_path, kind, name):
    write, expected = WRITERS[kind]
    write(tmp_path / "written")
    (tmp_path / "written").rename(tmp_path / name)
    arrays, layout = read_file(tmp_path / name)
    assert layout is expected
    np.testing.assert_array_equal(arrays[f"dense{layout.separator}bias"], ARRAY)


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in files.items():
            target.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        target.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("x.keras", archive(config_json="{}", model_weights_h5="x"), r"model.save\('model.h5'\)"),
        ("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9", "git lfs pull"),
        ("x.safetensors", b"<!DOCTYPE html><html>", "not the page"),
        ("x.pth", gzip.compress(b"x", mtime=0), "Unpack"),
        ("x.pth.tar", tar(), "Unpack"),
        ("x.pth", archive(readme_txt="x", weights_pth="y"), "Unpack"),
        ("x.npz", archive(a_npy="x"), "safetensors.numpy.save_file"),
        ("x.zip", archive(model__saved_model="x"), "Unpack"),
        ("x.onnx", b"\x08\x07\x12\x07pytorch", "ONNX graphs are not read.*safetensors"),
        ("x.tflite", b"\x1c\0\0\0TFL3", "TensorFlow Lite is not read"),
        ("x.weird", b"hello", "no known format.*Known: PyTorch"),
    ],
)
def test_other_formats_have_a_remedy(tmp_path, name, content, remedy):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=remedy) as caught:
        read_file(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_refused_and_the_remedy_works(tmp_path, monkeypatch):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)), tmp_path / "script.pt")
    with pytest.raises(InputError, match="TorchScript") as caught:
        read_file(tmp_path / "script.pt")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line.strip() for line in str(caught.value).splitlines()[1:]), {})
    assert read_file(tmp_path / "weights.pt")[0].keys() == {"weight", "bias"}


@pytest.mark.parametrize("name", ["net.bin", "net-shard1"])
def test_a_shard_leads_to_its_manifest(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x07" * 16)
    weights = [{"name": "a", "shape": [16], "dtype": "uint8"}]
    (tmp_path / "net-weights_manifest.json").write_text(json.dumps([{"paths": [name], "weights": weights}]))
    with pytest.raises(InputError, match=r"Give its manifest instead: net-weights_manifest.json"):
        read_file(tmp_path / name)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_file(tmp_path / "x.pth")
