"""Writes report.html about a run, finished, unfinished or under way, into its workdir.

python -m emokd.report --workdir=runs/quickstart
"""

import pathlib

from absl import flags

from emokd.errors import InputError
from emokd.jobs.command import run
from emokd.jobs.workdir import RECORD
from emokd.reporting.report import write_report
from emokd.reporting.scoreboard import accepted_texts

WORKDIR = flags.DEFINE_string("workdir", None, "The run to report on.", required=True)
ACCEPT = flags.DEFINE_bool(
    "accept_changed_data", False, "Report although the data or files are not what the run began with; the page says so."
)


def remarks(workdir: pathlib.Path, accept: bool) -> list[str]:
    """What the page has to say of the data that the run began with.

    Raises:
      InputError: they have changed, which is not accepted.
    """
    if not (workdir / RECORD).exists():
        return []
    from emokd.jobs import (
        began,
        job,  # only here: a page of a run without a record needs neither models nor data
    )

    config = job.read_config(workdir / "config.json")
    try:
        data = job.load_data(config)
    except InputError as error:
        return [f"The data could not be compared with what the run began with: {error}"]
    now = {**began.describe(config, *data), "devices": None}
    changes = dict.fromkeys([*began.accepted(workdir), *began.compare(workdir, now, accept)])
    return accepted_texts(changes)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    print(write_report(workdir, remarks(workdir, ACCEPT.value)))


if __name__ == "__main__":
    run(main)
