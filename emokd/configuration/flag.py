"""The flag --config: the file that it names is loaded, and the keys that are overridden are checked."""

import re
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from emokd.configuration.config import check_key, load
from emokd.configuration.durations import adopt_unit
from emokd.configuration.own import define_list_flag
from emokd.errors import InputError


def define_config_flag(required: bool = True) -> flags.FlagHolder:
    """Defines `--config=FILE[:ARGUMENT]`, its overrides and `--list_configs`; a second call returns the first flag.

    Args:
      required: whether the command is refused without it.
    """
    if "config" not in flags.FLAGS:
        config_flags.DEFINE_config_file(
            "config",
            help_string="The experiment: a Python file with get_config(), or emokd:NAME, one of emokd's own.",
            flag_values=flags.FLAGS,
        )
        flag = flags.FLAGS["config"]
        flag.parser = _ConfigParser(required)
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # so that --help lists it
        define_list_flag()
    return flags.FlagHolder(flags.FLAGS, flags.FLAGS["config"])


def file_of(flag: flags.FlagHolder) -> str:
    """What the user gave as `--config`: a path, with its argument if it had one; `load` takes it."""
    return config_flags.get_config_filename(flags.FLAGS[flag.name])


def is_missing() -> bool:
    """Whether the command needs `--config`, once flags are parsed, and has none."""
    flag = flags.FLAGS["config"] if "config" in flags.FLAGS else None
    return flag is not None and flag.value is None and isinstance(flag.parser, _ConfigParser) and flag.parser.required


class _ConfigParser(flags.ArgumentParser):
    """Loads the file, and checks the overrides' keys before ml_collections meets them."""

    def __init__(self, required: bool):
        self.required = required

    def parse(self, path: str) -> ml_collections.ConfigDict:
        config = load(path)
        with config.unlocked():
            keys = overridden_keys(sys.argv)
            for place, key in enumerate(keys):
                adopt_unit(config, key, given=keys[:place])
                check_key(config, key)
                _check_settable(config, key)
        return config


def _check_settable(config: ml_collections.ConfigDict, key: str) -> None:
    """Checks that ml_collections can parse a value for the key; it cannot for a list, nor for None without a type."""
    *path, name = key.split(".")
    section = config
    for part in path:
        section = section[part]
    if "[" not in key and section.get_type(name) in (list, type(None)):
        raise InputError(
            f"config.{key} is {section[name]!r} in the configuration and cannot be set on the command line; "
            f"change the file, which may write a tuple or ml_collections.config_dict.placeholder(type) instead."
        )


def overridden_keys(argv: Sequence[str]) -> list[str]:
    """The keys of `--config.key=...` arguments, in order."""
    keys = [re.match(r"--?(?:no)?config\.([^=\s]+)", argument) for argument in argv]
    return [key.group(1) for key in keys if key]
