"""`benchmarks/export.py` compares like with like: the file that it times is the network beside it."""

import pathlib
import sys

import exporting_setup  # noqa: F401  (skips these tests without the extra `export`)
import jax
import numpy as np

from emokd.inference.onnx_engine import Session
from emokd.models.network import functional

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import export as benchmark  # noqa: E402


def test_the_exported_file_is_the_network_that_is_timed():
    spec = benchmark.create_spec("basic_cnn:width=2@32")
    picture = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    params, stats = jax.jit(functional(spec).init)(jax.random.key(0))
    signals, _ = jax.jit(functional(spec))(params, stats, picture)
    session = Session(benchmark.exported("basic_cnn:width=2@32"), threads=1)
    found = session({"image": picture.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(found["expression"], jax.nn.softmax(signals.logits), atol=1e-6)
    np.testing.assert_allclose(found["valence_arousal"], np.clip(signals.valence_arousal, -1, 1), atol=1e-6)
