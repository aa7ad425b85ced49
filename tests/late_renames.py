"""As several_processes, on a file system where what process 0 writes has its name two seconds later."""

import os
import time

import several_processes

from emokd.jobs.command import run

SECONDS = 2.0


def late(rename):
    def wait_and_rename(*arguments, **options):
        time.sleep(SECONDS)
        return rename(*arguments, **options)

    return wait_and_rename


if __name__ == "__main__":
    if os.environ["EMOKD_PROCESS"] == "0":
        # pathlib, orbax and emokd reach the system through these two; the rest of the process goes on meanwhile.
        os.rename, os.replace = late(os.rename), late(os.replace)
    run(several_processes.main, several_processes=True)
