"""What `--help` prints: a command's description and its flags, the required ones first, each in a line or two."""

import re
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

ASKS = ("--help", "-help", "--helpshort", "-h", "-?", "--h")
"""Arguments that ask for it; `--helpfull`, which also lists the flags of libraries, is absl's own."""

WIDTH = 100
COLUMN = 26
"""Where the flags' descriptions begin."""

_ABSLS_CHOICES = re.compile(r"<[^>]*>: ")
_REQUIRED = "must have a value other than None"


def is_asked(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help; what follows `--` does not."""
    arguments = list(argv[1:])
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument in ASKS for argument in before)


def text(description: str, found: Sequence[flags.Flag]) -> str:
    """The help of a command.

    Args:
      description: what it does and how it is called.
      found: its flags, in the order in which they are to be listed, except that required ones come first.
    """
    lines = [_line(flag) for flag in sorted(found, key=lambda flag: not _is_required(flag))]
    more = "--helpfull also lists the flags of libraries."
    if any(flag.name == "config" for flag in found):
        more = f"--config.KEY=VALUE changes a setting of the configuration. {more}"
    return "\n".join([description.strip(), "", *lines, "", more])


def of_this_command() -> str:
    """The help of the command that runs."""
    return text(sys.modules["__main__"].__doc__ or "", flags.FLAGS.get_key_flags_for_module(sys.argv[0]))


def _is_required(flag: flags.Flag) -> bool:
    told = any(_REQUIRED in validator.message for validator in flag.validators)
    return told or (flag.default is None and getattr(flag.parser, "required", False))


def _line(flag: flags.Flag) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=..."
    choices = [value for value in getattr(flag.parser, "enum_values", None) or () if value]
    told = _ABSLS_CHOICES.sub("", " ".join((flag.help or "").split()))
    told += f" One of {', '.join(choices)}." if choices else ""
    if _is_required(flag):
        told += " (required)"
    elif flag.boolean and flag.default:
        told += " (on by default)"
    elif not flag.boolean and flag.default not in (None, "", [], 0):
        told += f" (default: {flag.default})"
    begin = f"  {name}".ljust(COLUMN)
    begin = begin if begin.endswith(" ") else f"{begin}\n{' ' * COLUMN}"
    head, _, tail = begin.rpartition("\n")
    wrapped = textwrap.fill(told, WIDTH, initial_indent=tail, subsequent_indent=" " * COLUMN)
    return f"{head}\n{wrapped}" if head else wrapped
