import json
import pathlib

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from emokd.configuration import config as configuration
from emokd.data import sources
from emokd.errors import InputError
from emokd.studies.plan import create_study

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.py"))


def example() -> ConfigDict:
    return ConfigDict(
        {
            "batch_size": 64,
            "name": "fi",
            "flip": True,
            "crop_area": (0.35, 1.0),
            "options": {},
            "optimizer": {"learning_rate": 0.1, "warmup_epochs": 2.0, "nested": {"sizes": (1, (2, 3))}},
        }
    )


def test_json_round_trip():
    config = example()
    text = configuration.to_json(config)
    again = configuration.from_json(text)
    assert again.to_dict() == config.to_dict()
    assert configuration.differing_keys(config, again) == []
    assert configuration.to_json(again) == text
    assert json.loads(text)["optimizer"]["nested"]["sizes"] == [1, [2, 3]]
    assert again.is_locked


@pytest.mark.parametrize("value", [float("nan"), float("inf"), len, b"x"])
def test_json_of_what_is_no_json_names_the_key(value):
    config = example()
    with config.unlocked():
        config.optimizer.odd = value
    with pytest.raises(InputError, match=r"config\.optimizer\.odd"):
        configuration.to_json(config)


@pytest.mark.parametrize("text", ['{"a": 1', "[1]", "", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_is_no_configuration(text):
    with pytest.raises(InputError, match="stored configuration"):
        configuration.from_json(text)


def test_diff_and_differing_keys():
    changed = configuration.locked(example(), {"batch_size": 32, "optimizer.nested.sizes": (4,)})
    with changed.unlocked():
        changed.extra = "x"
        del changed["flip"]
    assert configuration.diff(changed, example()) == [
        "batch_size: 64 -> 32",
        "extra: (absent) -> 'x'",
        "flip: True -> (absent)",
        "optimizer.nested.sizes: (1, (2, 3)) -> (4,)",
    ]
    assert configuration.differing_keys(changed, example()) == ["batch_size", "extra", "flip", "optimizer.nested.sizes"]
    assert configuration.diff(example(), example()) == []


def test_locked_is_a_copy_and_refuses_new_keys():
    original = example()
    copy = configuration.locked(original, {"optimizer.learning_rate": 0.5})
    assert (original.optimizer.learning_rate, copy.optimizer.learning_rate) == (0.1, 0.5)
    with pytest.raises(AttributeError):
        copy.optimizer.new = 1
    assert configuration.locked({"a": {"b": 1}}).a.b == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bacth_size": 1}, "config has no key 'bacth_size'. Did you mean 'batch_size'"),
        ({"optimizer.learning_rat": 1}, "config.optimizer has no key .* 'learning_rate'"),
        ({"learning_rate": 1.0}, "Did you mean config.optimizer.learning_rate"),
        ({"zzz": 1}, "Its keys: batch_size, crop_area"),
        ({"batch_size.x": 1}, "config.batch_size is a value"),
        ({"batch_size": "many"}, "config.batch_size is a value of type int; 'many' does not fit"),
    ],
)
def test_changes_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        configuration.locked(example(), changes)


def test_placeholders_take_values_of_their_type():
    config = ConfigDict({"limit": placeholder(int)})
    assert configuration.locked(configuration.locked(config), {"limit": 3}).limit == 3


def test_arguments():
    configuration.check_argument("")
    configuration.check_argument("small")
    configuration.check_argument("tiny", ("small", "tiny"))
    with pytest.raises(InputError, match=r"no variant 'smal'.*FILE.py:small.*Did you mean 'small'"):
        configuration.check_argument("smal")


def write(folder, body: str):
    path = folder / "experiment.py"
    path.write_text(f"import ml_collections\n{body}\n")
    return path


def test_load(tmp_path):
    path = write(tmp_path, "def get_config(arg='full'):\n    return ml_collections.ConfigDict({'arg': arg})")
    assert configuration.load(str(path)).arg == "full"
    assert configuration.load(f"{path}:small").arg == "small"
    assert configuration.load(str(path)).is_locked
    assert list(tmp_path.iterdir()) == [path]  # no byte code beside it, which could be stale


@pytest.mark.parametrize(
    ("body", "argument", "message"),
    [
        ("def get_config(:", "", r"experiment.py:2: "),
        ("x = 1\ny = z", "", r"experiment.py:3: NameError: name 'z'"),
        ("def get_config():\n    raise ValueError('no')", "", r"experiment.py:3: ValueError: no"),
        ("def get_config():\n    return ml_collections.ConfigDict()", ":small", "TypeError"),
        ("def get_config():\n    return {}", "", "must return an ml_collections.ConfigDict, not dict"),
        ("config = 1", "", r"must define get_config"),
    ],
)
def test_files_that_fail_say_where(tmp_path, body, argument, message):
    with pytest.raises(InputError, match=message):
        configuration.load(f"{write(tmp_path, body)}{argument}")


def test_a_missing_file_names_the_nearest(tmp_path):
    path = write(tmp_path, "")
    with pytest.raises(InputError, match=r"no configuration file .*experimnt.py'\. Did you mean '.*experiment.py'"):
        configuration.load(str(path).replace("experiment", "experimnt"))
    with pytest.raises(InputError, match="no configuration file"):
        configuration.load("nowhere/at/all.py")


@pytest.fixture
def no_data(monkeypatch):
    """In the project's folder, as a user is, without any data."""

    def refuse(*args, **options):
        raise AssertionError("a configuration asks for data")

    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("EMOKD_DATA", raising=False)
    monkeypatch.setattr(sources, "load", refuse)


@pytest.mark.parametrize("variant", ["", ":small"])
@pytest.mark.parametrize("file", FILES)
def test_every_configuration_loads_without_data(file, variant, no_data):
    config = configuration.load(file + variant)
    assert config.is_locked
    assert configuration.from_json(configuration.to_json(config)).to_dict() == config.to_dict()
    jobs = [config] if "recipe" in config else [run.config for run in create_study(config).runs]
    trained = {section.train for job in jobs for section in job.get("teachers", {}).values() if section.train}
    assert all("recipe" in configuration.load(teacher) for teacher in trained)
