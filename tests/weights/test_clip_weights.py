"""CLIP's image tower against transformers', whose weights take the way through a file under its names."""

import jax
import numpy as np
import pytest
from hugging_face import as_torch, randomise, save
from lazily import Lazily

from emokd.errors import InputError
from emokd.models import clip
from emokd.models.network import NetworkSpec, functional
from emokd.models.transformer import Dimensions
from emokd.weights.clip import foreign_module
from emokd.weights.importing import import_file
from emokd.weights.mapping import TORCH, flatten

torch = Lazily("torch")
transformers = Lazily("transformers")

TINY = Dimensions(width=32, depth=2, heads=4, patch=8, grid=3)
EMBEDDING = 12
FULL = clip.B32


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(clip, "B32", TINY)
    monkeypatch.setattr(clip, "EMBEDDING", EMBEDDING)


def vision(dimensions):
    return {
        "hidden_size": dimensions.width,
        "intermediate_size": 4 * dimensions.width,
        "num_hidden_layers": dimensions.depth,
        "num_attention_heads": dimensions.heads,
        "image_size": dimensions.grid * dimensions.patch,
        "patch_size": dimensions.patch,
    }


def create(kind="CLIPVisionModelWithProjection", dimensions=TINY, embedding=EMBEDDING):
    """A network of transformers: the image tower, or "CLIPModel" with both."""
    if kind == "CLIPModel":
        text = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 11,
            "max_position_embeddings": 5,
            "bos_token_id": 0,
            "eos_token_id": 1,
        }
        config = transformers.CLIPConfig(text, vision(dimensions), projection_dim=embedding)
    else:
        config = transformers.CLIPVisionConfig(projection_dim=embedding, **vision(dimensions))
    return getattr(transformers, kind)(config)


def test_the_embedding_agrees_with_transformers(tiny, tmp_path, caplog):
    """The file holds both towers, and the positions' numbers as older versions of transformers stored them."""
    theirs = randomise(create("CLIPModel"))
    numbers = {f"{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}
    path = save(theirs, tmp_path / "model.safetensors", **numbers)
    with caplog.at_level("WARNING", "absl"):
        model = import_file("clip_vit_b32", path)
    state = theirs.state_dict()
    text = {k: v.numel() for k, v in state.items() if not k.startswith("vis")}
    assert (
        f"text tower: {len(text)} arrays with {sum(text.values()):,} numbers, of {len(state)} arrays in the file"
        in caplog.text
    )
    assert model.spec.heads == {}
    assert model.spec.preprocessing.mean == tuple(transformers.image_utils.OPENAI_CLIP_MEAN)
    assert model.spec.preprocessing.std == tuple(transformers.image_utils.OPENAI_CLIP_STD)
    images = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = theirs.get_image_features(as_torch(images)).numpy()
        patches = theirs.vision_model(as_torch(images)).last_hidden_state[:, 1:].reshape(2, 3, 3, 32)
    np.testing.assert_allclose(signals.features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(signals.intermediates["map"], patches, rtol=1e-4, atol=1e-5)
    assert np.std(expected, 0).min() > 1e-3  # the pictures make a difference


def test_a_file_of_the_image_tower_alone_gives_the_same(tiny, tmp_path, caplog):
    both = randomise(create("CLIPModel"))
    alone = create()
    alone.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith("vis")}, strict=True)
    with caplog.at_level("WARNING", "absl"):
        one = import_file("clip_vit_b32", save(alone, tmp_path / "alone.safetensors"))
    assert "text" not in caplog.text
    other = import_file("clip_vit_b32", save(both, tmp_path / "both.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_every_array_of_the_published_network_has_its_place():
    """Names and sizes, without the arrays."""
    with torch.device("meta"):
        state = create("CLIPVisionModelWithProjection", FULL, clip.EMBEDDING).state_dict()
    found = {}
    for path, leaf in flatten(functional(NetworkSpec("clip_vit_b32")).abstract[0]).items():
        module, _, array = path.rpartition("/")
        found[TORCH.foreign_name(foreign_module(module), array)] = leaf.size
    assert found == {name: array.numel() for name, array in state.items()}


def test_every_fault_of_a_file_is_listed(tiny, tmp_path):
    theirs = create()
    theirs.visual_projection = torch.nn.Linear(32, 11, bias=False)
    del theirs.vision_model.encoder.layers[1].mlp.fc2
    path = save(theirs, tmp_path / "model.safetensors", stray=torch.zeros(3))
    with pytest.raises(InputError, match="model.safetensors does not fit the model in 4 places") as caught:
        import_file("clip_vit_b32", path)
    for part in ("visual_projection.weight", "fc2.weight", "fc2.bias", "'stray'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("path", ["neck/conv", "backbone/blocks/0/pool", "backbone/stem"])
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        foreign_module(path)
