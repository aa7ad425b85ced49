"""Writes report.html about a run, finished, unfinished or under way, into its workdir.

python -m emokd.report --workdir=runs/quickstart
"""

import pathlib

from absl import flags

from emokd.jobs import finished
from emokd.jobs.command import run
from emokd.reporting.report import write_report

WORKDIR = flags.DEFINE_string("workdir", None, "The run to report on.", required=True)
ACCEPT = flags.DEFINE_bool(
    "accept_changed_data", False, "Report although the data or files are not what the run began with; the page says so."
)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    print(write_report(workdir, finished.remarks(workdir, ACCEPT.value)))


if __name__ == "__main__":
    run(main)
