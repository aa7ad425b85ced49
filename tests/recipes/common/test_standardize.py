"""Mean and deviation of columns: against float64 NumPy, at any scale and offset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from emokd.data import reference
from emokd.data.arrays import array_examples
from emokd.errors import InputError
from emokd.models.multimodal import ModalitySpec, Standardizer
from emokd.recipes.common import modalities, standardize

ROWS, COLUMNS = 60, 25


def table(seed=0, rows=ROWS, columns=COLUMNS):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)) + np.where(np.arange(columns) % 2, 1.5, 0.0)


def batches(values, size=16):
    """Padded with rows that must not count."""
    for i in range(0, len(values), size):
        rows = np.asarray(values[i : i + size], np.float32)
        mask = np.arange(size) < len(rows)
        padding = np.full((size - len(rows), *rows.shape[1:]), 7e7, np.float32)
        yield {"x": jnp.asarray(np.concatenate([rows, padding])), "mask": jnp.asarray(mask)}


def fit(values, **options):
    return standardize.fit(lambda weights, batch: {"x": batch["x"]}, {}, batches(values), **options)["x"]


def z(statistics, values):
    return np.asarray(standardize.standardize(statistics, jnp.asarray(values, jnp.float32)), np.float64)


def test_float32_features_standardise_alike_in_every_unit():
    values = np.asarray(table(), np.float32).astype(np.float64)
    expected = (values - values.mean(0)) / values.std(0)
    scale = 10.0 ** np.linspace(-12, 12, COLUMNS)
    np.testing.assert_allclose(z(fit(values * scale), values * scale), expected, atol=1e-5)


@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-5), (100.0, 1e-4), (1000.0, 1e-3)])
def test_offsets_that_float32_can_hold_change_nothing(offset, tolerance):
    values = table() * 10.0 ** np.linspace(-12, 12, COLUMNS)
    shifted = np.asarray(values + offset * values.std(0), np.float32)
    exact = shifted.astype(np.float64)
    statistics = fit(shifted)
    np.testing.assert_allclose(statistics["std"], exact.std(0), rtol=1e-5)
    np.testing.assert_allclose(z(statistics, shifted), (exact - exact.mean(0)) / exact.std(0), atol=tolerance)


def test_the_deviation_of_a_column_far_from_zero_is_exact():
    clock = (1e9 + 640 * np.arange(40.0))[:, None]  # float32 holds these
    assert (clock == clock.astype(np.float32)).all()
    np.testing.assert_allclose(fit(clock)["std"], clock.std(0), rtol=1e-6)


@pytest.mark.parametrize(("scale", "rtol"), [(1e-30, 1e-5), (1e-37, 0.1), (1e36, 1e-5)])
def test_no_square_underflows_and_no_sum_overflows(scale, rtol):
    values = np.asarray(table(rows=200) * scale, np.float32)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(fit(values)["std"], exact.std(0), rtol=rtol)


def test_a_dead_column_becomes_zero_whatever_it_is_later_and_changes_no_other():
    values = table()
    alone = fit(values)
    dead = np.array([0.0, 5.0, 1e-12, 1e12, -3.0])
    values[:, :5] = dead
    values[::2, 4] = np.nextafter(np.float32(-3), np.float32(0))  # rounded either way
    fitted = fit(values)
    assert (np.abs(z(fitted, values[:, :] * 1)[:, :5]) < 1e-20).all()
    assert (np.abs(z(fitted, 2 * values + 1)[:, :5]) < 1e-20).all()
    np.testing.assert_array_equal(fitted["std"][5:], alone["std"][5:])
    assert np.isfinite(fitted["std"]).all()  # or the student could not be stored


def test_the_log_names_dead_columns_and_those_with_values_far_out(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    values = table(rows=4000, columns=6)
    values[:, 2] = 5.0
    values[7, 4] = 1e4
    fit(values)
    assert len(said) == 2
    assert "1 of 6" in said[0] and "dead" in said[0] and said[0].endswith(": 2.")
    assert "1 of 6" in said[1] and "50 deviations" in said[1] and said[1].endswith(": 4.")
    fit(values, log=False)
    fit(table())
    assert len(said) == 2


@pytest.mark.parametrize("rows", [20, 312])
def test_one_wrong_value_is_seen_however_few_rows_there_are(rows, monkeypatch):
    """Measured with the outlier among them, it would lie within sqrt(rows - 1) deviations; here NumPy leaves it out."""
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    values = table(rows=rows, columns=3)
    values[1, 2] = 1e6 * values[0, 2] + 1e6
    fit(values)
    others = np.delete(values[:, 2].astype(np.float64), 1)
    assert abs(values[1, 2] - others.mean()) / others.std() > standardize.OUTLYING
    assert len(said) == 1 and "1 of 3" in said[0] and said[0].endswith(": 2.")


def test_columns_are_named_and_so_are_those_that_one_deviation_for_all_silences(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    rng = np.random.default_rng(0)
    traces = rng.standard_normal((30, 8, 3)) * [1.0, 1e-4, 1.0]
    specs = {"heart": ModalitySpec("x", (8, 3), "conv1d", standardize="all")}
    found = modalities.fit_standardizers(specs, batches(traces), {"x": ("ecg", "gsr", "emg")})["heart"]
    exact = traces.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(found["mean"], exact.mean(), atol=1e-6)
    np.testing.assert_allclose(found["std"], exact.std(), rtol=1e-5)
    assert len(said) == 1 and "heart" in said[0] and "1 of 3" in said[0] and "gsr (1)" in said[0]


def test_missing_entries_do_not_count_and_stay_at_the_mean():
    values = table()
    values[np.random.default_rng(1).random(values.shape) < 0.3] = np.nan
    specs = {"eye": ModalitySpec("x", (COLUMNS,), "mlp")}
    found = modalities.fit_standardizers(specs, batches(values * 1e-9))["eye"]
    exact = (values * 1e-9).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(found["std"], np.nanstd(exact, 0), rtol=1e-5)
    np.testing.assert_allclose(found["mean"], np.nanmean(exact, 0), rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_column_without_a_value_in_training_or_with_one_is_dead(rows, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    values, specs = table(columns=3), {"eye": ModalitySpec("x", (3,), "mlp")}
    values[rows:, 1] = np.nan
    found = modalities.fit_standardizers(specs, batches(values))["eye"]
    assert len(said) == 1 and said[0].endswith(": 1.") and "dead" in said[0] and ("no value" in said[0]) == (rows == 0)
    assert found["std"][1] == standardize.IGNORED
    np.testing.assert_array_equal(np.asarray(found["std"])[::2], fit(values[:, ::2])["std"])


@pytest.mark.parametrize("base", [2.1, 1.0, -3.7e5, 1e-20])
def test_what_float32_arithmetic_makes_of_a_constant_is_dead(base):
    ulp = np.spacing(np.float32(base)).astype(np.float64)
    noise = np.random.default_rng(0).integers(-2, 3, (200, 1))
    values = (base + ulp * noise).astype(np.float32)
    assert fit(values)["std"][0] == standardize.IGNORED
    examples = array_examples("t", list(map(str, range(200))), {}, {}, {"x": values})
    assert reference.fit(examples, {"x": False})["x"].unit == 0


def test_a_modality_without_any_value_and_an_infinite_column_are_refused():
    values, specs = table(columns=3), {"eye": ModalitySpec("x", (3,), "mlp")}
    with pytest.raises(InputError, match=r"'eye'.* has no value.*Leave the modality out"):
        modalities.fit_standardizers(specs, batches(np.nan * values))
    values[3, 2] = np.inf
    with pytest.raises(InputError, match=r"'x' are infinite.* 1 of 3 columns .*: 2\). Correct"):
        fit(values)
    with pytest.raises(InputError, match="no training example"):
        standardize.fit(lambda weights, batch: {}, {}, [])


def test_the_same_statistics_on_eight_devices():
    scale = 10.0 ** np.linspace(-12, 12, COLUMNS)
    values = table(rows=64) * scale
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    split = [jax.device_put(batch, sharding) for batch in batches(values)]
    found = standardize.fit(lambda weights, batch: {"x": batch["x"]}, {}, split)["x"]
    assert found["std"].sharding.is_fully_replicated
    for name, value in fit(values).items():
        np.testing.assert_allclose(found[name] / scale, value / scale, rtol=1e-5, atol=1e-6)


def test_a_linear_map_goes_on_answering_as_before():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 4)).astype(np.float32)
    old = {"mean": jnp.zeros(4), "std": jnp.ones(4)}
    new = {"mean": jnp.array([1.0, 2, 3, 4]), "std": jnp.array([1e-3, 1.0, 1e3, standardize.IGNORED])}
    params = {"kernel": jnp.asarray(rng.standard_normal((4, 2)), jnp.float32), "bias": jnp.ones(2)}
    x[:, 3] = 4.0  # it has died: what it was is in the bias
    before = np.asarray(x) @ params["kernel"] + params["bias"][None]
    there = standardize.restandardize(params, old, new)
    answers = z(new, x) @ np.asarray(there["kernel"]) + np.asarray(there["bias"])
    np.testing.assert_allclose(answers, before, rtol=1e-4, atol=1e-4)
    back = standardize.restandardize(there, new, old)
    answers = z(old, x) @ np.asarray(back["kernel"]) + np.asarray(back["bias"])
    np.testing.assert_allclose(answers, before, rtol=1e-3, atol=1e-3)


def test_host_and_device_call_the_same_columns_dead():
    assert reference.DEAD == standardize.DEAD


def test_the_networks_standardiser_puts_a_dead_column_at_zero():
    values = table(columns=3)
    values[:, 1] = 5
    module = Standardizer((3,))
    fitted = fit(values)
    module.mean[...], module.std[...] = fitted["mean"], fitted["std"]
    out = np.asarray(module(jnp.asarray(values * 3, jnp.float32)))
    assert (np.abs(out[:, 1]) < 1e-20).all() and out[:, 0].std() > 1
