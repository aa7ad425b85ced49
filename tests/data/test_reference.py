"""Arrays in memory become float32 without loss: against float64 NumPy."""

import json

import numpy as np
import pytest

from emokd.data import reference
from emokd.data.arrays import array_examples
from emokd.data.pipeline import evaluation_batches
from emokd.errors import InputError

POWERS = np.arange(-12, 13)


def table(rows=80, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, len(POWERS)))


def make(values, name="x"):
    labels = np.zeros(len(values), np.int32)
    return array_examples(
        "t", [f"r{i}" for i in range(len(values))], {"expression": labels}, {"expression": ("a", "b")}, {name: values}
    )


def read(values, train=None, together=False):
    """As a batch has them, standardised in float64 by what the batch has of the training rows."""
    examples = make(values)
    train = np.arange(len(values)) if train is None else train
    referred = reference.refer(examples, reference.fit(examples.select(train), {"x": together}))
    (batch,) = evaluation_batches(referred, batch_size=len(values), canvas=1, fit="crop", num_threads=0)
    assert batch["x"].dtype == np.float32
    found = batch["x"].astype(np.float64)
    axes = None if together else tuple(range(found.ndim - 1))
    return (found - np.nanmean(found[train], axes)) / np.nanstd(found[train], axes)


@pytest.mark.parametrize("offset", [0, 1e6, -1e6])
def test_unit_and_offset_of_a_column_change_nothing(offset):
    values = table()
    expected = (values - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(read((values + offset * values.std(0)) * 10.0**POWERS), expected, atol=1e-6)


def test_other_splits_are_read_by_the_training_splits_reference():
    values, train = table(), np.arange(0, 80, 3)
    expected = (values - values[train].mean(0)) / values[train].std(0)
    np.testing.assert_allclose(read((values + 1e6) * 10.0**POWERS, train), expected, atol=1e-6)


def test_a_trace_in_float64_has_a_reference_for_each_channel_or_one_for_all():
    values = np.random.default_rng(0).standard_normal((6, 50, 2))
    expected = (values - values.mean((0, 1))) / values.std((0, 1))
    np.testing.assert_allclose(read((values + [1e6, 0]) * [1e-9, 1e9]), expected, atol=1e-6)
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(read((values + 1e6) * 1e-9, together=True), expected, atol=1e-6)


def test_what_is_missing_stays_missing_and_does_not_count():
    values = table()
    values[np.random.default_rng(1).random(values.shape) < 0.3] = np.nan
    values[:, 3] = np.nan
    values[:5] = np.nan
    whole = np.r_[np.zeros((1, len(POWERS))), values[5:]]  # no example may lack everything
    found = reference.fit(make(whole), {"x": False})["x"]
    np.testing.assert_array_equal(np.isnan(found(values)), np.isnan(values))
    assert np.isfinite(found.centre).all() and np.isfinite(found.unit).all()


def test_what_is_dead_in_training_is_zero_everywhere_and_what_float64_tells_apart_is_not_dead():
    values = table()
    values[:, 0] = 5.0
    values[:, 1] = 1e9 + values[:, 1]  # a clock of a second, float32 would have rounded it to multiples of 64
    values[:, 2] = 0.1 + 1e-17 * values[:, 2]
    found = reference.fit(make(values), {"x": False})["x"]
    assert (found(values * 3)[:, [0, 2]] == 0).all()
    values[:, 1] = 1e9 + 100 * table(seed=2)[:, 1]
    found = reference.fit(make(values), {"x": False})["x"]
    np.testing.assert_allclose(found(values)[:, 1] * found.unit[1], values[:, 1] - found.centre[1], rtol=1e-6)


def test_the_reference_hangs_on_the_training_rows_alone_not_on_their_order_and_survives_json():
    values = (table() + 1e6) * 10.0**POWERS
    found = reference.fit(make(values), {"x": False})["x"]
    turned = reference.fit(make(values[::-1]), {"x": False})["x"]
    np.testing.assert_array_equal(found.centre, turned.centre)
    np.testing.assert_array_equal(found.unit, turned.unit)
    assert (np.frexp(found.unit)[0] == 0.5).all()  # powers of two
    referred = reference.refer(make(values), {"x": found})
    again = reference.from_json(json.loads(json.dumps(reference.to_json(referred))))["x"]
    np.testing.assert_array_equal(again(values), found(values))
    assert reference.to_json(make(values)) == {}


def test_values_beyond_float32_are_refused_by_name():
    values = table()
    values[7, 3] = 1e60
    examples = make(values)
    references = reference.fit(examples.select(np.arange(8, 80)), {"x": False})
    with pytest.raises(InputError, match=r"t: the values of x in 1 examples .*: r7\. Correct"):
        reference.refer(examples, references)


def test_nothing_else_is_touched():
    examples = make(table())
    assert reference.fit(examples, {"other": False, "image": True}) == {}
    referred = reference.refer(examples, {"other": reference.fit(examples, {"x": False})["x"]})
    np.testing.assert_array_equal(referred.inputs["x"](3), table()[3].astype(np.float32))


@pytest.mark.parametrize(
    "values",
    [
        *(None, [], {"x": None}, {"x": {"centre": 1.0}}, {"x": {"centre": [1.0], "unit": [1.0, 2.0]}}),
        *({"x": {"centre": "a", "unit": 1.0}}, {"x": {"centre": float("nan"), "unit": 1.0}}),
        *({"x": {"centre": 0.0, "unit": -1.0}}, {"x": {"centre": [[0.0]], "unit": [[1.0]]}}),
    ],
)
def test_damaged_references_are_one_message(values):
    with pytest.raises(InputError, match="references of the model's arrays cannot be read"):
        reference.from_json(values)
