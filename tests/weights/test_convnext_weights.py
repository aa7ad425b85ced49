"""ConvNeXt files under the names of torchvision, timm and its authors, made of a tiny network of transformers."""

import re

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.weights import convnext
from emokd.weights.importing import find_layouts, import_file
from emokd.weights.inverse import find_names, from_foreign, to_foreign
from emokd.weights.mapping import TORCH, flatten

torch = Lazily("torch")
transformers = Lazily("transformers")

DEPTHS, WIDTHS = (1, 2), (4, 6)
TINY = {"depths": DEPTHS, "widths": WIDTHS}

# From the names of transformers, in this order.
RENAMED = {
    "torchvision": [
        (r"^convnext\.embeddings\.patch_embeddings", "features.0.0"),
        (r"^convnext\.embeddings\.layernorm", "features.0.1"),
        (r"^convnext\.encoder\.stages\.1\.downsampling_layer", "features.2"),
        (r"^convnext\.encoder\.stages\.0\.layers", "features.1"),
        (r"^convnext\.encoder\.stages\.1\.layers", "features.3"),
        (r"layer_scale_parameter", "layer_scale"),
        (r"dwconv", "block.0"),
        (r"(?<=\d\.)layernorm", "block.2"),
        (r"pwconv1", "block.3"),
        (r"pwconv2", "block.5"),
        (r"^classifier", "classifier.2"),
        (r"^convnext\.layernorm", "classifier.0"),
    ],
    "timm": [
        (r"^convnext\.embeddings\.patch_embeddings", "stem.0"),
        (r"^convnext\.embeddings\.layernorm", "stem.1"),
        (r"^convnext\.encoder\.stages\.1\.downsampling_layer", "stages.1.downsample"),
        (r"^convnext\.encoder\.stages\.(\d)\.layers", r"stages.\1.blocks"),
        (r"layer_scale_parameter", "gamma"),
        (r"dwconv", "conv_dw"),
        (r"(?<=\d\.)layernorm", "norm"),
        (r"pwconv", "mlp.fc"),
        (r"^classifier", "head.fc"),
        (r"^convnext\.layernorm", "head.norm"),
    ],
    "its authors": [
        (r"^convnext\.embeddings\.patch_embeddings", "downsample_layers.0.0"),
        (r"^convnext\.embeddings\.layernorm", "downsample_layers.0.1"),
        (r"^convnext\.encoder\.stages\.1\.downsampling_layer", "downsample_layers.1"),
        (r"^convnext\.encoder\.stages\.(\d)\.layers", r"stages.\1"),
        (r"layer_scale_parameter", "gamma"),
        (r"(?<=\d\.)layernorm", "norm"),
        (r"^classifier", "head"),
        (r"^convnext\.layernorm", "norm"),
    ],
}


@pytest.fixture(scope="module")
def theirs():
    """A network of two stages, every array of which is random."""
    config = transformers.ConvNextConfig(
        hidden_sizes=list(WIDTHS), depths=list(DEPTHS), num_stages=2, num_labels=5, image_size=32
    )
    network = transformers.ConvNextForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return network


def renamed(state, label):
    """A state dict under the names of a library, whose LayerScale has the shape that it has there."""
    found = {}
    for name, tensor in state.items():
        for pattern, new in RENAMED[label]:
            name = re.sub(pattern, new, name)
        found[name] = tensor.reshape(-1, 1, 1) if name.endswith("layer_scale") else tensor
    return found


@pytest.fixture(scope="module")
def answers(theirs):
    images = np.random.default_rng(0).normal(size=(2, 33, 38, 3)).astype(np.float32)
    with torch.no_grad():
        return images, theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()


@pytest.mark.parametrize("label", RENAMED)
def test_a_file_under_each_library_s_names_answers_as_transformers_does(theirs, answers, tmp_path, label):
    state = {f"module.{name}": tensor for name, tensor in renamed(theirs.state_dict(), label).items()}
    torch.save({"state_dict": state}, tmp_path / "c.pth")
    model = import_file("convnext_tiny", tmp_path / "c.pth", options=TINY, head="objects")
    images, expected = answers
    signals, _ = functional(model.spec)(model.params, model.stats, images)
    np.testing.assert_allclose(signals.intermediates["objects"], expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.1
    assert (model.spec.preprocessing.size, model.spec.preprocessing.mean) == (224, (0.485, 0.456, 0.406))


@pytest.mark.parametrize(
    ("label", "known"),
    [
        (
            "torchvision",
            {
                "features.0.0.weight": (96, 3, 4, 4),
                "features.1.0.gamma": (96,),
                "features.4.1.weight": (384, 192, 2, 2),
                "features.5.8.block.0.weight": (384, 1, 7, 7),
                "features.7.2.block.5.weight": (768, 3072),
                "classifier.0.bias": (768,),
                "classifier.2.weight": (1000, 768),
            },
        ),
        (
            "timm",
            {
                "stem.1.weight": (96,),
                "stages.0.blocks.0.gamma": (96,),
                "stages.2.downsample.1.weight": (384, 192, 2, 2),
                "stages.2.blocks.8.conv_dw.weight": (384, 1, 7, 7),
                "stages.3.blocks.2.mlp.fc2.weight": (768, 3072),
                "head.norm.bias": (768,),
                "head.fc.weight": (1000, 768),
            },
        ),
    ],
)
def test_arrays_of_the_whole_network_are_where_the_libraries_have_them(label, known):
    (names,) = [names for names in find_layouts("convnext_tiny") if names.label == label]
    sizes = {}
    for tree in functional(NetworkSpec("convnext_tiny", heads={"objects": 1000})).abstract:
        for path, leaf in flatten(tree).items():
            module, _, array = path.rpartition("/")
            sizes[TORCH.foreign_name(names.foreign_module(module), array)] = leaf.size
    assert len(sizes) == 182  # as torchvision's and timm's state dicts of convnext_tiny
    assert {name: sizes[name] for name in known} == {name: int(np.prod(shape)) for name, shape in known.items()}


@pytest.mark.parametrize("label", ["torchvision", "timm"])
def test_every_fault_of_a_file_is_listed(theirs, tmp_path, label):
    state = renamed(theirs.state_dict(), label)
    scale = next(name for name in state if name.endswith(("layer_scale", ".gamma")))
    first = next(iter(state))
    lost = state.pop(scale)
    state["grn.weight"] = torch.ones(3)  # as in ConvNeXt V2
    state[first] = state[first][:, :2]
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(InputError) as caught:
        import_file("convnext_tiny", tmp_path / "c.pth", options=TINY)
    assert "does not fit the model in 3 places" in str(caught.value)
    assert f"stages/0/0/gamma: expected {tuple(lost.reshape(-1).shape)} from" in str(caught.value)
    assert "'grn.weight': expected nowhere in the model" in str(caught.value)
    assert f"{first!r}: expected (4, 4, 3, 4), found (4, 4, 2, 4)" in str(caught.value)


def test_what_is_exported_is_torchvision_s_and_is_read_back(theirs, tmp_path):
    torch.save(renamed(theirs.state_dict(), "timm"), tmp_path / "c.pth")
    model = import_file("convnext_tiny", tmp_path / "c.pth", options=TINY)
    names = find_names(model.spec)
    written = to_foreign(model, names)
    expected = renamed(theirs.state_dict(), "torchvision")
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(written[name], tensor.numpy())
    again = from_foreign(written, model.spec, names, "file")
    for ours, copy in zip(jax.tree.leaves(model.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(ours, copy)


@pytest.mark.parametrize("naming", [convnext.torchvision, convnext.timm, convnext.authors])
@pytest.mark.parametrize("path", ["backbone/stages/1/0/squeeze", "backbone/stem/bias", "neck/conv"])
def test_unknown_modules_are_key_errors(naming, path):
    with pytest.raises(KeyError):
        naming(path)
