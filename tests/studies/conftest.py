import types

import pytest

from emokd.studies import run as runs

BASE = """
from emokd.recipes import supervised

def get_config(arg="plain"):
    config = supervised.default_config()
    config.update({"seed": 0, "method": arg, "strength": 1.0, "devices": 0, "warmup_epochs": 2.0})
    config.data.source, config.data.fold = "manifest", 0
    return config
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(BASE)
    return str(path)


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """A full garbage collection takes half a second with JAX loaded, and frees nothing here."""
    monkeypatch.setattr(runs, "memory", types.SimpleNamespace(release=lambda keep: None))
