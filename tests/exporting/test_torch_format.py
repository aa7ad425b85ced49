"""PyTorch state dicts: back through the importer, and into networks that others wrote."""

import json

import numpy as np
import pytest
from exporting_setup import random_weights

from emokd.errors import InputError
from emokd.exporting import examples
from emokd.exporting.export import export
from emokd.exporting.formats import torch as torch_format
from emokd.inference.forward import answers, create_forward
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights.importing import import_file
from emokd.weights.inverse import find_names, from_foreign, head_rows, to_foreign
from emokd.weights.mapping import flatten
from emokd.weights.model_folder import save_model

HEADS = {"expression": 3, "valence_arousal": 2}
MIRRORED = {
    "recipe": "smkd",
    "seed": 3,
    "mirror": True,
    "data": {"source": "painter", "canvas": 32, "fit": "crop", "split": {"seed": 7, "fold": 0, "folds": 0}},
}


@pytest.fixture(autouse=True)
def few_small_examples(monkeypatch):
    """Random examples to compare on, as many and as large as these tests need."""
    monkeypatch.setattr(examples, "EXAMPLES", 4)
    monkeypatch.setattr(examples, "_EDGE", 32)


def model_of(spec):
    generator = np.random.default_rng(0)
    params, stats = (random_weights(tree, generator) for tree in functional(spec).abstract)
    return TrainedModel(spec, params, stats, origin="random")


@pytest.mark.parametrize(
    ("backbone", "options", "label"),
    [
        ("mobilenet_v2", {"width": 0.1}, "torchvision"),
        pytest.param("resnet18", {}, "", marks=pytest.mark.slow),
        pytest.param("resnet50", {}, "", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", {}, "timm", marks=pytest.mark.slow),
        ("efficientnet_b0", {"style": "pytorch"}, "torchvision"),
        ("efficientnet_lite0", {"style": "pytorch"}, "timm"),
        ("efficientformer_l1", {}, ""),
        ("emonet", {}, ""),
    ],
)
def test_what_is_written_is_read_back_as_it_was(backbone, options, label):
    model = model_of(NetworkSpec(backbone, options, HEADS))
    names = find_names(model.spec)
    assert names.label == label
    found = from_foreign(to_foreign(model, names), model.spec, names, "file")
    wanted = {**flatten(model.params), **flatten(model.stats)}
    leaves = {**flatten(found.params), **flatten(found.stats)}
    for path, array in wanted.items():
        if path in leaves:
            np.testing.assert_array_equal(leaves.pop(path), array)
    # What is left is the joined head, where the file has no heads of its own.
    for path, array in leaves.items():
        leaf = path.rpartition("/")[2]
        heads = [wanted[f"heads/{name}/{leaf}"] for name in HEADS]
        np.testing.assert_array_equal(array, np.concatenate(heads, -1))
    assert len(leaves) == (0 if backbone == "emonet" else 2)


def saved(folder, spec, **config):
    model = model_of(spec)
    save_model(folder, spec, model.params, model.stats, {"config": json.dumps(config)} if config else {})
    return model


UNITS = {"convolution": "0", "normalization": "1"}


def torchvisions_name(name):
    """The name in torchvision's MobileNetV2 of one in transformers', from the code of both."""
    parts = name.removeprefix("mobilenet_v2.").split(".")
    if parts[0] == "classifier":
        return f"classifier.1.{parts[1]}"
    *place, unit, leaf = parts
    match place:
        case ["conv_stem", "first_conv"]:
            return f"features.0.{UNITS[unit]}.{leaf}"
        case ["conv_stem", part]:
            block, index = 1, {"conv_3x3": 0, "reduce_1x1": 1}[part]
        case ["layer", number, part]:
            block, index = int(number) + 2, {"expand_1x1": 0, "conv_3x3": 1, "reduce_1x1": 2}[part]
        case ["conv_1x1"]:
            return f"features.18.{UNITS[unit]}.{leaf}"
    inner = index + int(UNITS[unit]) if part == "reduce_1x1" else f"{index}.{UNITS[unit]}"
    return f"features.{block}.conv.{inner}.{leaf}"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_transformers_mobilenet_takes_the_file_strictly_and_says_the_same(tmp_path, monkeypatch, suffix):
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    monkeypatch.setattr(torch_format, "_find_network", lambda spec: None)
    # Of width 0.35: at smaller ones the first block adds its input, which transformers' does not.
    spec = NetworkSpec("mobilenet_v2", {"width": 0.35, "size": 32}, HEADS, {}, Preprocessing(size=32))
    model = saved(tmp_path / "student", spec)
    output = tmp_path / "out" / f"model{suffix}"
    written = export(tmp_path / "student", output, format="torch", timed=False)
    assert written["file"]["rows"] == {"expression": [0, 3], "valence_arousal": [3, 5]}
    assert written["check"]["runtime"].startswith("JAX, read back")

    read = torch_format.read(output.read_bytes(), suffix)
    config = MobileNetV2Config(depth_multiplier=0.35, tf_padding=False, layer_norm_eps=1e-5, num_labels=5)
    theirs = MobileNetV2ForImageClassification(config).eval()
    state = {
        name: torch.from_numpy(read.pop(torchvisions_name(name)).copy())
        for name in theirs.state_dict()
        if not name.endswith("num_batches_tracked")
    }
    assert not read  # every array of the file has its place
    lacking = theirs.load_state_dict(state, strict=False)
    assert not lacking.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in lacking.missing_keys)
    canvases = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pictures = np.asarray(spec.preprocessing(np.asarray(canvases / 255, np.float32)))
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())).logits
    wanted = answers(spec, create_forward(spec)(model.params, model.stats, {"image": canvases}))
    rows = head_rows(spec.heads)
    np.testing.assert_allclose(outputs[:, rows["expression"]].softmax(-1), wanted["expression"], atol=1e-5)
    np.testing.assert_allclose(outputs[:, rows["valence_arousal"]].clip(-1, 1), wanted["valence_arousal"], atol=1e-4)

    if suffix == ".safetensors":
        again = import_file("mobilenet_v2", output, options={"width": 0.35})
        for path, array in flatten(model.params["backbone"]).items():
            np.testing.assert_array_equal(flatten(again.params["backbone"])[path], array)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "backbone", "options"),
    [
        ("torchvision", "mobilenet_v2", {"width": 0.35}),
        ("torchvision", "resnet18", {}),
        ("torchvision", "efficientnet_b0", {"style": "pytorch"}),
        ("timm", "efficientnet_b0", {}),
        ("timm", "efficientnet_lite0", {"style": "pytorch"}),
        ("timm", "efficientformer_l1", {}),
    ],
)
def test_the_library_s_own_network_takes_the_file_strictly(tmp_path, library, backbone, options):
    pytest.importorskip(library, reason=f"{library} is not installed; it is in no extra")
    size = 224 if backbone.startswith("efficientformer") else 64
    spec = NetworkSpec(backbone, options, HEADS, {}, Preprocessing(size=size))
    saved(tmp_path / "student", spec, **MIRRORED)
    written = export(tmp_path / "student", tmp_path / "model.safetensors", format="torch", timed=False)
    assert written["check"]["runtime"] == f"PyTorch, the network of {library}"


def test_what_has_no_names_in_pytorch_is_refused(tmp_path):
    spec = NetworkSpec("basic_cnn", {"width": 2, "size": 32}, HEADS, {}, Preprocessing(size=32))
    saved(tmp_path / "student", spec)
    with pytest.raises(InputError, match="no names of a PyTorch network .* 'basic_cnn'.*--format=onnx"):
        export(tmp_path / "student", tmp_path / "out" / "model.pth", format="torch", timed=False)
    with pytest.raises(InputError, match=r"ends in .safetensors, .pth, .pt"):
        export(tmp_path / "student", tmp_path / "out" / "model.bin", format="torch", timed=False)
    assert not (tmp_path / "out").exists()


def test_a_file_that_lost_an_array_is_noticed():
    model = model_of(NetworkSpec("mobilenet_v2", {"width": 0.1}, HEADS))
    names = find_names(model.spec)
    arrays = to_foreign(model, names)
    del arrays["features.3.conv.0.0.weight"]
    with pytest.raises(InputError, match="features.3.conv.0.0.weight"):
        from_foreign(arrays, model.spec, names, "file")
