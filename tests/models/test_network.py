"""Networks as pure functions: the parameters that they begin with."""

import jax
import numpy as np
from flax import nnx

from emokd.models.network import NetworkSpec, functional


def test_fresh_parameters_are_those_of_flaxs_own_source_of_keys():
    spec = NetworkSpec("conv1d", {"shape": [16, 2], "width": 2}, {"expression": 3, "mood": 2})
    network = functional(spec)
    _, params, stats = nnx.split(spec.make(nnx.Rngs(jax.random.key(5))), nnx.Param, nnx.BatchStat)
    theirs = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    ours = network.init(jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert jax.tree.map(jax.typeof, ours) == jax.tree.map(jax.typeof, network.abstract)
    # Each array has a key of its own.
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(ours[0]) if path[-1].key == "kernel"]
    assert len({float(kernel.ravel()[0]) for kernel in kernels}) == len(kernels) > 3
