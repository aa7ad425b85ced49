"""What is around a state dict: what comes off, what is asked about, what stays."""

import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.weights.mapping import Names
from emokd.weights.wrapping import find_prefixes, flatten_containers, unwrap

torch = Lazily("torch")

EXPECTED = {
    "conv.weight": "backbone/conv/kernel",
    "bn.weight": "backbone/norm/scale",
    "bn.bias": "backbone/norm/bias",
    "layer.0.conv.weight": "backbone/blocks/0/kernel",
    "fc.weight": "heads/mood/kernel",
    "fc.bias": "heads/mood/bias",
}
OTHER = {name.replace("layer", "blocks").replace("bn", "norm"): path for name, path in EXPECTED.items()}
LAYOUTS = [(Names("one", str), EXPECTED), (Names("other", str), OTHER)]


def state(prefix="", names=EXPECTED, value=1.0):
    return {prefix + name: np.full((2, 3) if "weight" in name and "n." not in name[:3] else 2, value) for name in names}


def taken(loaded, key="", head="mood"):
    return unwrap(flatten_containers(loaded, "x.pth"), LAYOUTS, key, head, "x.pth")


@pytest.mark.parametrize(
    "loaded",
    [
        state(),
        *(state(f"{p}.") for p in ("module", "backbone", "model", "net", "encoder", "student", "_orig_mod", "a.b.c")),
        {"state_dict": state("module._orig_mod.")},
        {"model_state_dict": {"net": state()}},
        {"epoch": 3, "model": "resnet", "state_dict": state(), "optimizer": {"state": {0: {"m": np.ones(2)}}}},
        {"params": state(), "optimizer_state_dict": state("other.")},
        {"state_dict": state("model."), "callbacks": {"Checkpoint": {"best": np.ones(()), "path": "x", "mode": "max"}}},
        {"hyper_parameters": {"lr": 0.1}, "state_dict": state("student.backbone.")},
        {"backbone": state(names=list(EXPECTED)[:4]), "head": state(names=["fc.weight", "fc.bias"])},
        {("backbone." if "fc" not in k else "head.") + k: v for k, v in state().items()},
        {("backbone." if "fc" not in k else "head.") + k.removeprefix("fc."): v for k, v in state().items()},
        {(("model.backbone." + k) if "fc" not in k else "cls.1." + k[3:]): v for k, v in state().items()},
    ],
)  # fmt: skip
def test_wrappings_come_off(loaded):
    found, names, _ = taken(loaded)
    assert found.keys() == EXPECTED.keys()
    assert names.label == "one"
    for name, value in state().items():
        np.testing.assert_array_equal(found[name], value)


def test_what_was_taken_off_is_said():
    assert taken(state("backbone."))[2] == ["took 'backbone.' off the names"]
    assert taken(state("module."))[2] == []
    mixed = {("backbone." if "fc" not in k else "head.") + k.replace("fc", "last"): v for k, v in state().items()}
    assert "took 'head.last', the one layer left over, as the head" in taken(mixed)[2]


def test_the_layout_that_fits_is_chosen():
    found, names, _ = taken({"state_dict": state("net.", OTHER)})
    assert (names.label, found.keys()) == ("other", OTHER.keys())


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("params", "params_ema"),
        ("state_dict", "ema_state_dict"),
        ("net", "averaged"),
        ("model", "swa_model"),
    ],
)
def test_a_second_set_of_weights_is_asked_about(raw, averaged):
    loaded = {"epoch": 1, raw: state(), averaged: state("module.", value=2.0) | {"n_averaged": np.ones((), np.int64)}}
    with pytest.raises(InputError) as caught:
        taken(loaded)
    message = str(caught.value)
    assert f"{averaged}.module' (6 arrays, averaged)" in message
    assert f"--key={averaged}.module" in message
    assert f"x.pth#{averaged}.module" in message
    for key in (averaged, f"{averaged}.module"):
        found, _, notes = taken(loaded, key)
        assert found["conv.weight"][0, 0] == 2
        assert "6 others aside" in notes[0] or "7 others aside" in notes[0]
    assert taken(loaded, raw)[0]["conv.weight"][0, 0] == 1


@pytest.mark.parametrize(
    ("raw", "second"), [("", "ema.module."), ("model.", "model_ema."), ("student.", "teacher."), ("", "ema_model.")]
)
def test_a_second_set_inside_one_dict_is_asked_about(raw, second):
    loaded = {"state_dict": state(raw) | state(second, value=2.0)}
    with pytest.raises(InputError, match="2 sets of weights"):
        taken(loaded)
    assert taken(loaded, f"state_dict.{second[:-1]}")[0]["conv.weight"][0, 0] == 2
    assert taken(loaded["state_dict"], second[:-1])[0]["conv.weight"][0, 0] == 2
    if raw:
        assert taken(loaded["state_dict"], raw[:-1])[0]["conv.weight"][0, 0] == 1
    else:
        found, _, notes = taken(loaded["state_dict"], ".")
        assert found.keys() == EXPECTED.keys()
        assert found["conv.weight"][0, 0] == 1
        assert "left 6 others aside" in notes[0]


def test_a_key_that_is_not_there_is_refused():
    with pytest.raises(
        InputError, match=r"no weights under 'state_dict_em'. Did you mean 'state_dict_ema'.*begin with"
    ):
        taken({"state_dict": state(), "state_dict_ema": state()}, "state_dict_em")


@pytest.mark.parametrize(
    "extra", [{"loss.weight": np.ones(3)}, {"aux.weight": np.ones((2, 3)), "aux.bias": np.ones(2)}, {"x": np.ones(1)}]
)
def test_nothing_is_dropped_because_it_does_not_fit(extra):
    """The strict mapping sees it: what is left over stays under its own name."""
    assert taken(state("net.") | extra)[0].keys() == EXPECTED.keys() | extra.keys()


def test_two_layers_left_over_are_no_head():
    mixed = {k: v for k, v in state().items() if "fc" not in k}
    mixed |= {
        f"head.{i}.{leaf}": np.ones((2, 3) if leaf == "weight" else 2) for i in (0, 2) for leaf in ("weight", "bias")
    }
    assert taken(mixed)[0].keys() == mixed.keys()


@pytest.mark.parametrize("loaded", [{0: 1}, {}, {"state_dict": {}, "model": {}}, {"epoch": 3, "lr": np.ones(())}])
def test_what_holds_no_state_dict_is_refused(loaded):
    with pytest.raises(InputError, match=r"x.pth is not a state dict and holds none.*Save `model.state_dict\(\)`"):
        flatten_containers(loaded, "x.pth")


def test_a_dict_that_holds_itself_ends():
    loaded = {"a": torch.ones(2)}
    loaded["self"] = loaded
    assert len(flatten_containers(loaded, "x.pth")) <= 10


def test_prefixes_are_counted():
    names = [*state("a.b."), "fc.weight"]
    assert find_prefixes(names, EXPECTED) == {"a.b": {*EXPECTED}, "": {"fc.weight"}, "a.b.layer.0": {"conv.weight"}}


def test_a_key_that_holds_several_sets_is_answered_by_keys_that_can_be_given():
    loaded = {"state_dict": state("model.") | state("ema_model.", value=2.0)}
    with pytest.raises(InputError, match=r"'state_dict.ema_model' .*--key=state_dict.ema_model"):
        taken(loaded, "state_dict")
    assert taken(loaded, "state_dict.ema_model.")[0]["conv.weight"][0, 0] == 2


def test_a_set_beside_which_another_one_lies_deeper_can_be_named():
    loaded = {"state_dict": state() | state("ema.", value=2.0)}
    found, _, notes = taken(loaded, "state_dict")
    assert found.keys() == EXPECTED.keys() and found["conv.weight"][0, 0] == 1
    assert "left 6 others aside" in notes[-1]


@pytest.mark.parametrize(
    "beside",
    [
        {"ema": {"decay": 0.9, "shadow_params": [np.ones(3), np.ones(2)]}},
        {"optimizer_states": [{"state": {}, "ema": (np.ones(3), np.ones(2))}]},
    ],
)
def test_averaged_weights_without_names_are_mentioned(beside, caplog):
    with caplog.at_level("WARNING"):
        flatten_containers({"model": state(), "losses": [np.ones(2), np.ones(2)], **beside}, "x.pth")
    (record,) = caplog.records
    assert "x.pth" in record.getMessage() and "without names" in record.getMessage()
    assert "'ema.shadow_params'" in record.getMessage() or "'optimizer_states.0.ema'" in record.getMessage()
