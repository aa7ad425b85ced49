"""The strict conversion: axis orders against PyTorch's own layers, and everything that it must refuse."""

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.weights.mapping import KERAS, TORCH, convert, flatten, leave_out_modules, unflatten

torch = Lazily("torch")
nn = Lazily("torch.nn")


def shaped(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


ABSTRACT = (
    {
        "backbone": {
            "stages": {
                0: {"conv": {"kernel": shaped(3, 3, 2, 4)}},
                1: {"norm": {"scale": shaped(4), "bias": shaped(4)}},
            }
        },
        "heads": {"expression": {"kernel": shaped(4, 5), "bias": shaped(5)}},
    },
    {"backbone": {"stages": {1: {"norm": {"mean": shaped(4), "var": shaped(4)}}}}},
)


def foreign_module(path):
    return {"backbone/stages/0/conv": "conv", "backbone/stages/1/norm": "bn", "heads/expression": "fc"}[path]


def state_dict():
    torch.manual_seed(0)
    module = nn.ModuleDict({"conv": nn.Conv2d(2, 4, 3, bias=False), "bn": nn.BatchNorm2d(4), "fc": nn.Linear(4, 5)})
    return {name: value.numpy() for name, value in module.state_dict().items()}


def test_fills_every_leaf_with_its_own_array():
    state = state_dict()
    params, stats = convert(state, ABSTRACT, foreign_module)
    assert list(params["backbone"]["stages"]) == [0, 1]
    kernel = params["backbone"]["stages"][0]["conv"]["kernel"]
    for index in np.ndindex(3, 3, 2, 4):
        assert kernel[index] == state["conv.weight"][index[3], index[2], index[0], index[1]]
    np.testing.assert_array_equal(params["heads"]["expression"]["kernel"][1], state["fc.weight"][:, 1])
    np.testing.assert_array_equal(stats["backbone"]["stages"][1]["norm"]["var"], state["bn.running_var"])
    np.testing.assert_array_equal(params["backbone"]["stages"][1]["norm"]["scale"], state["bn.weight"])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolution_kernels_of_any_rank_agree_with_pytorch(rank):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](3, 5, (2, 3, 4)[:rank])
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 8)[: rank + 1] + (3,)).astype(np.float32)
    with torch.no_grad():
        expected = conv(torch.tensor(x).movedim(-1, 1)).movedim(1, -1).numpy() - conv.bias.detach().numpy()
    kernel = TORCH.to_ours("kernel", conv.weight.detach().numpy(), rank + 2)
    spatial = "DHW"[3 - rank :]
    dimensions = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    found = jax.lax.conv_general_dilated(x, kernel, (1,) * rank, "VALID", dimension_numbers=dimensions)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_one_by_one_convolution_can_be_a_linear_head():
    weight = np.arange(15.0).reshape(5, 3, 1, 1)
    np.testing.assert_array_equal(TORCH.to_ours("kernel", weight, 2), weight[:, :, 0, 0].T)


def test_keras_kernels_stay_as_they_are():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    np.testing.assert_array_equal(KERAS.to_ours("kernel", kernel, 4), kernel)
    assert KERAS.foreign_name("bn", "var") == "bn/moving_variance"


def test_one_error_lists_everything_that_is_wrong():
    state = state_dict()
    del state["bn.bias"]
    state["bn.running_mean"][2] = np.nan
    state["conv.weight"] = state["conv.weight"][:, :1]
    state["extra.weight"] = np.zeros((7, 2))
    state["bn.weight"] = np.ones(4, np.int64)
    with pytest.raises(InputError) as caught:
        convert(state, ABSTRACT, foreign_module, source="teacher.pth")
    lines = str(caught.value).splitlines()
    assert lines[0] == "teacher.pth does not fit the model in 5 places."
    for part in (
        "params/backbone/stages/0/conv/kernel from 'conv.weight': expected (3, 3, 2, 4), found (3, 3, 1, 4)",
        "params/backbone/stages/1/norm/bias: expected (4,) from 'bn.bias', which the file does not hold",
        "params/backbone/stages/1/norm/scale from 'bn.weight': expected floating point, found int64",
        "stats/backbone/stages/1/norm/mean from 'bn.running_mean': expected finite numbers, found 1 of 4",
        "'extra.weight': expected nowhere in the model, found (7, 2)",
    ):
        assert sum(part in line for line in lines) == 1, part


def test_a_number_too_large_for_float32_is_not_finite():
    state = state_dict()
    state["bn.weight"] = np.full(4, 1e300)
    with pytest.raises(InputError, match="expected finite numbers, found 4 of 4"):
        convert(state, ABSTRACT, foreign_module)


def test_a_head_over_other_classes_is_an_error_until_it_is_left_out():
    backbone = ({"backbone": ABSTRACT[0]["backbone"]}, ABSTRACT[1])
    with pytest.raises(InputError, match=r"'fc.weight': expected nowhere"):
        convert(state_dict(), backbone, foreign_module)
    params, _ = convert(state_dict(), backbone, foreign_module, leave_out=["fc"])
    assert set(params) == {"backbone"}


def test_leaving_out_what_is_not_there_is_an_error():
    with pytest.raises(InputError, match="no module 'f' to leave out.*It holds bn, conv, fc"):
        leave_out_modules(state_dict(), ["f"], TORCH, "teacher.pth")
    with pytest.raises(InputError, match="Did you mean 'conv'"):
        leave_out_modules(state_dict(), ["conv1"], TORCH, "teacher.pth")


def test_two_of_our_arrays_cannot_share_a_foreign_one():
    abstract = ({"heads": {"a": {"kernel": shaped(4, 5)}, "b": {"kernel": shaped(4, 5)}}}, {})
    with pytest.raises(InputError, match=r"expected an array of its own, found 'fc.weight'"):
        convert({"fc.weight": np.ones((5, 4))}, abstract, lambda path: "fc")


def test_a_module_without_counterpart_is_listed():
    abstract = ({"neck": {"kernel": shaped(4, 5)}}, {})
    with pytest.raises(InputError, match="params/neck/kernel: expected .* the foreign model has no such module"):
        convert({}, abstract, foreign_module)


def test_many_misfits_are_counted_and_their_pattern_named():
    state = {f"features.{i}.weight": np.zeros(3) for i in range(200)}
    with pytest.raises(InputError) as caught:
        convert(state, ABSTRACT, foreign_module, source="teacher.pth")
    message = str(caught.value)
    assert "teacher.pth does not fit the model in 207 places" in message
    assert "200 that fit nowhere begin with features. (200)" in message
    assert "another layout or architecture" in message
    assert "and 195 more like these" in message
    assert len(message.splitlines()) < 16


def test_an_array_of_another_size_is_refused_before_it_is_copied():
    state = state_dict()
    state["conv.weight"] = np.broadcast_to(np.float32(0), (10**6, 10**6, 1, 1))
    with pytest.raises(InputError, match=r"expected \(3, 3, 2, 4\), found \(1, 1, 1000000, 1000000\)"):
        convert(state, ABSTRACT, foreign_module)


def test_unflatten_restores_integer_keys():
    leaves = flatten(ABSTRACT[0])
    assert "backbone/stages/1/norm/scale" in leaves
    assert unflatten(leaves, ABSTRACT[0]) == ABSTRACT[0]
