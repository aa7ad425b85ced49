"""Every fusion in ONNX Runtime beside JAX, with modalities absent from some examples."""

import jax
import numpy as np
import pytest
from exporting_setup import export_and_run, random_weights, relative
from flax import nnx

from emokd.models.fusion import create_fusion

OPTIONS = [
    ("concatenation", {}),
    ("joint_cross_attention", {"hidden": 3}),
    ("transformer", {}),
    ("transformer", {"attend": "batch"}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_a_fusion_says_the_same_in_onnx_runtime(name, options):
    module = nnx.eval_shape(lambda: create_fusion(name, 2, 4, rngs=nnx.Rngs(0), **options))
    definition, params = nnx.split(module, nnx.Param)
    weights = random_weights(nnx.to_pure_dict(params), np.random.default_rng(0))

    def function(arrays):
        return {"fused": nnx.merge(definition, weights)(arrays["tokens"], arrays["present"] > 0)}

    tokens = np.random.default_rng(1).normal(size=(3, 2, 4)).astype(np.float32)
    present = np.array([[1, 1], [1, 0], [0, 1]], np.float32)
    arrays = {"tokens": np.where(present[..., None] > 0, tokens, np.float32("nan")), "present": present}
    _, found = export_and_run(function, arrays)
    assert np.isfinite(found["fused"]).all()
    assert relative(found["fused"], jax.jit(function)(arrays)["fused"]) < 1e-5
