"""Stands for `python` in `python -m emokd.train` under a launcher: notes its process, and waits in the run for its end.

held_run.py FOLDER -m emokd.train FLAGS: FOLDER/PROCESS.pid names the process. The first one waits after each checkpoint
of HELD, so the others stand in the middle of the next step, which needs all. Continued, the run gets to the next one.
A signal that the run handles ends the wait.
"""

import os
import pathlib
import sys
import time
from typing import Any

import jax

from emokd.jobs.command import run
from emokd.training.checkpoints import Checkpoints
from emokd.training.stopping import StopRequest

HELD = (2, 4, 6)

if __name__ == "__main__":
    from emokd import train  # defines flags, which a test that imports this module must not

    folder, flag, module, *arguments = sys.argv[1:]
    assert (flag, module) == ("-m", "emokd.train"), sys.argv
    pathlib.Path(folder, f"{os.environ['EMOKD_PROCESS']}.pid").write_text(str(os.getpid()))
    save, remember, told = Checkpoints.save, StopRequest._remember, []

    def note(self: StopRequest, *arguments: Any) -> None:
        told.append(self)
        remember(self, *arguments)

    def save_and_wait(self: Checkpoints, state: Any, *others: Any) -> None:
        save(self, state, *others)
        if int(state.step) in HELD and jax.process_index() == 0:
            self.wait()
            while not told:
                time.sleep(0.05)

    Checkpoints.save = save_and_wait  # type: ignore[method-assign]
    StopRequest._remember = note  # type: ignore[method-assign]
    sys.argv = ["train.py", *arguments]
    run(train.main, several_processes=True)
