"""HSEmotion's EfficientNets: state dicts with timm's names and random numbers, and files that must not be opened."""

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.weights.hsemotion import foreign_module
from emokd.weights.importing import find_layouts, import_file
from emokd.weights.mapping import TORCH, flatten

nn = Lazily("torch.nn")
torch = Lazily("torch")
torch_efficientnets = Lazily("torch_efficientnets")

B0 = ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1), 1280)
B2 = ((16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2), 1408)
# In the order of the package hsemotion, which writes them with capitals.
EIGHT = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


@pytest.fixture(scope="module")
def b0():
    """A B0 with ten outputs whose activations stay of order one."""
    theirs = torch_efficientnets.Timm(*B0, nn.Linear(1280, 10))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in theirs.state_dict().items():
        if "running_var" in name or (name.endswith("weight") and tensor.ndim == 1):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return theirs.eval()


def with_outputs(network, count, sequential):
    """The state dict with the first `count` outputs of its classifier, which may be in a Sequential."""
    module = "classifier.0" if sequential else "classifier"
    return {
        name.replace("classifier", module): tensor[:count] if name.startswith("classifier") else tensor
        for name, tensor in network.state_dict().items()
    }


@pytest.mark.slow
def test_ten_outputs_are_eight_expressions_then_valence_and_arousal(b0, tmp_path):
    torch.save(b0.state_dict(), tmp_path / "enet_b0_8_va_mtl.pth")
    model = import_file("hsemotion_b0", tmp_path / "enet_b0_8_va_mtl.pth")
    assert model.spec.heads == {"expression": 8, "valence_arousal": 2}
    assert model.spec.classes == {"expression": EIGHT}
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = b0(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    found = np.concatenate([signals.logits, signals.valence_arousal], 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected[:, 8:]).max() > 0.1


@pytest.mark.parametrize(("count", "classes"), [(8, EIGHT), (7, tuple(name for name in EIGHT if name != "contempt"))])
@pytest.mark.parametrize("sequential", [False, True])
def test_a_classifier_alone_or_in_a_sequential_is_the_head_of_expressions(b0, tmp_path, count, classes, sequential):
    state = with_outputs(b0, count, sequential)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "e.pth")
    model = import_file("hsemotion_b0", tmp_path / "e.pth")
    assert model.spec.heads == {"expression": count}
    assert model.spec.classes == {"expression": classes}
    np.testing.assert_array_equal(
        model.params["heads"]["expression"]["kernel"], b0.state_dict()["classifier.weight"][:count].numpy().T
    )


def test_other_numbers_of_outputs_are_refused_with_a_way_on(b0, tmp_path):
    torch.save(with_outputs(b0, 9, False), tmp_path / "e.pth")
    with pytest.raises(InputError, match=r"'classifier.weight' has 9 outputs.*--leave_out=classifier\."):
        import_file("hsemotion_b0", tmp_path / "e.pth")
    assert import_file("hsemotion_b0", tmp_path / "e.pth", leave_out=["classifier"]).spec.heads == {}


def test_wrong_options_and_head_names_are_refused(b0, tmp_path):
    torch.save(with_outputs(b0, 8, True), tmp_path / "e.pth")
    with pytest.raises(InputError, match="names of HSEmotion, whose networks are of style 'tensorflow', not 'pytorch'"):
        import_file("hsemotion_b0", tmp_path / "e.pth", options={"style": "pytorch"})
    with pytest.raises(InputError, match="names of their own: expression, valence_arousal"):
        import_file("hsemotion_b0", tmp_path / "e.pth", head="mood")
    with pytest.raises(InputError, match="does not fit the model in"):
        import_file("hsemotion_b2", tmp_path / "e.pth")


@pytest.mark.parametrize(("backbone", "sizes", "side"), [("hsemotion_b0", B0, 224), ("hsemotion_b2", B2, 260)])
def test_every_array_has_its_place_and_pictures_their_size(backbone, sizes, side):
    with torch.device("meta"):
        state = torch_efficientnets.Timm(*sizes, nn.Linear(sizes[2], 8)).state_dict()
    (names,) = find_layouts(backbone)
    network = functional(NetworkSpec(backbone, heads={"expression": 8}))
    found = {}
    for tree in network.abstract:
        for path, leaf in flatten(tree).items():
            module, _, array = path.rpartition("/")
            found[TORCH.foreign_name(names.foreign_module(module), array)] = leaf.size
    wanted = {k: v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert found == {name.replace("classifier", "classifier.expression"): size for name, size in wanted.items()}
    preprocessing = network.module.backbone.preprocessing
    assert (preprocessing.size, preprocessing.mean, preprocessing.std) == (
        side, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    )  # fmt: skip


def test_a_whole_pickled_module_is_not_opened_and_three_lines_say_what_to_do(b0, tmp_path):
    torch.save(b0, tmp_path / "enet_b0_8_best_afew.pt")
    with pytest.raises(InputError, match="would execute code from the file, so it was not opened") as caught:
        import_file("hsemotion_b0", tmp_path / "enet_b0_8_best_afew.pt")
    *_, one, two, three = str(caught.value).splitlines()
    assert one == "  import torch"
    for line in (two, three):
        compile(line.strip(), "message", "exec")
    assert "torch.load('enet_b0_8_best_afew.pt'" in two
    assert "model.state_dict()" in three


@pytest.mark.parametrize("path", ["heads/mood", "backbone/stem/bias"])
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        foreign_module(path)
