"""Which examples have a label: by hand, for NumPy and JAX, traced and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emokd.labels import UNLABELLED, class_ids, has_any_value, has_class, has_value

IDS = np.array([0, 2, -1, -7, 1], np.int32)
VOTES = np.array([[0.5, 0.5, 0], [0, 0, 0], [0.1, 0.2, 0.7], [0, 1, 0]], np.float32)
AFFECT = np.array([[0.5, -0.5], [np.nan, np.nan], [0.0, np.nan]], np.float32)


@pytest.mark.parametrize("use", [np.asarray, jnp.asarray, "traced"])
@pytest.mark.parametrize(
    ("rule", "given", "wanted"),
    [
        (has_class, IDS, [True, True, False, False, True]),
        (has_class, VOTES, [True, False, True, True]),
        (class_ids, IDS, [0, 2, UNLABELLED, UNLABELLED, 1]),
        (class_ids, VOTES, [0, UNLABELLED, 2, 1]),
        (has_value, AFFECT, [[True, True], [False, False], [True, False]]),
        (has_any_value, AFFECT, [True, False, True]),
    ],
)
def test_the_rule(use, rule, given, wanted):
    found = jax.jit(rule)(given) if use == "traced" else rule(use(given))
    assert isinstance(found, np.ndarray if use is np.asarray else jax.Array)
    np.testing.assert_array_equal(found, wanted)


def test_votes_that_are_no_numbers_do_not_pass_for_unlabelled():
    assert has_class(np.array([[np.nan, 0.0]])).all()
