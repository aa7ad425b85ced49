"""Fixtures of small SMKD jobs."""

import pytest
from recipes_setup import SIZE, make_config, make_models

from emokd.data import sources


@pytest.fixture
def config():
    return make_config()


@pytest.fixture
def models():
    return make_models()


@pytest.fixture
def examples():
    return sources.load("painter", "", {"size": SIZE, "train": 24, "validation": 8, "test": 9, "seed": 0})
