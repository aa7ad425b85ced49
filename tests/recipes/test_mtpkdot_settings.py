"""MT-PKDOT's settings: what they leave out, modality dropout, and those that are refused."""

import dataclasses

import jax
import numpy as np
import pytest
from mtpkdot_tables import ROWS, batches, build, make_config, make_examples, whole
from random_state import random_state

from emokd.errors import InputError
from emokd.phase import Context
from emokd.recipes.common import modalities
from emokd.recipes.common.task import Task
from emokd.training.state import create_state


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"pool": "joint", "objective.centroid": 0.0}, ["teach", "joint", "hallucinate", "align", "student"]),
        ({"objective.transport": 0.0, "objective.centroid": 0.0, "objective.features": 1.0}, None),
        ({"phases.hallucinate.enabled": False}, ["teach", "joint", "align", "student"]),
        ({f"phases.{name}.enabled": False for name in ("teach", "joint", "hallucinate", "align")}, ["student"]),
        ({"weighting": ({"name": "uniform"},), "structure.anchors": "most", "structure.solver": "converged"}, None),
    ],
)
def test_the_relatives_are_the_same_recipe_with_other_settings(changes, names):
    config, examples = make_config(), make_examples()
    config.update_from_flattened_dict(changes)
    recipe = build(config, examples)
    if names:
        assert [phase.name for phase in recipe.phases] == names
    state = jax.eval_shape(lambda: create_state(recipe, config, 3, jax.random.key(config.seed)))
    (batch,) = batches(examples, config)
    outcome = jax.eval_shape(
        recipe.phases[-1].objective, state.params, state.stats, {}, batch, Context(jax.random.key(0))
    )
    if "phases.teach.enabled" in changes:
        assert outcome.teacher_losses is None and list(recipe.teachers) == []
    else:
        assert outcome.teacher_losses.shape == (12, 1 if changes.get("pool") == "joint" else 4)
    measured = any(name.startswith("transport/") for name in outcome.metrics)
    assert measured == ("phases.teach.enabled" not in changes and changes.get("objective.transport") != 0.0)


def test_modality_dropout_leaves_every_example_something_that_it_has():
    config, examples = make_config(), make_examples()
    specs = modalities.create_specs(config, Task({}, (), {}, 12, inputs={name: (3,) for name in examples.inputs}))
    batch = {f"features/{name}": np.zeros((4000, 3), np.float32) for name in specs}
    keep = np.asarray(modalities.drop(jax.random.key(1), batch, specs, 0.7))
    assert keep.any(1).all()
    # P(kept) = .3 + P(all three dropped) / 3 = .3 + .343 / 3
    np.testing.assert_allclose(keep.mean(0), 0.3 + 0.7**3 / 3, atol=0.03)
    assert modalities.drop(jax.random.key(1), batch, specs, 0.0) is None
    first, *_ = specs
    batch[f"features/{first}"][::2] = np.nan
    keep = np.asarray(modalities.drop(jax.random.key(1), batch, specs, 0.7))
    assert keep.any(1).all() and not keep[::2, 0].any() and keep[1::2, 0].any()
    np.testing.assert_allclose(keep[::2, 1:].mean(0), 0.3 + 0.7**2 / 2, atol=0.04)


def test_subsets_are_all_proper_ones_or_those_without_one():
    assert modalities.subsets(("a", "b", "c")) == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    assert modalities.subsets(("a",)) == []
    assert [len(s) for s in modalities.subsets("abcdef")] == [5] * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure.k": 12}, "config.structure.k is 12, but a batch of 12 has 11 other examples"),
        ({"modalities.eye.privileged": True}, "Every modality is privileged"),
        ({"modalities.heart.input": "features/hart"}, "Did you mean 'features/heart'"),
        ({"phases.joint.enabled": False}, "teach and joint go together"),
        ({"pool": "joined"}, "Did you mean 'joint'"),
        ({"structure.anchors": "leat"}, "Did you mean 'least'"),
        ({"structure.solver": "geomlos"}, "Did you mean 'geomloss'"),
        ({"objective.transport": -1.0}, "config.objective.transport must be at least 0"),
        ({"modality_dropout": 1.5}, "config.modality_dropout must be"),
        ({"modalities.eye.standardize": "al"}, "Did you mean 'all'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    config = make_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        build(config, make_examples())


def test_a_privileged_modality_that_is_absent_in_training_is_an_error():
    config, examples = make_config(), make_examples()
    absent = np.full((ROWS, 4), np.nan, np.float32)
    examples = dataclasses.replace(examples, inputs={**examples.inputs, "features/skin": absent.__getitem__})
    recipe = build(config, examples)
    state = random_state(recipe, config, 3)
    with pytest.raises(InputError, match="Modality 'skin'.*has no value in any training"):
        recipe.phases[0].prepare(state.params, state.stats, {}, whole(examples, config))


def test_anchors_must_be_among_a_groups_rows():
    config, examples = make_config(), make_examples()
    config.structure.rows = 4
    with pytest.raises(
        InputError, match="k is 4, but a group of 4 has 3 other examples .*lower config.structure.k or "
    ):
        build(config, examples)
    config.structure.rows = 6
    build(config, examples)


def test_groups_must_fit_the_batch_and_its_devices():
    config, examples = make_config(), make_examples()
    config.structure.rows = 5
    with pytest.raises(InputError, match="rows is 5, which does not divide config.batch_size .12.*rows to 4, or to 0"):
        build(config, examples)
    config.structure.rows = 6
    with pytest.raises(InputError, match="Groups of 6 rows .* do not lie on 3 devices of 4 rows each"):
        build(config, examples, devices=3)
    build(config, examples, devices=4)
