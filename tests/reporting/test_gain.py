"""The sentence on what distillation gave."""

import math

from emokd.reporting.gain import gain_of_distillation


def scores(student, alone, steps=120):
    return {"student": student, "baseline": alone, "baseline_training": {"steps": steps}}


def test_every_headline_that_both_have_is_told_with_its_sign():
    found = gain_of_distillation(
        scores(
            {
                "expression": {"accuracy": 0.75, "macro_f1": 0.5, "ece": 0.3},
                "valence_arousal": {"valence": {"rmse": 0.25}},
            },
            {
                "expression": {"accuracy": 0.5, "macro_f1": 0.625, "ece": 0.1},
                "valence_arousal": {"valence": {"rmse": 0.5}},
            },
        )
    )
    assert found == (
        "Distillation gave +0.2500 accuracy, -0.1250 macro F1, -0.2500 valence RMSE (lower is better) over the same "
        "network on labels alone, trained for 120 steps; one run."
    )


def test_what_one_of_them_lacks_or_is_no_number_is_not_compared():
    own = {"expression": {"accuracy": 0.75, "macro_f1": math.nan}}
    assert "macro" not in gain_of_distillation(scores(own, {"expression": {"accuracy": 0.5, "macro_f1": 0.5}}))
    assert gain_of_distillation(scores(own, {"valence_arousal": {"mean_ccc": 0.5}})) == ""
    assert gain_of_distillation({"student": own}) == ""
