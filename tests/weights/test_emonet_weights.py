"""EmoNet's files: class names, the last layer that becomes two heads, and what is refused. Parity is with the model."""

import numpy as np
import pytest
import safetensors.numpy

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.weights import emonet
from emokd.weights.importing import import_file
from emokd.weights.mapping import TORCH, flatten


@pytest.fixture(scope="module")
def modules():
    """Paths of all modules of a network without heads, with the shapes of their arrays."""
    found = {}
    for tree in functional(NetworkSpec("emonet")).abstract:
        for path, leaf in flatten(tree).items():
            found.setdefault(path.rpartition("/")[0], {})[path.rpartition("/")[2]] = leaf.shape
    return found


@pytest.fixture(scope="module")
def body(modules):
    """A state dict without the last layer: zeros."""
    state = {}
    for path, leaves in modules.items():
        for leaf, shape in leaves.items():
            if leaf == "kernel":
                shape = (*shape[:-3:-1], *shape[:-2])
            state[TORCH.foreign_name(emonet.foreign_module(path), leaf)] = np.zeros(shape, np.float32)
    return state


def last_layer(outputs):
    random = np.random.default_rng(0)
    weight = random.normal(size=(outputs, 128)).astype(np.float32)
    return {"emo_fc_2.3.weight": weight, "emo_fc_2.3.bias": random.normal(size=outputs).astype(np.float32)}


def save(state, path):
    safetensors.numpy.save_file({f"module.{name}": value for name, value in state.items()}, path)
    return path


def test_the_five_class_file(body, tmp_path):
    layer = last_layer(7)
    counters = {"bn1.num_batches_tracked": np.zeros((), np.int64)}
    model = import_file("emonet", save({**body, **layer, **counters}, tmp_path / "emonet_5.safetensors"))
    assert model.spec.heads == {"expression": 5, "valence_arousal": 2}
    assert model.spec.classes == {"expression": ("neutral", "happy", "sad", "surprise", "anger")}
    heads, weight, bias = model.params["heads"], layer["emo_fc_2.3.weight"], layer["emo_fc_2.3.bias"]
    np.testing.assert_array_equal(heads["expression"]["kernel"], weight[:5].T)
    np.testing.assert_array_equal(heads["expression"]["bias"], bias[:5])
    np.testing.assert_array_equal(heads["valence_arousal"]["kernel"], weight[5:].T)
    np.testing.assert_array_equal(heads["valence_arousal"]["bias"], bias[5:])


def test_the_eight_class_file(body, tmp_path):
    model = import_file("emonet", save({**body, **last_layer(10)}, tmp_path / "emonet_8.safetensors"))
    assert model.spec.heads == {"expression": 8, "valence_arousal": 2}
    names = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    assert model.spec.classes == {"expression": names}


def test_the_users_class_names_win(body, tmp_path):
    file = save({**body, **last_layer(5)}, tmp_path / "e.safetensors")
    model = import_file("emonet", file, head="expression", classes=["low", "middle", "high"])
    assert model.spec.classes == {"expression": ("low", "middle", "high")}
    assert model.spec.heads == {"expression": 3, "valence_arousal": 2}


def test_known_class_names_in_another_order_are_warned_of(body, tmp_path, caplog):
    file = save({**body, **last_layer(7)}, tmp_path / "e.safetensors")
    with caplog.at_level("WARNING"):
        import_file("emonet", file, classes=["anger", "happy", "neutral", "sad", "surprise"])
    assert "anger, happy, neutral, sad, surprise" in caplog.text
    assert "known to have neutral, happy, sad, surprise, anger" in caplog.text


def test_the_last_layer_may_be_left_out(body, tmp_path):
    file = save({**body, **last_layer(10)}, tmp_path / "e.safetensors")
    model = import_file("emonet", file, leave_out=["emo_fc_2.3"])
    assert (model.spec.heads, model.spec.classes) == ({}, {})


def test_other_heads_and_numbers_of_classes_are_refused(body, tmp_path):
    file = save({**body, **last_layer(10)}, tmp_path / "e.safetensors")
    with pytest.raises(InputError, match="e.safetensors have names of their own: expression, valence_arousal"):
        import_file("emonet", file, head="mood")
    with pytest.raises(InputError, match="2 class names are given, but the head of e.safetensors has 8 classes"):
        import_file("emonet", file, classes=["a", "b"])
    with pytest.raises(InputError, match="e.safetensors has no head: 'emo_fc_2.3.expression.weight'"):
        import_file("emonet", file, head="expression", leave_out=["emo_fc_2.3"])


def test_every_difference_is_listed(body, tmp_path):
    state = {**body, **last_layer(10)}
    state["al9.weight"] = state.pop("al0.weight")
    state["m2.b1_4.bn1.bias"] = np.zeros(256, np.float32)
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    del state["emo_fc_2.3.bias"]
    with pytest.raises(InputError, match="does not fit the model in 6 places") as error:
        import_file("emonet", save(state, tmp_path / "e.safetensors"))
    for problem in (
        "from 'al0.weight', which the file does not hold",
        "'al9.weight': expected nowhere",
        "'m2.b1_4.bn1.bias': expected nowhere",
        "from 'conv1.weight': expected (7, 7, 3, 64), found (7, 7, 1, 64)",
        "from 'emo_fc_2.3.expression.bias', which",
        "from 'emo_fc_2.3.valence_arousal.bias', which",
    ):
        assert problem in str(error.value)


def test_each_module_has_a_name_of_its_own(modules):
    names = [emonet.foreign_module(path) for path in modules]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "path", ["heads/mood", "backbone/stem/pool", "backbone/aligners/0/top/bias", "backbone/stem/blocks/3/norms/0"]
)
def test_unknown_modules_have_no_name(path):
    with pytest.raises(KeyError):
        emonet.foreign_module(path)


@pytest.mark.parametrize("names", [("emo_convs.0", "emo_convs.2", "emo_convs.4"), ("emo_x.8", "emo_x.9", "emo_x.10")])
def test_blocks_of_the_emotion_part_are_numbered_in_their_order(names):
    foreign = {f"{name}.{leaf}": np.full(1, i) for i, name in enumerate(names) for leaf in ("bn1.bias", "conv3.weight")}
    other = {"emo_fc_2.1.weight": np.zeros(1), "conv1x1_input_emo_2.bias": np.zeros(1), "m0.b1_4.bn1.bias": np.zeros(1)}
    prepared = emonet.prepare({**dict(reversed(foreign.items())), **other})
    assert {name: array[0] for name, array in prepared.items() if name not in other} == {
        f"emo_convs.{i}.{leaf}": i for i in range(3) for leaf in ("bn1.bias", "conv3.weight")
    }
    assert set(other) <= set(prepared)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_last_layer_too_small_for_classes_stays_as_it_is(outputs):
    layer = last_layer(outputs)
    assert emonet.prepare(layer) == layer
