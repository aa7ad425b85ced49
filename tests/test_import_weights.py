"""The command that imports weights, and the files that it must refuse."""

import functools
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from lazily import Lazily

from emokd.configuration import defaults
from emokd.data.tables.class_list import read_classes
from emokd.errors import InputError
from emokd.jobs.models import load_model as load_teacher
from emokd.models.network import NetworkSpec, functional
from emokd.weights import importing
from emokd.weights.importing import import_weights, read_options
from emokd.weights.mapping import TORCH, flatten
from emokd.weights.model_folder import load_model

torch = Lazily("torch")


@functools.cache
def torchvision_state(classes, backbone="resnet18"):
    """Random arrays under torchvision's names, made from our shapes; parity is tested with the architecture."""
    spec = NetworkSpec(backbone, heads={"objects": classes} if classes else {})
    random = np.random.default_rng(0)
    state = {}
    for tree in functional(spec).abstract:
        for path, leaf in flatten(tree).items():
            module, _, name = path.rpartition("/")
            value = random.normal(size=leaf.shape).astype(np.float32)
            if name == "var":
                value = np.abs(value)
            if name == "kernel":
                value = value.transpose({2: (1, 0), 4: (3, 2, 0, 1)}[value.ndim])
            foreign = importing.find_layouts(backbone)[0].foreign_module(module)
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
        ({"key": "ema"}, "no weights under 'ema'"),
        ({"options": {"with": 1}}, "cannot be made with the options"),
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


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder."])
def test_prefixes_come_off_and_a_head_of_another_name_is_found(tmp_path, prefix, caplog):
    state = torchvision_state(classes=6)
    named = {(f"head.{k}" if k.startswith("fc") else prefix + k).replace("fc", "linear"): v for k, v in state.items()}
    safetensors.numpy.save_file(named, tmp_path / "r.safetensors")
    with caplog.at_level("WARNING", "absl"):
        model = importing.import_file("resnet18", tmp_path / "r.safetensors", head="mood")
    np.testing.assert_array_equal(model.params["heads"]["mood"]["kernel"], state["fc.weight"].T)
    assert "'head.linear', the one layer left over, as the head" in caplog.text


def test_of_two_sets_of_weights_the_key_chooses_one(tmp_path):
    state = {k: torch.tensor(v) for k, v in torchvision_state(classes=6).items()}
    averaged = {f"module.{k}": v / 2 for k, v in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "r.pth")
    with pytest.raises(InputError, match="--key=state_dict_ema"):
        import_weights("resnet18", tmp_path / "r.pth", tmp_path / "model")
    import_weights("resnet18", tmp_path / "r.pth", tmp_path / "model", key="state_dict_ema")
    _, params, _, provenance = load_model(tmp_path / "model")
    np.testing.assert_array_equal(params["heads"]["pretrained"]["bias"], state["fc.bias"] / 2)
    assert provenance["key"] == "state_dict_ema"
    origins = {
        importing.import_file("resnet18", tmp_path / "r.pth", key=k).origin for k in ("state_dict", "state_dict_ema")
    }
    assert len(origins) == 2  # a teacher cache tells them apart


def test_a_configuration_names_file_and_key_in_one(tmp_path):
    assert importing.split_key("a/x.pth#state_dict_ema") == ("a/x.pth", "state_dict_ema")
    assert importing.split_key("a/x.ckpt#ema.module") == ("a/x.ckpt", "ema.module")
    (tmp_path / "x.model").touch()  # its first bytes say what it is
    assert importing.split_key(f"{tmp_path}/x.model#ema") == (f"{tmp_path}/x.model", "ema")
    for plain in ("a/x.pth", "runs/a#b/student", "a#b.pth", "a/x.pth#"):
        assert importing.split_key(plain) == (plain, "")
    state = {k: torch.tensor(v) for k, v in torchvision_state(classes=6).items()}
    torch.save({"model": state, "model_ema": {k: v / 2 for k, v in state.items()}}, tmp_path / "r.pth")
    section = defaults.teacher("resnet18")
    with pytest.raises(InputError, match="r.pth#model_ema"):
        load_teacher(str(tmp_path / "r.pth"), section, "config.teachers.x.checkpoint")
    model = load_teacher(f"{tmp_path / 'r.pth'}#model_ema", section, "config.teachers.x.checkpoint")
    np.testing.assert_array_equal(model.params["heads"]["pretrained"]["bias"], state["fc.bias"] / 2)


def test_options_are_read_from_text():
    assert read_options(["size=256", "style=pytorch", "lite=true"]) == {"size": 256, "style": "pytorch", "lite": True}
    with pytest.raises(InputError, match="write NAME=VALUE"):
        read_options(["size"])


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
