"""Which phases compare the examples of a batch, so that gradient accumulation is refused there."""

import mtpkdot_tables
import pytest
import recipes_setup

from emokd.configuration import defaults
from emokd.data import sources
from emokd.errors import InputError
from emokd.recipes import bounded, supervised
from emokd.recipes.common.task import Task
from emokd.training.accumulation import check_accumulation

TASK = Task({"expression": ("no", "yes")}, ("expression", "valence_arousal"), {"labelled": 24}, 12)


def relational(recipe) -> dict[str, str]:
    return {phase.name: phase.relational.replace("config.", "") for phase in recipe.phases}


@pytest.mark.parametrize(
    ("changes", "targets", "expected"),
    [
        ({}, ("expression",), ["", "", "hallucination.loss=mmd", "", "objective.transport, objective.centroid"]),
        (
            {"objective.transport": 0.0, "hallucination.loss": "mse", "affect_loss": "mse"},
            ("expression", "valence_arousal"),
            ["", "", "", "", "objective.centroid"],
        ),
        (
            {"objective.transport": 0.0, "objective.centroid": 0.0, "objective.features": 1.0},
            ("valence_arousal",),
            ["affect_loss=ccc", "affect_loss=ccc", "hallucination.loss=mmd", "affect_loss=ccc", "affect_loss=ccc"],
        ),
        (
            {"objective.transport": 0.0, "objective.centroid": 0.0, "fusion.options": {"attend": "batch"}},
            ("expression",),
            [*["fusion.options.attend=batch"] * 2, "fusion.options.attend=batch, hallucination.loss=mmd"]
            + ["fusion.options.attend=batch"] * 2,
        ),
    ],
)
def test_phases_of_mtpkdot(changes, targets, expected):
    config = mtpkdot_tables.make_config()
    for key, value in changes.items():
        config.update_from_flattened_dict({key: value}) if key != "fusion.options" else config.fusion.update(
            options=value
        )
    found = relational(mtpkdot_tables.build(config, mtpkdot_tables.make_examples(targets)))
    assert found == dict(zip(("teach", "joint", "hallucinate", "align", "student"), expected, strict=True))


@pytest.mark.parametrize(
    ("loss", "expected"), [("ccc", "affect_loss=ccc"), ("emonet", "affect_loss=emonet"), ("mse", "")]
)
def test_phases_of_bounded(loss, expected):
    config = bounded.default_config()
    config.student, config.affect_loss = defaults.network("basic_cnn", size=16, width=2), loss
    assert relational(bounded.build(config, TASK, {})) == {"distill": expected}


@pytest.mark.parametrize(
    ("targets", "expected"), [(("expression",), ""), (("expression", "valence_arousal"), "affect_loss=ccc")]
)
def test_phases_of_supervised(targets, expected):
    config = supervised.default_config()
    config.student, config.targets = defaults.network("basic_cnn", size=16, width=2), targets
    assert relational(supervised.build(config, TASK, {})) == {"train": expected}


def test_smkd_compares_no_examples_whatever_its_weighting():
    config = recipes_setup.make_config()
    config.weighting = ({"name": "aekd"},)
    examples = sources.load("painter", "", config.data.options)
    recipe = recipes_setup.build(config, recipes_setup.make_models(), examples)
    assert set(relational(recipe).values()) == {""}
    config.accumulate = 4
    check_accumulation(recipe, config)


def test_a_recipe_that_compares_them_is_refused():
    config = mtpkdot_tables.make_config()
    config.accumulate = 2
    recipe = mtpkdot_tables.build(config, mtpkdot_tables.make_examples())
    with pytest.raises(InputError, match=r"phase 'hallucinate' compares .* \(config.hallucination.loss=mmd\)"):
        check_accumulation(recipe, config)
