"""Writes report.html about a run, finished, unfinished or under way, into its workdir.

python -m emokd.report --workdir=runs/quickstart [--thumbnails]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib

from absl import flags

from emokd.jobs.command import run
from emokd.jobs.workdir import RECORD

WORKDIR = flags.DEFINE_string("workdir", None, "The run to report on.", required=True)
THUMBNAILS = flags.DEFINE_bool(
    "thumbnails", False, "Show the pictures and names of the most confident mistakes; mind who gets the page."
)
ACCEPT = flags.DEFINE_bool(
    "accept_changed_data", False, "Report although the data or files are not what the run began with; the page says so."
)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    # Imported here, because a missing folder is told faster without them.
    from emokd.jobs import datasets, finished, page
    from emokd.jobs.workdir import read_config

    remarks, thumbnails = [], None
    if (workdir / RECORD).exists():
        remarks = finished.remarks(workdir, datasets.load_data, ACCEPT.value)
    if THUMBNAILS.value:
        splits, _ = datasets.load_data(read_config(workdir / "config.json"))
        thumbnails = page.thumbnails_of(workdir, splits)
    print(page.write_page(workdir, remarks, thumbnails=thumbnails))


if __name__ == "__main__":
    run(main)
