"""One step of phases that compare examples, on one and on eight devices: the same parameters, metrics and statistics.

Those of SMKD's `distill` and MT-PKDOT's `student` have tests of their own in tests/recipes.
"""

import jax
import numpy as np
import pytest
import small_steps

from emokd.benchmarking.program import find_collectives


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        pytest.param("supervised", "train", marks=pytest.mark.slow),
        ("bounded", "distill"),
        ("mtpkdot", "hallucinate"),
    ],
)
def test_a_step_on_one_and_on_eight_devices(name, phase):
    found = {}
    for devices in (1, 8):
        small = small_steps.create(name, devices)
        before = small.state()
        start = jax.device_get((before.params, before.stats))
        step = small.step(phase, before)
        leaves, metrics = step(step.flatten(before), small.constants, small.sharded())
        after = step.unflatten(leaves)
        ended = jax.device_get((after.params, after.stats))
        found[devices] = jax.device_get((*ended, metrics))
        assert bool(find_collectives(step.compiled.as_text())) is (devices > 1)
        moved = [np.abs(new - old).max() for new, old in zip(*map(jax.tree.leaves, (ended, start)), strict=True)]
        assert max(moved) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found[1], found[8])
