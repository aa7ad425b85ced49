"""The study command, mostly with a fake `train`: known scores give a known table; resume, failure, mismatch, csv."""

import csv
import functools
import io
import json
import math
import pathlib
import types

import pytest
from scipy import stats

from emokd import study as command
from emokd.configuration.config import to_json
from emokd.errors import InputError
from emokd.jobs import began, job, locks
from emokd.studies import run as runs
from emokd.studies.plan import create_study, define, product
from emokd.studies.run import collect, estimate_seconds, folder_of, list_runs, run_study
from emokd.studies.table import results_csv, study_table

BASE = """
from ml_collections import ConfigDict

def get_config(arg="plain"):
    return ConfigDict({"seed": 0, "method": arg, "strength": 1.0, "devices": 0, "warmup_epochs": 2.0,
                       "data": {"source": "manifest", "fold": 0, "options": {}}})
"""

ACCURACY = {"kd": {0: 0.5, 1: 0.625, 2: 0.75}, "none": {0: 0.5, 1: 0.5, 2: 0.5}}


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(BASE)
    return str(path)


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """A full garbage collection takes half a second with JAX loaded, and frees nothing here."""
    monkeypatch.setattr(runs, "gc", types.SimpleNamespace(collect=lambda: 0, freeze=lambda: None))


def make_study(file, **changes):
    parts = {
        "title": "Does KD help?",
        "variants": {"none": {"method": "none"}, "kd": {"method": "kd", "strength": 2.0}},
        "metric": "student.expression.accuracy",
        "seeds": (0, 1, 2),
        "per_seed": ("seed", "data.fold"),
        "baseline": "none",
    }
    return create_study(define(**{"base": file, **parts, **changes}))


class FakeTrain:
    """Writes scores as `emokd.jobs.job.train` does; fails where it is told to; remembers its calls."""

    def __init__(self, failing=(), score=lambda config: ACCURACY[config.method][config.seed]):
        self.calls, self.failing, self.score = [], failing, score

    def __call__(self, config, workdir, **options):
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(to_json(config))
        self.calls.append((config.method, config.seed, config.data.fold))
        if (config.method, config.seed) in self.failing:
            raise InputError("There is no file x.")
        scores = {
            "split": "test",
            "examples": 40,
            "student": {"expression": {"accuracy": self.score(config), "confusion": [[1]]}, "parameters": 1000},
            "teachers": {"big": {"expression": {"accuracy": 0.625}, "macs": 2e9, "size": 224}},
            "weights": {"distill": {"mean": {"big": 1.0}}},
        }
        (folder / "scores.json").write_text(json.dumps(scores))
        return scores


class FakeClock:
    """Every look at it is 5 seconds later: a run takes 5 seconds."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 5.0
        return self.now


def cells(text):
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def row_of(text, name):
    return next(row[1:] for row in cells(text) if row[0] == name)


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


def test_a_second_call_reads_what_is_finished(tmp_path, base):
    study = make_study(base)
    first = run_study(study, tmp_path / "out", train=FakeTrain(), clock=FakeClock())
    again = FakeTrain()
    second = run_study(study, tmp_path / "out", train=again)
    assert again.calls == []
    assert cells(second) == cells(first)


def test_failure_names_the_run_and_keeps_the_rest(tmp_path, base):
    study = make_study(base)
    with pytest.raises(InputError, match=r"Variant kd, seed 1, in .*kd/seed1: There is no file x"):
        run_study(study, tmp_path / "out", train=FakeTrain(failing={("kd", 1)}))
    table = (tmp_path / "out" / "table.md").read_text()
    assert "3 of 6 finished" in table
    assert row_of(table, "none")[2] == "2" and row_of(table, "kd")[2] == "1"
    assert row_of(table, "kd minus none") == ["+0.0000", "-", "1"]  # paired over seed 0 alone
    later = FakeTrain()
    table = run_study(study, tmp_path / "out", train=later, clock=FakeClock())
    assert later.calls == [("kd", 1, 1), ("none", 2, 2), ("kd", 2, 2)]
    assert "6 of 6 finished" in table
    seconds = {(r.variant, r.seed): r.seconds for r in collect(study, tmp_path / "out")}
    assert seconds["kd", 1] is None  # it was begun before, so its time is not known
    assert seconds["kd", 2] == 5.0


def test_a_study_whose_first_run_is_refused_leaves_no_table(tmp_path, base):
    with pytest.raises(InputError, match="There is no file x"):
        run_study(make_study(base), tmp_path / "study", train=FakeTrain(failing=[("none", 0)]))
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["runs"]


def test_a_run_of_another_configuration_stops_before_anything_runs(tmp_path, base):
    run_study(make_study(base, seeds=(0,)), tmp_path / "out", train=FakeTrain())
    changed = make_study(base, variants={"none": {"method": "none"}, "kd": {"method": "kd", "strength": 3.0}})
    train = FakeTrain()
    with pytest.raises(InputError, match=r"kd/seed0.*strength"):
        run_study(changed, tmp_path / "out", train=train)
    assert train.calls == []


def test_keys_that_only_say_how_it_runs_may_differ(tmp_path, base):
    run_study(make_study(base, seeds=(0,)), tmp_path / "out", train=FakeTrain())
    train = FakeTrain()
    changed = {"none": {"method": "none", "devices": 1}, "kd": {"method": "kd", "strength": 2.0}}
    run_study(make_study(base, seeds=(0,), variants=changed), tmp_path / "out", train=train)
    assert train.calls == []


def test_only_runs_the_chosen_but_shows_all(tmp_path, base):
    study, train = make_study(base), FakeTrain()
    run_study(study, tmp_path / "out", train=train, only=["none"])
    assert {method for method, _, _ in train.calls} == {"none"}
    table = run_study(study, tmp_path / "out", train=FakeTrain(), only=["kd"])
    assert "6 of 6 finished" in table
    with pytest.raises(InputError, match="Did you mean 'none'"):
        run_study(study, tmp_path / "out", train=train, only=["nome"])


def test_list_says_what_is_done(tmp_path, base):
    study = make_study(base, seeds=(0, 1))
    with pytest.raises(InputError):
        run_study(study, tmp_path / "out", train=FakeTrain(failing={("kd", 0)}))
    assert [tuple(row) for row in cells(list_runs(study, tmp_path / "out"))[2:]] == [
        ("none", "seed 0", "done"),
        ("kd", "seed 0", "begun"),
        ("none", "seed 1", "to do"),
        ("kd", "seed 1", "to do"),
    ]
    assert len(cells(list_runs(study, tmp_path / "out", ["kd"]))) == 4


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


def test_scores_cut_off_are_an_input_error_with_file_and_line(tmp_path, base):
    study = make_study(base)
    run_study(study, tmp_path / "out", train=FakeTrain())
    (folder_of(tmp_path / "out", study.runs[0]) / "scores.json").write_text("{")
    with pytest.raises(InputError, match=r"scores\.json .*Remove the folder"):
        run_study(study, tmp_path / "out", train=FakeTrain())


def test_teachers_that_differ_between_variants_have_their_own_rows(tmp_path, base):
    class OwnTeachers(FakeTrain):
        def __call__(self, config, workdir, **options):
            scores = super().__call__(config, workdir)
            scores["teachers"]["big"]["expression"]["accuracy"] = 0.25 if config.method == "kd" else 0.75
            (pathlib.Path(workdir) / "scores.json").write_text(json.dumps(scores))

    table = run_study(make_study(base), tmp_path / "out", train=OwnTeachers())
    assert row_of(table, "teacher big (none)")[0] == "0.7500"
    assert row_of(table, "teacher big (kd)")[0] == "0.2500"


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


def test_the_estimate_prefers_the_variant_s_own_times(tmp_path, base):
    study = make_study(base)
    run_study(study, tmp_path / "out", train=FakeTrain(), clock=FakeClock(), only=["none"])
    done = collect(study, tmp_path / "out")
    waiting = [run for run in study.runs if run.variant == "kd"]
    assert estimate_seconds(done, waiting) == pytest.approx(15.0)
    assert estimate_seconds([], waiting) is None


def test_an_empty_study_has_a_table_too():
    text = study_table(
        [], title="t", metric="m", also=(), per_seed=("seed",), per_fold=(), baselines={"a": ("b",)}, planned=2,
        synthetic=False, command="c", date="d",
    )  # fmt: skip
    assert "0 of 2 finished" in text and cells(text) == []
    assert results_csv([]).startswith("variant,seed,fold,seconds,")


class RecordingTrain(FakeTrain):
    """Also writes what a run began with: `label` is the target of the one test example."""

    label = "a"

    def __call__(self, config, workdir, **options):
        scores = super().__call__(config, workdir, **options)
        part = {"keys": ["x"], "contents": "", "columns": {"expression": began._digests([self.label.encode()])}}
        record = {
            "sets": {"test": part}, "classes": {}, "accepted": [], "files": {}, "trained": {},
            "config": json.loads(to_json(config)),
        }  # fmt: skip
        began.write(pathlib.Path(workdir), record)
        return scores


def test_runs_of_different_data_do_not_stand_in_one_table_unless_that_is_accepted(base, tmp_path):
    study = make_study(base, seeds=(0,))
    train = RecordingTrain(failing={("kd", 0)})
    with pytest.raises(InputError, match="no file x"):
        run_study(study, tmp_path, train=train)
    train = RecordingTrain()
    train.label = "b"
    with pytest.raises(
        InputError, match=r"kd.* began with other data than .*none.*expression of 1 examples \(x\).*Remove"
    ):
        run_study(study, tmp_path, train=train)
    with pytest.raises(InputError, match="began with other data"):  # also where nothing is left to run
        run_study(study, tmp_path, train=train)
    table = run_study(study, tmp_path, train=train, accept_changed_data=True)
    assert "Runs of different data stand in this table" in table and "expression of 1 examples (x)" in table
    assert (tmp_path / "table.md").read_text() == table


def test_the_command_lists_and_runs(tmp_path, base, monkeypatch, capsys):
    """main() through absl's flags, with train replaced."""
    file = tmp_path / "study_config.py"
    file.write_text(
        "from emokd.studies.plan import define\n"
        "def get_config(arg=''):\n"
        f"    return define(title='t', base={base!r}, variants={{'kd': {{'method': 'kd'}}}},\n"
        "                  metric='student.expression.accuracy', seeds=(0, 1))\n"
    )
    config = command.configuration.load(str(file))
    values = {"CONFIG": config, "WORKDIR": str(tmp_path / "out"), "ONLY": [], "LIST": True, "ACCEPT": False}
    for name, value in values.items():
        monkeypatch.setattr(command, name, type("Holder", (), {"value": value}))
    monkeypatch.setattr(command, "train", FakeTrain())
    command.main([])
    assert capsys.readouterr().out.count("to do") == 2
    monkeypatch.setattr(command, "LIST", type("Holder", (), {"value": False}))
    with locks.held(tmp_path / "out"), pytest.raises(InputError, match="out is in use by process"):
        command.main([])
    command.main([])
    assert row_of(capsys.readouterr().out, "kd")[0] == "0.5625"


TINY = """
from emokd.configuration import defaults
from emokd.recipes import supervised
from small_jobs import paint

def get_config(arg=""):
    config = paint(supervised.default_config(), steps=1)
    config.devices = 1
    config.phases.train = defaults.phase(steps=1, learning_rate=1e-2)
    config.select.which = "last"
    return config
"""


@pytest.mark.slow
def test_a_study_of_real_runs(tmp_path):
    """Two runs of one step each, which share their programs; the table has the numbers of their scores."""
    (tmp_path / "tiny.py").write_text(TINY)
    config = define(
        title="t",
        base=str(tmp_path / "tiny.py"),
        variants={"base": {}, "faster": {"phases.train.learning_rate": 0.1}},
        metric="student.expression.accuracy",
        seeds=(0,),
        baseline="base",
    )
    study, workdir = create_study(config, tmp_path / "out"), tmp_path / "out"
    table = run_study(study, workdir, train=functools.partial(job.train, report=False, shared={}))
    for run in study.runs:
        scores = json.loads((folder_of(workdir, run) / "scores.json").read_text())
        assert scores["selected_step"] == 1 and scores["examples"] == 11
        assert float(row_of(table, run.variant)[0]) == pytest.approx(
            scores["student"]["expression"]["accuracy"], abs=1e-3
        )
    assert "Synthetic data" in table
    # Run again, it trains nothing.
    assert run_study(study, workdir, train=None) == table
