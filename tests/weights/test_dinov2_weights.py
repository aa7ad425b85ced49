"""DINOv2 against transformers', whose weights take the way through a file under its names."""

import jax
import numpy as np
import pytest
from hugging_face import as_torch, randomise, save
from lazily import Lazily

from emokd.errors import InputError
from emokd.models import dinov2
from emokd.models.network import NetworkSpec, functional
from emokd.models.transformer import Dimensions
from emokd.weights.dinov2 import foreign_module
from emokd.weights.importing import import_file
from emokd.weights.mapping import TORCH, flatten

torch = Lazily("torch")
transformers = Lazily("transformers")

TINY = Dimensions(width=32, depth=2, heads=4, patch=7, grid=5)
FULL = dinov2.SMALL


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(dinov2, "SMALL", TINY)


def create(kind, dimensions, registers=0, **options):
    """A network of transformers: kind "Model" or "ForImageClassification"."""
    family = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{family}Config")(
        hidden_size=dimensions.width,
        num_hidden_layers=dimensions.depth,
        num_attention_heads=dimensions.heads,
        image_size=dimensions.grid * dimensions.patch,
        patch_size=dimensions.patch,
        **({"num_register_tokens": registers} if registers else {}),
        **options,
    )
    return getattr(transformers, family + kind)(config)


# Rows x columns of patches: as trained, fewer, more, and not square; no grid is a multiple of another.
@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("grid", [(5, 5), (3, 3), (8, 8), (4, 7)])
def test_tokens_agree_with_transformers(tiny, tmp_path, registers, grid):
    theirs = randomise(create("Model", TINY, registers))
    path = save(theirs, tmp_path / "model.safetensors")
    model = import_file("dinov2_small", path, options={"registers": registers, "size": 35})
    assert model.spec.heads == {}
    images = np.random.default_rng(0).normal(size=(2, 7 * grid[0], 7 * grid[1], 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = theirs(as_torch(images))
    np.testing.assert_allclose(signals.features, expected.pooler_output, rtol=1e-4, atol=1e-5)
    patches = expected.last_hidden_state[:, 1 + registers :].reshape(2, *grid, 32)
    np.testing.assert_allclose(signals.intermediates["map"], patches, rtol=1e-4, atol=1e-5)
    assert np.std(expected.pooler_output.numpy(), 0).min() > 1e-3  # the pictures make a difference


@pytest.mark.parametrize("registers", [0, 3])
def test_a_classifier_agrees_with_transformers(tiny, tmp_path, caplog, registers):
    """It stands on the class token and the mean of the patches; the names have the prefix "dinov2."."""
    theirs = randomise(create("ForImageClassification", TINY, registers, num_labels=6))
    path = save(theirs, tmp_path / "model.safetensors")
    options = {"registers": registers, "features": "class_and_patches"}
    with caplog.at_level("WARNING", "absl"):
        model = import_file("dinov2_small", path, options=options, head="expression")
    assert model.spec.heads == {"expression": 6}
    assert "Left out embeddings.mask_token" in caplog.text
    images = np.random.default_rng(1).normal(size=(2, 28, 28, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = theirs(as_torch(images)).logits
    np.testing.assert_allclose(signals.logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("registers", [0, 4])
def test_every_array_of_the_small_network_has_its_place(registers):
    """Names and sizes, without the arrays."""
    with torch.device("meta"):
        state = create("Model", FULL, registers).state_dict()
    found = {}
    for path, leaf in flatten(functional(NetworkSpec("dinov2_small", {"registers": registers})).abstract[0]).items():
        module, _, array = path.rpartition("/")
        found[TORCH.foreign_name(foreign_module(module), array)] = leaf.size
    assert found == {name: array.numel() for name, array in state.items() if name != "embeddings.mask_token"}


def test_gradients_agree_with_transformers(tiny, tmp_path):
    """Of every parameter, at another grid than the trained one."""
    theirs = randomise(create("Model", TINY))
    model = import_file("dinov2_small", save(theirs, tmp_path / "model.safetensors"))
    images = np.random.default_rng(2).normal(size=(2, 21, 21, 3)).astype(np.float32)
    weights = np.random.default_rng(3).normal(size=(2, 32)).astype(np.float32)
    (theirs(as_torch(images)).pooler_output * torch.from_numpy(weights)).sum().backward()
    network = functional(model.spec)

    def loss(params):
        return (network(params, model.stats, images)[0].features * weights).sum()

    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found = flatten(jax.jit(jax.grad(loss))(model.params))
    assert len(found) == len(gradients) - 1  # the mask token has none
    for path, value in found.items():
        module, _, leaf = path.rpartition("/")
        expected = gradients[TORCH.foreign_name(foreign_module(module), leaf)].numpy()
        expected = TORCH.to_ours(leaf, expected, value.ndim)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4 * scale + 1e-6, err_msg=path)


def test_every_fault_of_a_file_is_listed(tiny, tmp_path):
    theirs = create("Model", TINY)
    theirs.layernorm = torch.nn.LayerNorm(31)
    del theirs.encoder.layer[1].mlp.fc2
    path = save(theirs, tmp_path / "model.safetensors", stray=torch.zeros(3))
    with pytest.raises(InputError, match="model.safetensors does not fit the model in 5 places") as caught:
        import_file("dinov2_small", path)
    for part in ("layernorm.weight", "layernorm.bias", "fc2.weight", "fc2.bias", "'stray'"):
        assert part in str(caught.value)


def test_registers_that_are_not_asked_for_are_not_dropped(tiny, tmp_path):
    path = save(create("Model", TINY, 3), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"embeddings.register_tokens.*expected nowhere in the model"):
        import_file("dinov2_small", path)


@pytest.mark.parametrize("path", ["neck/conv", "backbone/blocks/0/pool", "backbone/stem"])
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        foreign_module(path)
