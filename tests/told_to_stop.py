"""One of two processes, of which the second tells itself to stop, in the middle of steps that exchange nothing else."""

import os
import signal

import jax

from emokd.jobs.command import run
from emokd.training.sharding import create_mesh
from emokd.training.stopping import StopRequest

TOLD = 5


def main(argv: list[str]) -> None:
    """Prints the signal, and the step after which the process stops."""
    number = int(argv[1])
    with jax.transfer_guard("disallow"), StopRequest(create_mesh()) as stop:
        for step in range(1, 20):
            if step == TOLD and jax.process_index() == 1:
                os.kill(os.getpid(), number)
            if (by := stop.agreed(now=False)) is not None:
                print(signal.Signals(by).name, step)
                break
    with StopRequest(create_mesh()) as stop:  # asked at once
        os.kill(os.getpid(), signal.SIGTERM if jax.process_index() else signal.SIGINT)
        assert stop.agreed(now=True) == signal.SIGTERM, stop.signal


if __name__ == "__main__":
    run(main, several_processes=True)
