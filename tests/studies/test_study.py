"""The study command: it resumes, says what failed, and refuses runs of other configurations or data."""

import functools
import json
import pathlib

import pytest
from study_setup import FakeClock, FakeTrain, cells, make_study, row_of

from emokd import study as command
from emokd.configuration.config import load, to_json
from emokd.errors import InputError
from emokd.jobs import available_teachers, began, job, locks
from emokd.jobs.record import write
from emokd.studies.plan import create_study, define
from emokd.studies.run import RECORD, collect, estimate_seconds, folder_of, list_runs, run_study


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


def test_a_run_whose_record_was_not_written_has_what_its_scores_say(tmp_path, base):
    """As where the study is killed between the two."""
    study = make_study(base)
    run_study(study, tmp_path / "out", train=FakeTrain(), clock=FakeClock())
    folder = folder_of(tmp_path / "out", study.runs[0])
    (folder / RECORD).unlink()
    scores = json.loads((folder / "scores.json").read_text())
    facts = {"commit": "abc", "date": "then", "machine": "that one", "versions": "some"}
    (folder / "scores.json").write_text(json.dumps({**scores, "provenance": facts}))
    run_study(study, tmp_path / "out", train=FakeTrain())
    first = study.runs[0].variant, study.runs[0].seed
    found = next(r for r in collect(study, tmp_path / "out") if (r.variant, r.seed) == first)
    assert (found.seconds, found.facts) == (None, facts)
    assert ",,abc,then,that one,some," in (tmp_path / "out" / "results.csv").read_text()


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


def test_scores_cut_off_are_an_input_error_with_file_and_line(tmp_path, base):
    study = make_study(base)
    run_study(study, tmp_path / "out", train=FakeTrain())
    (folder_of(tmp_path / "out", study.runs[0]) / "scores.json").write_text("{")
    with pytest.raises(InputError, match=r"scores\.json .*Remove the folder"):
        run_study(study, tmp_path / "out", train=FakeTrain())


def test_the_estimate_prefers_the_variant_s_own_times(tmp_path, base):
    study = make_study(base)
    run_study(study, tmp_path / "out", train=FakeTrain(), clock=FakeClock(), only=["none"])
    done = collect(study, tmp_path / "out")
    waiting = [run for run in study.runs if run.variant == "kd"]
    assert estimate_seconds(done, waiting) == pytest.approx(15.0)
    assert estimate_seconds([], waiting) is None


class RecordingTrain(FakeTrain):
    """Also writes what a run began with: `label` is the target of the one test example."""

    label = "a"
    unlabelled: tuple[str, ...] = ()

    def __call__(self, config, workdir, **options):
        scores = super().__call__(config, workdir, **options)
        part = {"keys": ["x"], "contents": "", "columns": {"expression": began._digests([self.label.encode()])}}
        extra = {"keys": list(self.unlabelled), "contents": "", "columns": {}}
        record = {
            "sets": {"test": part, began.EXTRA: extra}, "classes": {}, "accepted": [], "files": {}, "trained": {},
            "config": json.loads(to_json(config)),
        }  # fmt: skip
        write(pathlib.Path(workdir), record)
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


def test_runs_of_different_unlabelled_pictures_do_not_stand_in_one_table(base, tmp_path):
    study, train = make_study(base, seeds=(0,)), RecordingTrain(failing={("kd", 0)})
    with pytest.raises(InputError, match="no file x"):
        run_study(study, tmp_path, train=train)
    train = RecordingTrain()
    train.unlabelled = ("new.png",)
    with pytest.raises(InputError, match=r"began with other data than .*unlabelled examples.*new \(new.png\)"):
        run_study(study, tmp_path, train=train)


def test_runs_of_one_variant_have_the_same_teachers(tmp_path, monkeypatch):
    """A weights file that comes between two seeds would make one mean of two different things."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.npz").write_bytes(b"")
    file = tmp_path / "base.py"
    file.write_text(
        "from emokd.configuration import defaults\nfrom emokd.recipes import smkd\n"
        "def get_config():\n"
        "    config = smkd.default_config()\n"
        "    for name in ('one', 'two'):\n"
        "        config.teachers[name] = defaults.teacher('basic_cnn', if_there=f'{name}.npz')\n"
        "    return config\n"
    )
    study = make_study(str(file), seeds=(0, 1), variants={"smkd": {}}, per_seed=("seed",), baseline="smkd")
    (tmp_path / "two.npz").rename(tmp_path / "later")
    begun = []

    def train(config, workdir):
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(to_json(available_teachers.choose(config)))
        (folder / "scores.json").write_text(json.dumps({"student": {"expression": {"accuracy": 0.5}}, "teachers": {}}))
        begun.append(config.seed)
        if not (tmp_path / "two.npz").exists():
            (tmp_path / "later").rename(tmp_path / "two.npz")

    for _ in range(2):  # also where the study goes on later
        with pytest.raises(InputError, match=r"seed1 has other teachers than .*seed0.*: two \(two.npz\) came or went"):
            run_study(study, tmp_path / "study", train=train)
    assert begun == [0]


def test_the_command_lists_and_runs(tmp_path, base, monkeypatch, capsys):
    """main() through absl's flags, with train replaced."""
    file = tmp_path / "study_config.py"
    file.write_text(
        "from emokd.studies.plan import define\n"
        "def get_config(arg=''):\n"
        f"    return define(title='t', base={base!r}, variants={{'kd': {{'method': 'kd'}}}},\n"
        "                  metric='student.expression.accuracy', seeds=(0, 1))\n"
    )
    config = load(str(file))
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
