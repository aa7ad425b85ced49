"""A study's table and its CSV: known scores give known means, intervals and differences."""

import csv
import io
import json
import math
import pathlib

import pytest
from scipy import stats
from study_setup import ACCURACY, FakeClock, FakeTrain, cells, make_study, row_of

from emokd.errors import InputError
from emokd.studies.plan import create_study, define
from emokd.studies.run import list_runs, run_study
from emokd.studies.table import results_csv, study_table


def test_known_scores_give_the_known_table(tmp_path, base):
    train = FakeTrain()
    table = run_study(make_study(base), tmp_path / "out", train=train, clock=FakeClock())
    # Seed by seed, and the seed goes to both keys.
    assert train.calls == [("none", 0, 0), ("kd", 0, 0), ("none", 1, 1), ("kd", 1, 1), ("none", 2, 2), ("kd", 2, 2)]
    # kd: mean 0.625, standard deviation 0.125; the difference to none is 0, 0.125, 0.25.
    half = stats.t.ppf(0.975, 2) * 0.125 / math.sqrt(3)
    interval = f"{0.625 - half:.4f} to {0.625 + half:.4f}"
    assert row_of(table, "kd") == ["0.6250", interval, "3", "1 k", "-", "5"]
    assert row_of(table, "none") == ["0.5000", "0.5000 to 0.5000", "3", "1 k", "-", "5"]
    assert row_of(table, "teacher big") == ["0.6250", "0.6250 to 0.6250", "3", "-", "2 G at 224", "-"]
    assert row_of(table, "kd minus none") == ["+0.1250", f"{0.125 - half:+.4f} to {0.125 + half:+.4f}", "3"]
    assert (tmp_path / "out" / "table.md").read_text() == table


def test_a_grid_of_seeds_and_folds_has_intervals_over_folds(tmp_path, base):
    study = make_study(base, seeds=(0, 1), per_seed=("seed",), folds=(0, 1, 2), per_fold=("data.fold",))
    values = {"none": lambda c: 0.5, "kd": lambda c: 0.5 + 0.125 * c.data.fold + 0.25 * c.seed}
    train = FakeTrain(score=lambda config: values[config.method](config))
    table = run_study(study, tmp_path / "out", train=train, clock=FakeClock())
    assert train.calls[:4] == [("none", 0, 0), ("kd", 0, 0), ("none", 0, 1), ("kd", 0, 1)]
    assert (tmp_path / "out" / "runs" / "kd" / "seed1" / "fold2" / "scores.json").exists()
    # Means over the two seeds: 0.625, 0.75, 0.875; six runs, but three folds.
    half = stats.t.ppf(0.975, 2) * 0.125 / math.sqrt(3)
    assert row_of(table, "kd")[:3] == ["0.7500", f"{0.75 - half:.4f} to {0.75 + half:.4f}", "3"]
    assert row_of(table, "kd minus none") == ["+0.2500", f"{0.25 - half:+.4f} to {0.25 + half:+.4f}", "3"]
    assert "12 of 12 finished" in table and "a fold data.fold" in table and "fewer than 5 folds" in table
    assert list_runs(study, tmp_path / "out").count("done") == 12


def test_pairs_are_of_the_same_seed_and_fold(tmp_path, base):
    study = make_study(base, seeds=(0, 1), per_seed=("seed",), folds=(0, 1), per_fold=("data.fold",))
    missing = lambda c: c.method == "kd" and (c.seed, c.data.fold) == (1, 0)  # noqa: E731
    train = FakeTrain(score=lambda c: math.nan if missing(c) else 0.5 * c.seed)
    table = run_study(study, tmp_path / "out", train=train)
    assert row_of(table, "kd minus none")[0] == "+0.0000"  # were seed 1 of fold 0 counted for "none", it would not be
    assert "kd seed 1, fold 0" in table


def test_further_numbers_are_shown_for_students_and_teachers(tmp_path, base):
    study = make_study(base, also=("student.expression.accuracy", "student.parameters"))
    table = run_study(study, tmp_path / "out", train=FakeTrain())
    [heading] = [row for row in cells(table) if row[0] == "mean of"]
    assert heading[1:] == ["accuracy", "student parameters"]
    rows = {row[0]: row[1:] for row in cells(table) if len(row) == 3}
    assert rows["kd"] == ["0.6250", "1000.0000"] and rows["none"] == ["0.5000", "1000.0000"]
    assert rows["teacher big"] == ["0.6250", "-"]
    [further] = [row for row in cells(table) if row[0] == "kd minus none" and len(row) == 3]
    half = stats.t.ppf(0.975, 2) * 0.125 / math.sqrt(3)
    assert further[1] == f"+0.1250 ({0.125 - half:+.4f} to {0.125 + half:+.4f})"


def test_unequal_classes_bring_balanced_accuracy_and_those_never_answered(tmp_path, base):
    def scores(method):
        right = {"none": 0, "kd": 2}[method]  # of four sad faces; ten are neutral, and are called so
        confusion = [[10, 0, 0], [4 - right, right, 0], [0, 0, 0]]
        counts = {name: {"count": sum(row)} for name, row in zip(("neutral", "sad", "fear"), confusion, strict=True)}
        balanced = (1 + right / 4) / 2
        more = {"balanced_accuracy": balanced, "per_class": counts, "classes": list(counts), "confusion": confusion}
        return {"accuracy": (10 + right) / 14, **more}

    class Unequal(FakeTrain):
        def __call__(self, config, workdir, **options):
            found = super().__call__(config, workdir, **options)
            found["student"]["expression"] = found["teachers"]["big"]["expression"] = scores(config.method)
            (pathlib.Path(workdir) / "scores.json").write_text(json.dumps(found))
            return found

    table = run_study(make_study(base), tmp_path / "out", train=Unequal())
    [heading] = [row for row in cells(table) if row[0] == "mean of"]
    assert heading[1:] == ["balanced accuracy"]
    assert ["kd", "0.7500"] in cells(table) and ["none", "0.5000"] in cells(table)
    assert ["teacher big (kd)", "0.7500"] in cells(table)
    [note] = [line for line in table.splitlines() if "never answers" in line]
    assert "none: expression sad (3 of 3)" in note and "kd" not in note and "fear" not in note
    again = make_study(base, also=("student.expression.balanced_accuracy",))
    table = run_study(again, tmp_path / "again", train=Unequal())
    [heading] = [row for row in cells(table) if row[0] == "mean of"]
    assert heading[1:] == ["balanced accuracy"]


def test_variants_build_on_others_that_the_table_leaves_out(tmp_path, base):
    variants = {"big": {"method": "none"}, "small": {"method": "kd", "data.source": "{run:big}"}}
    study = create_study(
        define(
            title="t", base=base, variants=variants, metric="student.expression.accuracy", seeds=(0, 1),
            baseline="small", support=("big",),
        ),
        tmp_path / "out",
    )  # fmt: skip
    assert [run.config.data.source for run in study.runs if run.variant == "small"] == [
        str(tmp_path / "out" / "runs" / "big" / f"seed{seed}") for seed in (0, 1)
    ]
    table = run_study(study, tmp_path / "out", train=FakeTrain())
    assert "2 of 2 finished" in table and [row[0] for row in cells(table) if row[0] in variants] == ["small"]
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "out" / "results.csv").read_text())))) == 4
    with pytest.raises(InputError, match=r"'small' builds on 'big', which must come before it"):
        make_study(base, variants=dict(reversed(variants.items())), baseline=())
    with pytest.raises(InputError, match=r"no variant 'bgi'. Did you mean 'big'"):
        make_study(base, variants={**variants, "small": {"data.source": "{run:bgi}"}}, baseline=())


def test_the_header_says_where_the_numbers_come_from(tmp_path, base, monkeypatch):
    monkeypatch.setattr("sys.argv", ["study.py", "--config=a b.py"])
    table = run_study(make_study(base, seeds=(0,)), tmp_path / "out", train=FakeTrain())
    assert table.startswith("# Does KD help?\n")
    assert "--config=a b.py'`" in table
    for part in ("- Commit: ", "- Date: 20", "- Machine: ", "jax ", "- Split: test (40 examples)", "2 of 2 finished"):
        assert part in table
    assert "A seed sets seed, data.fold" in table
    assert "fewer than 5 seeds" in table
    assert "ynthetic" not in table


def test_painted_faces_are_called_synthetic(tmp_path, base):
    study = make_study(base, variants={"none": {"method": "none", "data.source": "painter"}})
    assert "Synthetic data" in run_study(study, tmp_path / "out", train=FakeTrain())


def test_csv_has_a_row_per_run_with_every_number(tmp_path, base):
    run_study(make_study(base), tmp_path / "out", train=FakeTrain(), clock=FakeClock())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "results.csv").read_text())))
    assert [(r["variant"], r["seed"]) for r in rows] == [(v, s) for v in ("none", "kd") for s in "012"]
    assert [float(r["student.expression.accuracy"]) for r in rows] == [0.5, 0.5, 0.5, 0.5, 0.625, 0.75]
    assert rows[0]["seconds"] == "5.0" and rows[0]["examples"] == "40.0"
    assert rows[0]["teachers.big.expression.accuracy"] == "0.625" and rows[0]["weights.distill.mean.big"] == "1.0"
    assert rows[0]["commit"] and rows[0]["machine"]


def test_a_metric_that_does_not_exist_names_the_nearest(tmp_path, base):
    study = make_study(base, metric="student.expression.acuracy")
    with pytest.raises(InputError, match=r"'student\.expression\.accuracy'"):
        run_study(study, tmp_path / "out", train=FakeTrain())
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 2  # the finished run is there


def test_a_score_that_is_not_finite_is_left_out_and_said_so(tmp_path, base):
    train = FakeTrain(score=lambda config: math.nan if config.seed == 2 else ACCURACY[config.method][config.seed])
    table = run_study(make_study(base), tmp_path / "out", train=train)
    assert row_of(table, "kd")[2] == "2"
    assert "not finite: none seed 2, kd seed 2" in table


def test_teachers_that_differ_between_variants_have_their_own_rows(tmp_path, base):
    class OwnTeachers(FakeTrain):
        def __call__(self, config, workdir, **options):
            scores = super().__call__(config, workdir)
            scores["teachers"]["big"]["expression"]["accuracy"] = 0.25 if config.method == "kd" else 0.75
            (pathlib.Path(workdir) / "scores.json").write_text(json.dumps(scores))

    table = run_study(make_study(base), tmp_path / "out", train=OwnTeachers())
    assert row_of(table, "teacher big (none)")[0] == "0.7500"
    assert row_of(table, "teacher big (kd)")[0] == "0.2500"


def test_an_empty_study_has_a_table_too():
    text = study_table(
        [], title="t", metric="m", also=(), per_seed=("seed",), per_fold=(), baselines={"a": ("b",)}, planned=2,
        synthetic=False, command="c", date="d",
    )  # fmt: skip
    assert "0 of 2 finished" in text and cells(text) == []
    assert results_csv([]).startswith("variant,seed,fold,seconds,")
