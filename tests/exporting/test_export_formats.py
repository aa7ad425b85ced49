"""The table of formats, StableHLO, and float16."""

import json
import subprocess
import sys

import numpy as np
import pytest
from exporting_setup import random_weights, relative

from emokd.errors import InputError
from emokd.exporting import examples
from emokd.exporting.export import export
from emokd.exporting.formats import FORMATS
from emokd.exporting.graph import BATCH, Graph
from emokd.exporting.half import to_half
from emokd.exporting.session import Session
from emokd.exporting.writing import to_model
from emokd.inference.forward import answers, create_forward
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights.model_folder import load_model, save_model

HEADS = {"expression": 3, "valence_arousal": 2}


@pytest.fixture(autouse=True)
def few_small_examples(monkeypatch):
    """Random examples to compare on, as many and as large as these tests need."""
    monkeypatch.setattr(examples, "EXAMPLES", 4)
    monkeypatch.setattr(examples, "_EDGE", 32)


def saved(folder, spec, **provenance):
    generator = np.random.default_rng(0)
    params, stats = (random_weights(tree, generator) for tree in functional(spec).abstract)
    save_model(folder, spec, params, stats, provenance)
    return folder


@pytest.fixture
def pictures(tmp_path):
    spec = NetworkSpec("basic_cnn", {"width": 2, "size": 32}, HEADS, {}, Preprocessing(size=32))
    return saved(tmp_path / "student", spec)


def wanted_and_pictures(folder):
    """The network's answers for random canvases, and the canvases normalised."""
    canvases = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    spec, params, stats, _ = load_model(folder)
    wanted = answers(spec, create_forward(spec)(params, stats, {"image": canvases}))
    return wanted, np.asarray(spec.preprocessing(np.asarray(canvases / 255, np.float32)))


def test_every_format_is_told_apart():
    assert all(name == each.name and each.file.endswith(each.suffixes[0]) for name, each in FORMATS.items())
    assert len({each.file for each in FORMATS.values()}) == len(FORMATS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "stablehl"}, r"no format 'stablehl'. Did you mean 'stablehlo'\? Known: onnx"),
        ({"precision": "float8"}, r"no precision 'float8' for the format onnx. Did you mean 'float32'\?"),
        ({"format": "torch", "precision": "int8"}, "no precision 'int8' for the format torch. Known: float32"),
        ({"format": "stablehlo", "preprocess": True}, "--preprocess is for the format onnx"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export(tmp_path / "nothing", tmp_path / "model.safetensors", **options)


RUN = """
import sys, numpy as np, jax
assert "emokd" not in sys.modules
run = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read())).call
for rows in (3, 1):
    found = run({"image": np.load(sys.argv[2])[:rows]})
    np.savez(f"{sys.argv[3]}{rows}.npz", **{name: np.asarray(value) for name, value in found.items()})
"""


@pytest.mark.slow
def test_a_stablehlo_file_runs_in_a_process_without_emokd(pictures, tmp_path):
    pytest.importorskip("flatbuffers", reason="the extra `stablehlo` is not installed")
    written = export(pictures, tmp_path / "out" / "model.stablehlo", format="stablehlo", timed=False)
    assert written["inputs"]["image"]["shape"] == ["batch", 32, 32, 3]
    assert set(written["file"]["platforms"]) == {"cpu", "cuda", "tpu"}
    wanted, normalised = wanted_and_pictures(pictures)
    np.save(tmp_path / "pictures.npy", normalised)
    arguments = [str(tmp_path / name) for name in ("out/model.stablehlo", "pictures.npy", "found")]
    subprocess.run([sys.executable, "-c", RUN, *arguments], check=True, cwd=tmp_path, timeout=200)
    for rows in (3, 1):
        found = np.load(tmp_path / f"found{rows}.npz")
        assert set(found) == {"expression", "valence_arousal"}
        for name in found:
            np.testing.assert_allclose(found[name], wanted[name][:rows], atol=1e-5)


def test_arrays_go_into_a_stablehlo_file_in_the_training_s_units(tmp_path):
    pytest.importorskip("flatbuffers", reason="the extra `stablehlo` is not installed")
    spec = MultimodalSpec(
        {"eye": ModalitySpec("features/eye", (5,), "mlp", {"widths": (8,)})},
        (), 8, "transformer", {}, {"encoder": (8, 4), "decoder": (8,)}, {"expression": 3}, {},
    )  # fmt: skip
    references = {"features/eye": {"centre": [7.0, 0, 0, 0, 0], "unit": [2.0, 1, 1, 1, 0]}}
    folder = saved(tmp_path / "student", spec, references=references)
    eye = export(folder, tmp_path / "out" / "m.stablehlo", format="stablehlo", timed=False)["inputs"]["eye"]
    assert (eye["dtype"], eye["reference"]["unit"]) == ("float32", [2.0, 1, 1, 1, 0])
    assert eye["reference"]["centre"][0] == 7
    assert "(value - centre) / unit of `reference`" in (tmp_path / "out" / "README.md").read_text()


def test_flatbuffers_is_named_with_its_extra(pictures, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("flatbuffers", "jax._src.export.serialization"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InputError, match=r"flatbuffers.*pip install emokd\[stablehlo\]"):
        export(pictures, tmp_path / "model.stablehlo", format="stablehlo", timed=False)


def test_a_float16_file_stores_float16_and_says_nearly_the_same(pictures, tmp_path):
    import onnx

    full = export(pictures, tmp_path / "full" / "model.onnx", timed=False)
    written = export(pictures, tmp_path / "half" / "model.onnx", precision="float16", timed=False)
    assert written["precision"]["exported"] == "float16"
    assert written["check"]["bound"] == 1e-2
    assert written["bytes"] < 0.7 * full["bytes"]
    content = (tmp_path / "half" / "model.onnx").read_bytes()
    graph = onnx.load_from_string(content).graph
    assert onnx.TensorProto.FLOAT not in {each.data_type for each in graph.initializer}
    assert {value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]} == {onnx.TensorProto.FLOAT}
    wanted, normalised = wanted_and_pictures(pictures)
    found = Session(content)({"image": normalised.transpose(0, 3, 1, 2)})
    for name, values in found.items():
        assert 0 < relative(values, wanted[name]) < 1e-2


def test_numbers_beyond_float16_become_its_largest():
    graph = Graph()
    source = graph.input("x", (BATCH, 2), np.float32)
    graph.outputs["y"] = graph.add("Min", [source, graph.constant(np.asarray([1e9, 1.0], np.float32))], (BATCH, 2))
    to_half(graph)
    found = Session(to_model(graph, "0").SerializeToString())({"x": np.asarray([[7, 7]], np.float32)})
    np.testing.assert_array_equal(found["y"], [[7, 1]])


def test_float16_preprocessing_of_pictures_stays_exact_enough(pictures, tmp_path):
    written = export(pictures, tmp_path / "out" / "m.onnx", precision="float16", preprocess=True, timed=False)
    assert json.loads((tmp_path / "out" / "student.json").read_text()) == written
    assert max(written["check"]["largest_difference"].values()) < 1e-2
