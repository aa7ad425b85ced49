"""The configurations that come with emokd, listed."""

import ast
import sys

from absl import flags

from emokd.configuration.places import own_configurations

STUDIES = "emokd:studies/"
"""What the names of studies begin with; `*_job` among them is one run of a study."""


def list_configurations() -> str:
    """A line for each of emokd's own configurations: its name and its docstring's first line; no file is run."""
    lines = {
        name: (ast.get_docstring(ast.parse(file.read_bytes())) or "").splitlines()[0]
        for name, file in own_configurations().items()
    }
    width = max(map(len, lines))
    studies = [name for name in lines if name.startswith(STUDIES) and not name.endswith("_job")]
    listed = ["For python -m emokd.train --config=NAME or NAME:small:"]
    listed += [f"  {name:{width}}  {line}" for name, line in lines.items() if name not in studies]
    listed += ["For python -m emokd.study --config=NAME or NAME:small:"]
    listed += [f"  {name:{width}}  {lines[name]}" for name in studies]
    return "\n".join(listed)


class _ListFlag(flags.BooleanFlag):
    """Prints the list and ends the command, so that no other flag is needed."""

    def __init__(self):
        super().__init__("list_configs", False, "List emokd's own configurations, and stop.", allow_hide_cpp=True)

    def parse(self, argument: str | bool | None) -> None:
        if argument is not None and self._parse(argument):
            print(list_configurations())
            sys.exit(0)


def define_list_flag() -> None:
    """Defines `--list_configs`, once."""
    if "list_configs" in flags.FLAGS:
        return
    flag = _ListFlag()
    flags.DEFINE_flag(flag, flags.FLAGS)
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
