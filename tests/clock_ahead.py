"""As several_processes, where the clock of process 1 is an hour ahead, for all that Python's code reads of it.

libfaketime would also do it for libraries in C++, but Python's own sleep fails under it.
"""

import datetime
import os
import time

SECONDS = 3600


class Ahead(datetime.datetime):
    """A date and time whose present is an hour later."""

    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=SECONDS)


if os.environ.get("EMOKD_PROCESS") == "1":
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + SECONDS
    time.time_ns = lambda: nanoseconds() + SECONDS * 10**9
    datetime.datetime = Ahead

import several_processes  # noqa: E402  (what it imports takes the clock as it finds it)

from emokd.jobs.command import run  # noqa: E402

if __name__ == "__main__":
    run(several_processes.main, several_processes=True)
