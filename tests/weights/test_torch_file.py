"""Reading PyTorch and safetensors files: what is read, and that nothing is executed."""

import builtins
import os
import pickle

import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.weights.torch_file import read_safetensors, read_torch

torch = Lazily("torch")
safetensors_torch = Lazily("safetensors.torch")
nn = Lazily("torch.nn")


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_pytorch_wrote(tmp_path, zipped):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": module.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    found = read_torch(path)
    assert found.keys() == {f"state_dict.{name}" for name in module.state_dict()}
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(found[f"state_dict.{name}"], value.numpy())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened(tmp_path, dtype):
    state = {"a": torch.tensor([1.5, -0.25]).to(getattr(torch, dtype))}
    torch.save(state, tmp_path / "a.pt")
    safetensors_torch.save_file(state, tmp_path / "a.safetensors")
    for found in (read_torch(tmp_path / "a.pt"), read_safetensors(tmp_path / "a.safetensors")):
        assert found["a"].dtype == np.float32
        np.testing.assert_array_equal(found["a"], [1.5, -0.25])


def test_parameters_that_require_gradients_are_read(tmp_path):
    torch.save({"a": nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pt")["a"], [1, 1])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_is_refused_with_the_remedy(tmp_path, zipped):
    path = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 3), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        read_torch(path)
    message = str(caught.value)
    assert "torch.nn.modules.linear.Linear" in message
    remedy = [line.strip() for line in message.splitlines()[1:]]
    assert len(remedy) == 3
    # The remedy, followed to the letter, works.
    previous = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec("\n".join(remedy), {})
    finally:
        os.chdir(previous)
    assert read_torch(tmp_path / "weights.pt").keys() == {"weight", "bias"}


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_a_file_is_executed(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"state_dict": Malicious(trace)}, tmp_path / "evil.pth")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    for name in ("evil.pth", "evil.bin"):
        with pytest.raises(InputError):
            read_torch(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello, no checkpoint", b"PK\x03\x04 broken"])
def test_damaged_files_are_input_errors(tmp_path, content):
    for name, read in (("x.pth", read_torch), ("x.safetensors", read_safetensors)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read(tmp_path / name)


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list"):
        read_torch(tmp_path / "list.pt")
    torch.save({"epoch": 3, "a": torch.ones(2)}, tmp_path / "flat.pt")
    with pytest.raises(InputError, match="'epoch' is a int"):
        read_torch(tmp_path / "flat.pt")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.empty(3, device="meta"), "'meta', without numbers"),
        (lambda: torch.ones(3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "complex64"),
        (lambda: torch.zeros(1).expand(10**12), "repeats 4 bytes"),
        (lambda: torch.zeros(1, dtype=torch.float16).expand(10**12), "repeats 2 bytes"),
    ],
)
def test_tensors_without_ordinary_numbers_are_refused_before_they_are_copied(tmp_path, make, what):
    torch.save({"conv.weight": make(), "b": torch.ones(2)}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=what) as caught:
        read_torch(tmp_path / "odd.pt")
    assert "odd.pt" in str(caught.value)
    assert "'conv.weight'" in str(caught.value)
    assert "torch.save" in str(caught.value)


def test_a_lightning_checkpoint_is_read(tmp_path):
    """Its other entries are plain containers; whatever is not would have to be executed, and is refused."""
    state = {"model.a": torch.ones(2, 3), "model.b": torch.zeros(2)}
    rest = {"epoch": 3, "pytorch-lightning_version": "2.5", "hyper_parameters": {"lr": 0.1}, "lr_schedulers": [{}]}
    torch.save({"state_dict": state, "optimizer_states": [{"state": {}}], **rest}, tmp_path / "last.ckpt")
    assert read_torch(tmp_path / "last.ckpt").keys() == {"state_dict.model.a", "state_dict.model.b"}


def test_views_are_read_as_what_they_show(tmp_path):
    """Transposed, sliced, small repeated and lazily negated tensors."""
    tensors = {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "sliced": torch.arange(6.0)[::2],
        "repeated": torch.ones(1).expand(5),
        "negated": torch._neg_view(torch.arange(3.0)),
    }
    torch.save(tensors, tmp_path / "views.pt")
    found = read_torch(tmp_path / "views.pt")
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value.resolve_neg().numpy())


def test_without_pytorch_the_error_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(InputError, match=r"pip install emokd\[torch\]"):
        read_torch(tmp_path / "x.pth")
