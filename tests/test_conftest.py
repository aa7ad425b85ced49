import warnings

import jax
import jax.numpy as jnp
import pytest


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
