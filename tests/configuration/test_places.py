"""Configurations that name each other, from whichever working directory they are started."""

import pathlib
import shutil

import pytest

from emokd.configuration import config as configuration
from emokd.configuration import own as own_list
from emokd.configuration import places
from emokd.errors import InputError
from emokd.jobs import job
from emokd.studies.plan import create_study

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.py"))

TEACHER = """
import ml_collections
from emokd.recipes import supervised

def get_config(arg=""):
    config = supervised.default_config()
    config.data.source = "painter"
    config.batch_size = 3
    return config
"""

STUDENT = """
from emokd.configuration import config as configuration
from emokd.configuration import own as own_list
from emokd.configuration import places
from emokd.configuration import defaults
from emokd.recipes import bounded

def get_config(arg=""):
    config = bounded.default_config()
    config.batch_size = configuration.load("{teacher}").batch_size
    config.teachers.one = defaults.teacher(train="{teacher}")
    return config
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory that has nothing."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("file", FILES)
def test_every_configuration_is_the_same_from_elsewhere(file, elsewhere, monkeypatch):
    found = configuration.load(f"{ROOT / file}:small")
    jobs = [found] if "recipe" in found else [run.config for run in create_study(found).runs]
    monkeypatch.chdir(ROOT)
    assert configuration.load(f"{file}:small").to_dict() == found.to_dict()
    if jobs != [found]:
        assert [run.config.to_dict() for run in create_study(found).runs] == [config.to_dict() for config in jobs]


def test_a_teachers_configuration_is_found_when_its_turn_comes(elsewhere, monkeypatch):
    config = configuration.load(f"{ROOT}/configs/bounded/quickstart.py:small")
    trained = []
    monkeypatch.setattr(job, "train", lambda config, folder, **_: trained.append((config, folder)))
    trainer = job.teacher_trainer(elsewhere / "run", config.data)
    (teacher,) = config.teachers.values()
    trainer(teacher.train, pathlib.Path("one"), ())
    ((taught, folder),) = trained
    assert folder == elsewhere / "run/teachers/one"
    assert taught.recipe == "supervised" and taught.data.source == config.data.source
    with pytest.raises(InputError, match=r"config.teachers.one.train: There is no configuration file 'configs/teacher"):
        trainer("configs/teachers/gone.py", pathlib.Path("one"), ())


@pytest.fixture
def own(tmp_path):
    """A folder of one's own: a student, whose teacher's configuration lies in the folder above it."""
    (tmp_path / "own/students").mkdir(parents=True)
    (tmp_path / "own/teacher.py").write_text(TEACHER)
    (tmp_path / "own/students/student.py").write_text(STUDENT.format(teacher="teacher.py"))
    return tmp_path / "own"


@pytest.mark.parametrize("named", ["teacher.py", "../teacher.py", "own/teacher.py"])
def test_files_of_ones_own_name_each_other(own, elsewhere, monkeypatch, named):
    (own / "students/student.py").write_text(STUDENT.format(teacher=named))
    configs = []
    for folder, path in ((elsewhere, own / "students/student.py"), (own, "students/student.py")):
        monkeypatch.chdir(folder)
        configs.append(configuration.load(str(path)))
    assert {config.teachers.one.train for config in configs} == {str((own / "teacher.py").resolve())}
    assert configs[0].batch_size == 3


def test_the_file_beside_comes_before_the_working_directorys(own, elsewhere):
    (elsewhere / "teacher.py").write_text(TEACHER.replace("3", "5"))
    assert configuration.load(str(own / "students/student.py")).batch_size == 3
    assert configuration.load("teacher.py").batch_size == 5


def test_a_run_goes_on_when_the_files_have_moved_but_not_with_another_file(own, elsewhere, monkeypatch):
    before = configuration.load(str(own / "students/student.py"))
    shutil.move(own, own.with_name("moved"))
    after = configuration.load(str(own.with_name("moved") / "students/student.py"))
    assert before.teachers.one.train != after.teachers.one.train
    assert configuration.differing_keys(before, after) == []
    assert configuration.diff(after, before) == [
        f"teachers.one.train: {before.teachers.one.train!r} -> {after.teachers.one.train!r}"
    ]
    for other in ("other.py", "teacher.py:small", ""):
        changed = configuration.locked(after, {"teachers.one.train": other})
        assert configuration.differing_keys(before, changed) == ["teachers.one.train"]


def test_what_the_command_line_names_is_taken_from_the_working_directory(own, elsewhere, monkeypatch):
    config = configuration.load(f"{ROOT}/configs/bounded/quickstart.py")
    ((name, teacher),) = config.teachers.items()
    assert teacher.train == "configs/teachers/painter.py"
    assert configuration.anchored(config) is config
    monkeypatch.chdir(own)
    given = configuration.anchored(configuration.locked(config, {f"teachers.{name}.train": "teacher.py:small"}))
    assert given.teachers[name].train == f"{(own / 'teacher.py').resolve()}:small"
    monkeypatch.chdir(elsewhere)
    assert configuration.anchored(given) is given


def test_a_file_that_is_nowhere_is_named_with_who_names_it_and_what_to_do(own, elsewhere):
    (own / "students/student.py").write_text(STUDENT.format(teacher="techer.py"))
    with pytest.raises(InputError, match=r"no configuration file 'techer.py', which .*student.py names\.") as refused:
        configuration.load(str(own / "students/student.py"))
    assert "path" in str(refused.value) or "Did you mean" in str(refused.value)
    with pytest.raises(InputError, match=r"'configs/smkd/f1.py'\. Did you mean 'configs/smkd/fi.py'"):
        configuration.load("configs/smkd/f1.py")


@pytest.mark.parametrize("name", ["emokd:smkd/quickstart:small", "emokd:smkd/quickstart.py:small"])
def test_emokds_own_configurations_have_names(name, elsewhere):
    """Whatever the working directory has under the same path."""
    (elsewhere / "configs/smkd").mkdir(parents=True)
    (elsewhere / "configs/smkd/quickstart.py").write_text(TEACHER)
    expected = configuration.load(f"{ROOT}/configs/smkd/quickstart.py:small")
    assert configuration.load(name).to_dict() == expected.to_dict()
    assert configuration.load("configs/smkd/quickstart.py").batch_size == 3


def test_a_stored_name_of_emokds_own_is_the_checkouts_and_the_installations(own, elsewhere):
    (own / "students/student.py").write_text(STUDENT.format(teacher="emokd:teachers/painter:small"))
    stored = configuration.load(str(own / "students/student.py")).teachers.one.train
    assert stored == "configs/teachers/painter.py:small"
    assert places.anchor(stored) == stored
    assert places.find("configs/teachers/painter.py") == ROOT / "configs/teachers/painter.py"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("emokd:smkd/quickstrat:small", "'emokd:smkd/quickstrat'. Did you mean 'emokd:smkd/quickstart'?"),
        ("emokd:quickstart", "no configuration 'emokd:quickstart'. Did you mean 'emokd:"),
        ("emokd:nothing of the kind", "There are emokd:bounded/affectnet, "),
        ("emokd:../tests/conftest", "There are emokd:bounded/affectnet, "),
        ("smkd/quickstart:small", "'smkd/quickstart'. Did you mean 'emokd:smkd/quickstart'?"),
        ("nowhere/at/all.py", "--list_configs"),
    ],
)
def test_a_name_that_is_unknown(given, message, elsewhere):
    with pytest.raises(InputError) as refused:
        configuration.load(given)
    assert message in str(refused.value)


def test_the_list_has_every_configuration_by_its_command():
    trained, studied = own_list.list_configurations().split("For python -m emokd.study")
    lines = {line.split()[0]: line for line in (trained + studied).splitlines() if line.startswith("  ")}
    assert sorted(lines) == sorted(f"emokd:{file.removeprefix('configs/').removesuffix('.py')}" for file in FILES)
    assert lines["emokd:smkd/folder"].endswith(
        "  SMKD on your own pictures, some labelled, most not: class folders, teachers from files, a basic CNN."
    )
    assert "emokd:studies/smkd_fi " in studied and "emokd:studies/smkd_fi_job " in trained
