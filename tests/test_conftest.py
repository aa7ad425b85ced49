import ast
import pathlib
import warnings

import jax
import jax.numpy as jnp
import pytest
from lazily import Lazily


def test_compilations_are_counted(compilations):
    double = jax.jit(lambda x: x * 2)
    short, long = jnp.zeros(3), jnp.zeros(5)
    before = len(compilations)
    double(short)
    assert len(compilations) == before + 1
    double(short)
    assert len(compilations) == before + 1
    double(long)
    assert len(compilations) == before + 2


def test_warnings_are_errors():
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_dtypes_and_ranks_are_strict():
    with pytest.raises(ValueError, match="promotion"):
        jnp.zeros(2, jnp.float32) + jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="rank"):
        jnp.zeros((2, 2)) + jnp.zeros(2)
    assert jax.device_count() == 8


SLOW = {"torch", "transformers", "geomloss", "sklearn", "onnxruntime"}


def slow_imports(source: str) -> list[str]:
    """The slow modules that a file imports when it is collected, not in a function."""
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [name.name for node in imports for name in node.names if isinstance(node, ast.Import)]
    names += [node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module]
    return [name for name in names if name.split(".")[0] in SLOW or name == "safetensors.torch"]


def test_collecting_the_tests_imports_nothing_slow():
    """Only reference networks (torch_*.py) import PyTorch at once; tests import those lazily."""
    assert slow_imports("import numpy\nfrom torch.nn import functional\nimport sklearn.metrics") == [
        "sklearn.metrics",
        "torch.nn",
    ]
    files = [file for file in pathlib.Path(__file__).parent.rglob("*.py") if not file.name.startswith("torch_")]
    assert len(files) > 100
    assert {file.name: found for file in files if (found := slow_imports(file.read_text()))} == {}


def test_a_module_is_imported_when_it_is_used(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = Lazily("written_later")
    (tmp_path / "written_later.py").write_text("value = 3")
    assert module.value == 3
