"""EfficientFormer against transformers' one, whose weights take the way through a file in the authors' layout."""

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.efficientformer import EfficientFormer
from emokd.models.network import Functional, Network, NetworkSpec, functional
from emokd.weights.efficientformer import foreign_module, prepare
from emokd.weights.importing import import_file
from emokd.weights.mapping import TORCH, convert, flatten

torch = Lazily("torch")
transformers_efficientformer = Lazily("transformers.models.deprecated.efficientformer")

SMALL = ((1, 1, 1, 2), (8, 12, 16, 24), 1)
CASES = {
    "efficientformer_l1": ((3, 2, 6, 4), (48, 96, 224, 448), 1),
    "efficientformer_l3": ((4, 4, 12, 6), (64, 128, 320, 512), 4),
    "efficientformer_l7": ((6, 6, 18, 8), (96, 192, 384, 768), 8),
}


def create_reference(depths, widths, attention_blocks, classes=10):
    config = transformers_efficientformer.EfficientFormerConfig(
        depths=list(depths),
        hidden_sizes=list(widths),
        hidden_size=widths[-1],
        dim=widths[-1],
        num_meta3d_blocks=attention_blocks,
        layer_norm_eps=1e-5,
        num_labels=classes,
    )
    return transformers_efficientformer.EfficientFormerForImageClassificationWithTeacher(config)


def make_reference(depths, widths, attention_blocks, seed=0):
    """Random parameters, layer scales and running statistics; activations stay of order one."""
    model = create_reference(depths, widths, attention_blocks)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith(("running_var", "layernorm1.weight", "layernorm2.weight")) or "layer_scale" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif "attention_biases" in name:
                tensor.copy_(noise)
            elif tensor.ndim > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(0.3 * noise)
    return model.train().eval()  # it lays out its attention biases when the mode changes


def authors_names(state, depths, attention_blocks):
    """Renames the state dict of transformers' EfficientFormer into that of github.com/snap-research/EfficientFormer."""
    flat = depths[-1] - attention_blocks  # place of the layer without weights that flattens the map
    token_names = {"layernorm1": "norm1", "layernorm2": "norm2", "linear_in": "fc1", "linear_out": "fc2"}
    map_names = {"batchnorm_before": "norm1", "batchnorm_after": "norm2", "convolution1": "fc1", "convolution2": "fc2"}
    stem_names = {"convolution1": "0", "batchnorm_before": "1", "convolution2": "3", "batchnorm_after": "4"}
    heads = {"classifier": "head", "distillation_classifier": "dist_head"}
    renamed = {}
    for key, value in state.items():
        match key.removeprefix("efficientformer.").split("."):
            case ["patch_embed", layer, leaf]:
                parts = ["patch_embed", stem_names[layer], leaf]
            case ["encoder", "intermediate_stages", stage, "meta4D_layers", "blocks", block, *rest]:
                parts = ["network", stage, block, *(map_names.get(part, part) for part in rest)]
            case ["encoder", "intermediate_stages", stage, *rest]:
                parts = ["network", stage, *(part.replace("projection", "proj") for part in rest)]
            case ["encoder", "last_stage", "meta4D_layers", "blocks", block, *rest]:
                parts = ["network", "6", block, *(map_names.get(part, part) for part in rest)]
            case ["encoder", "last_stage", "meta3D_layers", "blocks", block, *rest]:
                rest = [token_names.get(part, part).replace("projection", "proj") for part in rest]
                parts = ["network", "6", str(flat + 1 + int(block)), *rest]
            case ["layernorm", leaf]:
                parts = ["norm", leaf]
            case [head, leaf]:
                parts = [heads[head], leaf]
        renamed[".".join(parts)] = value
    return renamed


def arrays(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def as_torch(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


def images(count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 224, 224, 3)).astype(np.float32)


def assert_close(found, expected, rtol=1e-4):
    """Within `rtol` of each value, or of the typical one for values near zero."""
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.std(expected))


@pytest.fixture(scope="module")
def l1(tmp_path_factory):
    """transformers' L1, its state under the authors' names, and the file that holds it."""
    depths, widths, attention_blocks = CASES["efficientformer_l1"]
    reference = make_reference(depths, widths, attention_blocks)
    state = authors_names(reference.state_dict(), depths, attention_blocks)
    path = tmp_path_factory.mktemp("weights") / "efficientformer_l1_300d.pth"
    torch.save({"model": state}, path)
    return reference, state, path


def check_parity(name, reference, path, count):
    model = import_file(name, path, head="objects")
    assert model.spec.heads == {"objects": 10}
    assert model.spec.preprocessing.size == 224
    pictures = images(count)
    with torch.no_grad():
        tokens = reference.efficientformer(as_torch(pictures)).last_hidden_state.numpy()
        logits = reference(as_torch(pictures)).logits.numpy()
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, pictures)
    assert_close(signals.features, tokens.mean(1))
    assert_close(signals.intermediates["map"].reshape(tokens.shape), tokens)
    assert_close(signals.intermediates["objects"], logits)


def test_l1_agrees_with_transformers(l1):
    reference, _, path = l1
    check_parity("efficientformer_l1", reference, path, count=2)


@pytest.mark.slow
def test_l3_agrees_with_transformers(tmp_path):
    depths, widths, attention_blocks = CASES["efficientformer_l3"]
    reference = make_reference(depths, widths, attention_blocks)
    torch.save({"model": authors_names(reference.state_dict(), depths, attention_blocks)}, tmp_path / "l3.pth")
    check_parity("efficientformer_l3", reference, tmp_path / "l3.pth", count=1)


@pytest.mark.parametrize("name", ["efficientformer_l3", "efficientformer_l7"])
def test_every_array_has_its_place(name):
    """Names and sizes, without the arrays."""
    depths, widths, attention_blocks = CASES[name]
    with torch.device("meta"):
        state = create_reference(depths, widths, attention_blocks).state_dict()
    expected = {key: value.numel() for key, value in authors_names(state, depths, attention_blocks).items()}
    ignored = ("attention_bias_idxs", "num_batches_tracked")
    expected = {
        key: size for key, size in expected.items() if not key.startswith("dist_head") and not key.endswith(ignored)
    }
    found = {}
    for tree in functional(NetworkSpec(name, heads={"objects": 10})).abstract:
        for path, leaf in flatten(tree).items():
            module, _, array = path.rpartition("/")
            found[TORCH.foreign_name(foreign_module(module), array)] = leaf.size
    assert found == expected


def test_gradients_and_statistics_agree_with_transformers_in_training():
    """A small network, every parameter."""
    depths, widths, attention_blocks = SMALL
    reference = make_reference(depths, widths, attention_blocks).train()
    network = Functional(lambda rngs: Network(EfficientFormer(*SMALL, rngs=rngs), {"mood": 10}, rngs=rngs))
    state = prepare(arrays(authors_names(reference.state_dict(), depths, attention_blocks)))
    state = {name: value.copy() for name, value in state.items()}  # training moves the originals
    params, stats = convert(state, network.abstract, foreign_module)
    pictures, weights = images(), np.random.default_rng(1).normal(size=(2, 10)).astype(np.float32)

    (reference(as_torch(pictures)).logits * torch.tensor(weights)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for kind in ("weight", "bias"):  # both heads see half of the cotangent, ours the whole
        for head in ("classifier", "distillation_classifier"):
            gradients[f"{head}.{kind}"] *= 2
    moved = arrays(authors_names({**reference.state_dict(), **gradients}, depths, attention_blocks))
    expected, expected_stats = convert(prepare(moved), network.abstract, foreign_module)

    def loss(params, stats):
        signals, new_stats = network(params, stats, pictures, train=True)
        return (signals.intermediates["mood"] * weights).sum(), new_stats

    found, found_stats = jax.jit(jax.grad(loss, has_aux=True))(params, stats)
    # A bias that a BatchNorm takes away again has no gradient but rounding errors.
    useless = {"stem/0", "stem/1", "downsamples/0", "downsamples/1", "downsamples/2", "expand", "project"}
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    found, expected = flatten(found), flatten(expected)
    for path, value in expected.items():
        if path.endswith("conv/bias"):
            assert path.removesuffix("/conv/bias").endswith(tuple(useless))
            assert np.abs(found[path]).max() < 1e-4 * largest
        else:
            np.testing.assert_allclose(found[path], value, rtol=5e-3, atol=5e-3 * np.std(value) + 1e-7, err_msg=path)
    found_stats = flatten(found_stats)
    for path, value in flatten(expected_stats).items():
        # Flax keeps the biased variance, PyTorch the unbiased one: of 2 * 49 values at least, hence 1% apart at most.
        rtol = 1.1e-2 if path.endswith("var") else 1e-3
        np.testing.assert_allclose(found_stats[path], value, rtol=rtol, atol=1e-5, err_msg=path)


@pytest.fixture(scope="module")
def fit():
    """Converts a state for L1 as the importer does, without a file."""
    network = functional(NetworkSpec("efficientformer_l1", heads={"objects": 10}))
    return lambda state: convert(prepare(arrays(state)), network.abstract, foreign_module)


def test_the_two_heads_become_their_mean(l1, fit):
    _, state, path = l1
    head, distilled = state["head.weight"].numpy(), state["dist_head.weight"].numpy()
    kernel = fit(state)[0]["heads"]["objects"]["kernel"]
    np.testing.assert_allclose(kernel, (head + distilled).T / 2, rtol=1e-6)
    alone = import_file("efficientformer_l1", path, leave_out=["dist_head"]).params
    np.testing.assert_array_equal(alone["heads"]["pretrained"]["kernel"], head.T)
    assert import_file("efficientformer_l1", path, leave_out=["head", "dist_head"]).spec.heads == {}


def test_arrays_without_weights_are_ignored(l1, fit):
    _, state, _ = l1
    assert "network.6.4.token_mixer.attention_bias_idxs" in state
    more = {**state, "network.6.4.token_mixer.ab": torch.zeros(8, 49, 49)}
    less = {k: v for k, v in state.items() if not k.endswith(("attention_bias_idxs", "num_batches_tracked"))}
    assert len(less) < len(state)
    jax.tree.map(np.testing.assert_array_equal, fit(more), fit(less))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network.6.4.layer_scale_1": None}, "layer_scale_1.*from 'network.6.4.layer_scale_1'"),
        ({"network.6.3.layer_scale_1": lambda: torch.ones(448)}, "'network.6.3.layer_scale_1': expected nowhere"),
        (
            {"network.6.4.token_mixer.attention_biases": lambda: torch.ones(8, 64)},
            r"expected \(8, 49\), found \(8, 64\)",
        ),
        ({"dist_head.weight": lambda: torch.ones(7, 448)}, "'dist_head.weight': expected nowhere"),
        ({"head.weight": None, "head.bias": None}, "'dist_head.weight': expected nowhere"),
        ({"norm.bias": lambda: torch.full((448,), torch.nan)}, "NaN or infinite"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(l1, fit, change, message):
    with pytest.raises(InputError, match=message):
        changed = {name: make() for name, make in change.items() if make is not None}
        fit({name: value for name, value in l1[1].items() if name not in change} | changed)


def test_another_size_of_the_family_is_refused(l1):
    with pytest.raises(InputError, match="does not fit the model in .* places"):
        import_file("efficientformer_l3", l1[2])


@pytest.mark.parametrize("path", ["backbone", "backbone/stages/0/0/mixer/query", "backbone/last/conv", "mood"])
def test_a_module_that_the_authors_do_not_have(path):
    with pytest.raises(KeyError):
        foreign_module(path)
