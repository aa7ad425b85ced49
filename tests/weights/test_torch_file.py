"""Reading PyTorch and safetensors files: what is read, and that nothing is executed."""

import builtins
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from emokd.errors import InputError
from emokd.weights.torch_file import read_safetensors, read_torch


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_pytorch_wrote(tmp_path, zipped):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": module.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    found = read_torch(path)
    assert found.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(found[name], value.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(tmp_path, dtype):
    state = {"a": torch.tensor([1.5, -0.25]).to(dtype)}
    torch.save(state, tmp_path / "a.pt")
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
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
    assert len(remedy) == 2
    # The remedy, followed to the letter, works.
    previous = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec("\n".join(remedy), {"torch": torch})
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
    torch.save({"epoch": 3, "weights": {"a": torch.ones(2)}}, tmp_path / "nested.pt")
    with pytest.raises(InputError, match="'epoch' is a int"):
        read_torch(tmp_path / "nested.pt")
    torch.save({"a": torch.eye(2).to_sparse()}, tmp_path / "sparse.pt")
    with pytest.raises(InputError, match="sparse"):
        read_torch(tmp_path / "sparse.pt")


def test_without_pytorch_the_error_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(InputError, match=r"pip install emokd\[torch\]"):
        read_torch(tmp_path / "x.pth")
