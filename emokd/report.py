"""Writes report.html about a run, finished or not, into its workdir.

python -m emokd.report --workdir=runs/quickstart
"""

import pathlib

from absl import flags

from emokd.command import run
from emokd.reporting.report import write_report

WORKDIR = flags.DEFINE_string("workdir", None, "The run to report on.", required=True)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    print(write_report(pathlib.Path(WORKDIR.value)))


if __name__ == "__main__":
    run(main)
