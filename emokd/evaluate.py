"""Scores a run's student on a split of its data, from the student's own folder, beside the scores of the run.

python -m emokd.evaluate --workdir=runs/quickstart [--split=test] [--by=people.csv:sex] [--devices=1] [--batch_size=32]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import json
import pathlib

import jax
from absl import flags

from emokd.jobs.began import ACCEPT_HELP
from emokd.jobs.command import run
from emokd.jobs.scoring import evaluate_student

WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate.", required=True)
ACCEPT = flags.DEFINE_bool("accept_changed_data", False, ACCEPT_HELP)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Which split.")
BY = flags.DEFINE_string(
    "by",
    "",
    "Also score each group: 'group' (the data's subjects), or TABLE.csv:COLUMN; empty: none. See docs/intended_use.md.",
)
DEVICES = flags.DEFINE_integer("devices", 0, "How many of the devices here; 0: all, whatever the run had.", 0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Examples at a time; 0: as in training. No score depends on it.", 0)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    scores = evaluate_student(
        pathlib.Path(WORKDIR.value),
        SPLIT.value,
        devices=DEVICES.value,
        batch_size=BATCH_SIZE.value,
        by=BY.value,
        accept_changed_data=ACCEPT.value,
    )
    if jax.process_index() == 0:
        print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    run(main, several_processes=True)
