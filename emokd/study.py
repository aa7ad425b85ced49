"""Runs a study, a grid of variants times seeds, and writes its table with intervals and paired differences.

    python -m emokd.study --config=configs/studies/weighting.py --workdir=runs/weighting [--only=a,b] [--list]

The same command continues a study: it reads the finished runs and does the others. `results.csv` and `table.md` in the
workdir are rewritten after every run. Each run has an ordinary workdir, `runs/<variant>/seed<seed>`, in a study with
folds `runs/<variant>/seed<seed>/fold<fold>`.
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import functools
import pathlib

from absl import flags

from emokd.configuration.flag import define_config_flag
from emokd.jobs import locks
from emokd.jobs.began import ACCEPT_HELP
from emokd.jobs.command import run
from emokd.jobs.job import train
from emokd.studies.plan import create_study
from emokd.studies.run import list_runs, run_study

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the runs and their table.", required=True)
ONLY = flags.DEFINE_list("only", [], "Run these variants alone; the table shows all that are finished.")
ACCEPT = flags.DEFINE_bool("accept_changed_data", False, ACCEPT_HELP)
LIST = flags.DEFINE_bool("list", False, "Show what is done and what would run, and stop.")


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    study = create_study(CONFIG.value, workdir)
    if LIST.value:
        print(list_runs(study, workdir, ONLY.value))
    else:
        whole = functools.partial(train, report=False, shared={}, accept_changed_data=ACCEPT.value)
        with locks.held(workdir):
            accept = ACCEPT.value
            print(run_study(study, workdir, train=whole, only=ONLY.value, accept_changed_data=accept))


if __name__ == "__main__":
    run(main)
