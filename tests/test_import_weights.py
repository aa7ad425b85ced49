"""The command that imports weights, and the files that it must refuse."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

from emokd.data.class_list import read_classes
from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.weights import importing
from emokd.weights.importing import import_weights
from emokd.weights.mapping import TORCH, flatten
from emokd.weights.model_folder import load_model


def torchvision_state(classes, backbone="resnet18"):
    """Random arrays under torchvision's names, made from our shapes; parity is tested with the architecture."""
    spec = NetworkSpec(backbone, heads={"objects": classes} if classes else {})
    random = np.random.default_rng(0)
    state = {}
    for tree in functional(spec).abstract:
        for path, leaf in flatten(tree).items():
            module, _, name = path.rpartition("/")
            value = random.normal(size=leaf.shape).astype(np.float32)
            if name == "kernel":
                value = value.transpose({2: (1, 0), 4: (3, 2, 0, 1)}[value.ndim])
            foreign = importing.find_foreign_module(backbone)(module)
            state[TORCH.foreign_name(foreign, name)] = np.ascontiguousarray(value)
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    safetensors.numpy.save_file(torchvision_state(classes=6), path)
    return path


def test_writes_a_model_folder(checkpoint, tmp_path):
    classes = ["a", "b", "c", "d", "e", "f"]
    line = import_weights("resnet18", checkpoint, tmp_path / "model", head="objects", classes=classes)
    assert "objects (6)" in line
    spec, params, _, provenance = load_model(tmp_path / "model")
    assert spec.heads == {"objects": 6}
    assert spec.classes == {"objects": tuple(classes)}
    assert spec.preprocessing.size == 224
    assert provenance["source"] == "resnet18.safetensors"
    assert provenance["source_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    foreign = safetensors.numpy.load_file(checkpoint)
    np.testing.assert_array_equal(params["heads"]["objects"]["kernel"], foreign["fc.weight"].T)


def test_the_head_has_a_name_even_if_none_is_given(checkpoint):
    assert importing.import_file("resnet18", checkpoint).spec.heads == {"pretrained": 6}
    assert importing.import_file("resnet18", checkpoint, leave_out=["fc"]).spec.heads == {}


def test_a_file_without_a_head_needs_no_head(tmp_path):
    torch.save({k: torch.tensor(v) for k, v in torchvision_state(classes=0).items()}, tmp_path / "r.pth")
    assert importing.import_file("resnet18", tmp_path / "r.pth").spec.heads == {}
    with pytest.raises(InputError, match="r.pth has no head: 'fc.weight' is not among its arrays"):
        importing.import_file("resnet18", tmp_path / "r.pth", head="objects")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet81"}, "Did you mean 'resnet18'"),
        ({"model": "basic_cnn"}, "No weights of other frameworks can be imported for 'basic_cnn'"),
        ({"model": "resnet50"}, "does not fit the model in"),
        ({"checkpoint": "nothing.pth"}, "There is no file nothing.pth"),
        ({"checkpoint": "weights.onnx"}, "suffix"),
        ({"classes": ["a", "b"]}, "2 class names are given, but the head of resnet18.safetensors has 6 classes"),
        ({"classes": ["a", "b", "c", "d", "e", "a"]}, "repeated: a"),
        ({"classes": ["a"], "leave_out": ["fc"]}, "has no head, or it is left out"),
        ({"leave_out": ["classifier"]}, "no module 'classifier' to leave out"),
        ({"head": "objects", "leave_out": ["fc"]}, "has no head"),
    ],
)
def test_wrong_input_is_refused_and_nothing_written(checkpoint, tmp_path, changes, message):
    arguments = {"model": "resnet18", "checkpoint": checkpoint, "output": tmp_path / "model", **changes}
    with pytest.raises(InputError, match=message):
        import_weights(**arguments)
    assert not list(tmp_path.iterdir())


def test_classes_come_from_a_list_or_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("glad\nsad, or so\n")
    assert read_classes(str(tmp_path / "classes.txt")) == ["glad", "sad, or so"]
    assert read_classes("glad, sad") == ["glad", "sad"]
    assert read_classes("") == []
    with pytest.raises(InputError, match="class name number 2 is empty"):
        read_classes("glad,,sad")


def run_command(*arguments):
    """In a process of its own, because commands define flags of the same names."""
    return subprocess.run(
        [sys.executable, "-m", "emokd.import_weights", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_writes_a_model_folder(checkpoint, tmp_path):
    output = tmp_path / "model"
    result = run_command(
        "--model=resnet18", f"--checkpoint={checkpoint}", f"--output={output}", "--head=mood", "--classes=a,b,c,d,e,f"
    )
    assert result.returncode == 0, result.stderr
    assert "heads: mood (6), from resnet18.safetensors" in result.stdout
    assert load_model(output)[0].classes == {"mood": ("a", "b", "c", "d", "e", "f")}


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"not a checkpoint")
    result = run_command(
        "--model=resnet18", f"--checkpoint={tmp_path / 'weights.pth'}", f"--output={tmp_path / 'model'}"
    )
    assert result.returncode == 2
    assert "weights.pth cannot be read as a PyTorch checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "model").exists()
