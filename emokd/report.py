"""Writes report.html about a run, finished, unfinished or under way, into its workdir.

python -m emokd.report --workdir=runs/quickstart
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib

from absl import flags

from emokd.jobs.command import run
from emokd.jobs.workdir import RECORD
from emokd.reporting.report import write_report

WORKDIR = flags.DEFINE_string("workdir", None, "The run to report on.", required=True)
ACCEPT = flags.DEFINE_bool(
    "accept_changed_data", False, "Report although the data or files are not what the run began with; the page says so."
)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    remarks = []
    if (workdir / RECORD).exists():
        # Imported here, because the page of a run without a record needs neither models nor data.
        from emokd.jobs import datasets, finished

        remarks = finished.remarks(workdir, datasets.load_data, ACCEPT.value)
    print(write_report(workdir, remarks))


if __name__ == "__main__":
    run(main)
