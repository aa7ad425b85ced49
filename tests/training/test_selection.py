"""The best step, and how many evaluations early stopping has waited."""

import dataclasses
import json

import pytest

from emokd.errors import InputError
from emokd.training.selection import Best, check_early_stopping


def after(scores, min_delta=0.0, best=None):
    best = best or Best()
    for step, score in enumerate(scores, 1):
        best = best.improved(step, score, min_delta)
    return best


@pytest.mark.parametrize(
    ("scores", "min_delta", "best", "waited"),
    [
        ([0.1, 0.2, 0.3], 0.0, 3, 0),
        ([0.3, 0.2, 0.1], 0.0, 1, 2),
        ([0.3, 0.3], 0.0, 2, 1),  # the later one at a tie, which is no improvement
        ([0.3, float("nan"), 0.1], 0.0, 1, 2),
        ([0.30, 0.34, 0.38, 0.42], 0.1, 4, 0),  # small steps add up: they are measured from the last improvement
        ([0.30, 0.34, 0.38], 0.1, 3, 2),
    ],
)
def test_the_best_step_and_the_evaluations_without_a_better_score(scores, min_delta, best, waited):
    found = after(scores, min_delta)
    assert (found.step, found.waited) == (best, waited)


def test_a_phase_waits_for_scores_of_its_own_and_the_best_step_stays():
    found = after([0.2, 0.1], best=after([0.9, 0.8]).begun())
    assert (found.score, found.phase_score, found.waited) == (0.9, 0.2, 1)


def test_a_checkpoint_gives_it_back():
    grown = Best().begins_at("distill", 0.1 + 0.2).remarked("distill", "The loss is 8e5.")
    for best in (Best(), after([0.5, 0.4]).ended("classify", 2), grown):
        assert Best.from_json(json.loads(json.dumps(best.to_json()))) == best


def test_early_stopping_where_no_phase_is_scored_is_refused(recipe, config):
    config.early_stopping.patience = 2
    check_early_stopping(recipe, config)
    unscored = dataclasses.replace(recipe, phases=recipe.phases[:1])
    with pytest.raises(InputError, match="patience is 2, but in no phase of this run .distill. is the student scored"):
        check_early_stopping(unscored, config)
