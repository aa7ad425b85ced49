"""Configurations: plain Python files with `get_config(argument="")`, locked, overridable on the command line.

A file gives a `ConfigDict`; `--config=FILE` or `--config=FILE:argument` loads it and `--config.key=value`
changes it. A key that does not exist is an error that names the nearest one, with one exception: a duration
may be given in another unit than the file's (`--config.warmup_steps=10` where the file has `warmup_epochs`), but in
one unit only.
"""

import json
import pathlib
import re
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from emokd import imports
from emokd.configuration.durations import UNITS, adopt_unit
from emokd.configuration.places import absent, anchor, find, parse, running
from emokd.errors import InputError, excerpt, nearest

NAMES_A_FILE = re.compile(r"(?:.+\.)?teachers\.[^.]+\.train")
"""A pattern of the keys whose value is a configuration file, with its argument if it has one."""


def anchored(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration, or a locked copy in which the files that it names (`teachers.NAME.train`) are anchored."""
    changes = _anchors(config)
    return locked(config, changes) if changes else config


def _anchors(config: ml_collections.ConfigDict) -> dict[str, str]:
    """What `places.anchor` changes in the files that a configuration names."""
    named = {key: value for key, value in leaves(config) if value and NAMES_A_FILE.fullmatch(key)}
    return {key: anchor(value) for key, value in named.items() if anchor(value) != value}


def load(reference: str) -> ml_collections.ConfigDict:
    """Runs a configuration file; the files that it names in turn are anchored.

    Args:
      reference: a file and an argument, as `places.parse` takes them: "configs/smkd/fi.py:small", "emokd:smkd/fi".

    Returns:
      What its `get_config` gave, locked.

    Raises:
      InputError: there is no such file, it fails (file and line are named), or gives no ConfigDict.
    """
    path, argument = parse(reference)
    file = find(path)
    if file is None:
        raise InputError(absent(path))
    module = types.ModuleType(f"config {path}")
    module.__file__ = str(file)
    with running(file):
        config = _run(module, path, [] if argument is None else [argument])
        config.update_from_flattened_dict(_anchors(config))  # in place: a copy's placeholders would have no type
        imports.trust(config)  # the file is the user's own code already
        return config.lock()


def _run(module: types.ModuleType, path: str, arguments: Sequence[str]) -> ml_collections.ConfigDict:
    """What `get_config` of a file's module gives; `path` names the file in messages."""
    file = pathlib.Path(str(module.__file__))
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
        if not callable(getattr(module, "get_config", None)):
            raise InputError(f"{path}: a configuration file must define get_config(argument='').")
        config = module.get_config(*arguments)
    except InputError:
        raise
    except SyntaxError as error:
        raise InputError(f"{error.filename}:{error.lineno}: {error.msg}.") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        place = f"{path}:{lines[-1]}" if lines else path
        raise InputError(f"{place}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(f"{path}: get_config must return an ml_collections.ConfigDict, not {type(config).__name__}.")
    return config


def check_argument(argument: str, known: Iterable[str] = ("small",)) -> None:
    """Checks the argument of a configuration file; the empty one, the experiment itself, is always known.

    Raises:
      InputError: the argument is not among `known`.
    """
    known = list(known)
    if argument and argument not in known:
        raise InputError(
            f"This configuration has no variant {argument!r}; write FILE.py or one of "
            f"{', '.join(f'FILE.py:{name}' for name in known)}.{nearest(argument, known)}"
        )


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Checks that a dotted key exists.

    Raises:
      InputError: it does not; the message names the nearest key that does.
    """
    if "[" in key:
        return  # an index into a tuple or a quoted key: ml_collections checks these itself
    section: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        owner = ".".join(["config", *parts[:depth]])
        if not isinstance(section, ml_collections.ConfigDict):
            raise InputError(f"config.{key} does not exist: {owner} is a value, not a section.")
        if part not in section:
            hint = nearest(part, section) or _namesake(config, part)
            raise InputError(f"{owner} has no key {part!r}.{hint or f' Its keys: {excerpt(sorted(section), 20)}.'}")
        section = section[part]


def _namesake(config: ml_collections.ConfigDict, name: str) -> str:
    """The hint for a key that exists, but in another section."""
    elsewhere = [f"config.{key}" for key, _ in leaves(config) if key.split(".")[-1] == name]
    return f" Did you mean {excerpt(elsewhere, 3)}?" if elsewhere else ""


def locked(
    config: Mapping[str, Any] | ml_collections.ConfigDict, changes: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """A locked copy of a configuration, with changes.

    Args:
      config: the configuration; left as it is.
      changes: new values by dotted key, as on the command line: {"optimizer.learning_rate": 0.1}.

    Raises:
      InputError: a key does not exist, its value has another type, or a duration is given in two units.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    copy = ml_collections.ConfigDict(config)
    given: list[str] = []
    for key, value in (changes or {}).items():
        adopt_unit(copy, key, given)
        given.append(key)
        check_key(copy, key)
        try:
            copy.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            was = type(_value(copy, key.split("."))).__name__
            raise InputError(f"config.{key} is a value of type {was}; {value!r} does not fit.") from error
    return copy.lock()


def diff(config: ml_collections.ConfigDict, default: ml_collections.ConfigDict) -> list[str]:
    """What `config` changes, one sorted line "key: default -> value" for each key; "(absent)" where one lacks it."""
    ours, theirs = dict(leaves(config)), dict(leaves(default))

    def shown(leaves, key):
        return repr(leaves[key]) if key in leaves else "(absent)"

    return [f"{key}: {shown(theirs, key)} -> {shown(ours, key)}" for key in _differing(ours, theirs)]


def differing_keys(a: ml_collections.ConfigDict, b: ml_collections.ConfigDict) -> list[str]:
    """Dotted keys whose values differ or that only one of the two has, sorted.

    Configuration files that they name are compared by name and argument, not by folder, which may have moved: a teacher
    that such a file trains has a run of its own, where each of its keys is compared.
    """
    return _differing(*(dict(_without_folders(config)) for config in (a, b)))


def _without_folders(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Any]]:
    for key, value in leaves(config):
        named = isinstance(value, str) and NAMES_A_FILE.fullmatch(key)
        yield key, pathlib.PurePath(value).name if named else value


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    absent = object()
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key, absent) != theirs.get(key, absent))


def with_missing(config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration with the keys that `defaults` has and it lacks, section by section.

    Units of durations are not added, because one of them is enough. A section that `config` lacks is added whole.
    """
    filled = ml_collections.ConfigDict(config, convert_dict=True)
    with filled.unlocked():
        for key, value in defaults.items():
            if isinstance(value, ml_collections.ConfigDict) and isinstance(config.get(key), ml_collections.ConfigDict):
                filled[key] = with_missing(config[key], value)
            elif key not in config and not key.endswith(tuple(f"_{unit}" for unit in UNITS)):
                filled[key] = value
    return filled


def to_json(config: ml_collections.ConfigDict) -> str:
    """The configuration as JSON, indented, keys sorted; `from_json` reads it back.

    Raises:
      InputError: a value is not a number, text, bool, None or a tuple of these; its key is named.
    """
    for key, value in leaves(config):
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"config.{key} cannot be written as JSON: {value!r} ({error}).") from error
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """A locked configuration from the JSON of `to_json`; lists become tuples.

    Raises:
      InputError: the text is not JSON, or not an object.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The stored configuration is not JSON (line {error.lineno}: {error.msg}); was it cut off?"
        ) from error
    except RecursionError as error:
        raise InputError("The stored configuration has brackets in brackets without end.") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"The stored configuration cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The stored configuration is a JSON {type(values).__name__}, not an object.")
    try:
        return ml_collections.ConfigDict(_tuples(values)).lock()
    except ValueError as error:  # a key with a dot
        raise InputError(f"The stored configuration cannot be one: {error}") from error


def leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values in order; lists as tuples, an empty section as {}."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, ml_collections.ConfigDict) and len(value):
            yield from leaves(value, f"{key}.")
        else:
            yield key, {} if isinstance(value, ml_collections.ConfigDict) else _tuples(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _value(config: ml_collections.ConfigDict, path: Iterable[str]) -> Any:
    for part in path:
        config = config[part]
    return config
