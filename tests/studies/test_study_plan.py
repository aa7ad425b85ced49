"""What a study is made of: variants, seeds, folds, and mistakes in them."""

import pytest
from study_setup import make_study

from emokd.errors import InputError
from emokd.studies.plan import create_study, define, product


def test_product_names_and_merges(base):
    grid = product({"s": {"strength": 0.5}, "l": {"strength": 4.0}}, {"kd": {"method": "kd"}, "none": {}})
    assert grid == {
        "s-kd": {"strength": 0.5, "method": "kd"},
        "s-none": {"strength": 0.5},
        "l-kd": {"strength": 4.0, "method": "kd"},
        "l-none": {"strength": 4.0},
    }
    study = make_study(base, variants=grid, baseline={"s-kd": "s-none", "l-kd": ("l-none", "s-kd")})
    assert study.variants == ["s-kd", "s-none", "l-kd", "l-none"]
    assert study.baselines == {"s-kd": ("s-none",), "l-kd": ("l-none", "s-kd")}
    assert study.runs[2].config.strength == 4.0 and study.runs[2].config.method == "kd"


def test_a_variant_may_start_from_another_file(base):
    study = make_study(base, variants={"a": {"base": f"{base}:other", "strength": 3}, "none": {}}, seeds=(7,))
    assert [run.config.method for run in study.runs] == ["other", "plain"]
    assert [run.config.seed for run in study.runs] == [7, 7]


def test_durations_may_change_their_unit(base):
    study = make_study(base, variants={"a": {"warmup_steps": 5}}, baseline=())
    assert study.runs[0].config.warmup_steps == 5 and "warmup_epochs" not in study.runs[0].config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"kd": {"metod": "kd"}}, "baseline": ()}, r"Variant 'kd'.*'metod'.*Did you mean 'method'"),
        ({"variants": {"kd": {"strength": "x"}}, "baseline": ()}, r"Variant 'kd'.*strength"),
        ({"per_seed": ("sed",)}, r"Did you mean 'seed'"),
        ({"per_seed": ()}, r"per_seed \(\): the second names the keys"),
        ({"folds": (0, 1)}, r"folds \(0, 1\) and per_fold \(\)"),
        ({"per_fold": ("data.fold",)}, r"folds \(\) and per_fold"),
        ({"folds": (0, 0), "per_fold": ("data.fold",)}, r"a fold twice"),
        ({"baseline": "nome"}, r"no variant 'nome'\. Did you mean 'none'"),
        ({"baseline": {"kd": "nome"}}, r"Did you mean 'none'"),
        ({"baseline": {"kdd": "none"}}, r"Did you mean 'kd'"),
        ({"seeds": ()}, r"at least one"),
        ({"seeds": (1, 1)}, r"twice"),
        ({"seeds": ("a",)}, r"whole numbers"),
        ({"variants": {}, "baseline": ()}, r"no variants"),
        ({"variants": {"../x": {}}, "baseline": ()}, r"names a folder"),
        ({"base": "nowhere.py"}, r"no configuration file 'nowhere\.py'"),
    ],
)
def test_mistakes_are_input_errors(base, changes, message):
    with pytest.raises(InputError, match=message):
        make_study(base, **changes)


def test_missing_and_unknown_parts_are_input_errors(base):
    config = define(title="t", base=base, variants={"a": {}}, metric="m")
    del config["metric"]
    with pytest.raises(InputError, match="no 'metric'"):
        create_study(config)
    config.metric, config.seed = "m", 3
    with pytest.raises(InputError, match="'seed'.*Did you mean 'seeds'"):
        create_study(config)
