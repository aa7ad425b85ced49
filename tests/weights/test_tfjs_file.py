"""Reading TensorFlow.js manifests: numbers against NumPy, and everything that is to be refused before it is read."""

import json

import numpy as np
import pytest

from emokd.errors import InputError
from emokd.weights.tfjs_file import read_tfjs


def write(folder, weights, raw, paths=("x-shard1of1",), **changes):
    (folder / "x-shard1of1").write_bytes(raw)
    path = folder / "x-weights_manifest.json"
    path.write_text(json.dumps([{"paths": list(paths), "weights": weights, **changes}]))
    return path


def entry(name="a", shape=(2, 3), dtype="float32", **more):
    return {"name": name, "shape": list(shape), "dtype": dtype, **more}


def test_reads_every_kind_of_number(tmp_path):
    random = np.random.default_rng(0)
    plain = random.normal(size=(2, 3)).astype("<f4")
    bytes_, words = random.integers(0, 256, 5, dtype=np.uint8), random.integers(0, 65536, (1, 4), dtype=np.uint16)
    half, scalar = random.normal(size=3).astype("<f2"), np.array(7, "<i4")
    weights = [
        entry("plain"),
        entry("bytes", (5,), quantization={"dtype": "uint8", "scale": 0.1, "min": -3.5}),
        entry("words", (1, 4), quantization={"dtype": "uint16", "scale": 1e-4, "min": 2}),
        entry("half", (3,), quantization={"dtype": "float16"}),
        entry("scalar", (), "int32"),
    ]
    found = read_tfjs(write(tmp_path, weights, b"".join(a.tobytes() for a in (plain, bytes_, words, half, scalar))))
    np.testing.assert_array_equal(found["plain"], plain)
    np.testing.assert_allclose(found["bytes"], bytes_ * 0.1 - 3.5, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["words"], words * 1e-4 + 2, rtol=1e-6)
    np.testing.assert_array_equal(found["half"], half.astype(np.float32))
    assert found["scalar"] == 7
    assert {name: a.dtype.name for name, a in found.items() if name != "scalar"} == dict.fromkeys(
        ("plain", "bytes", "words", "half"), "float32"
    )


def test_several_groups_and_a_model_json(tmp_path):
    groups = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(np.full(6, ord(name), "<f4").tobytes())
        groups.append({"paths": [name], "weights": [entry(name)]})
    (tmp_path / "model.json").write_text(json.dumps({"modelTopology": {}, "weightsManifest": groups}))
    found = read_tfjs(tmp_path / "model.json")
    assert found["a"][0, 0] == ord("a")
    assert found["b"][1, 2] == ord("b")


@pytest.mark.parametrize(
    ("weights", "raw", "paths", "message"),
    [
        ([entry()], b"\0" * 24, ["gone-shard1"], "needs gone-shard1 beside it"),
        ([entry()], b"\0" * 20, ["x-shard1of1"], "take 24 bytes, but x-shard1of1 hold 20"),
        ([entry()], b"\0" * 25, ["x-shard1of1"], "hold 25.*Fetch the manifest and all its files again"),
        ([entry(shape=[10**9, 10**9])], b"\0" * 24, ["x-shard1of1"], "take 4,000,000,000,000,000,000 bytes"),
        ([entry(dtype="string")], b"\0" * 24, ["x-shard1of1"], "'a' is stored as 'string'.*Known: float32"),
        ([entry(dtype=["float32"])], b"\0" * 24, ["x-shard1of1"], "'a' is stored as .*float32.*which cannot be read"),
        ([entry(shape=[2, -3])], b"\0" * 24, ["x-shard1of1"], "shape of 'a' is"),
        ([entry(shape=[2, "3"])], b"\0" * 24, ["x-shard1of1"], "shape of 'a' is"),
        ([entry(quantization={"dtype": "uint8"})], b"\0" * 6, ["x-shard1of1"], "'a' has no scale and min"),
        ([entry(), entry()], b"\0" * 48, ["x-shard1of1"], "'a' twice"),
        ([{"shape": []}], b"", ["x-shard1of1"], "has no name"),
        ([entry()], b"\0" * 24, ["../x-shard1of1"], "not beside it"),
        ([entry()], b"\0" * 24, ["https://x/y"], "not beside it"),
    ],
)
def test_what_does_not_hold_together_is_refused(tmp_path, weights, raw, paths, message):
    path = write(tmp_path, weights, raw, paths)
    with pytest.raises(InputError, match=message) as caught:
        read_tfjs(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "[1]", '{"weightsManifest": 3}', "[" * 100_000, "null"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x.json (is no manifest|cannot be read as JSON)"):
        read_tfjs(tmp_path / "x.json")


def test_the_index_of_weights_in_several_files_is_no_manifest(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"conv.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(InputError, match=r"model.safetensors.index.json is the index .* Join them"):
        read_tfjs(path)
