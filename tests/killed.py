"""Runs a command of emokd until its process does a chosen thing to a file of a folder, and kills it at that moment.

killed.py FOLDER NUMBER MODULE ARGUMENTS: the process kills itself (SIGKILL) at the NUMBER-th time that it opens a file
below FOLDER for writing, makes, renames or removes one; 0 for never. At its end FOLDER.events holds how many times that
was. Python reports these moments before they happen, so the last one before a kill did happen and this one did not.

killed.py serve MODULE...: a process that has imported what these commands import at their heads, and forks one process
for each command that it is asked for, see `Server`. Else a process takes most of its time to import. The server has one
thread, which it checks before each fork: JAX is imported there, and not started. Unlike processes of their own, the
forks share the seed of texts' hashes.
"""

import ast
import contextlib
import importlib
import importlib.util
import json
import os
import pathlib
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "os.link")


def run(folder: str, number: int, module: str, arguments: Sequence[str]) -> None:
    """Runs the command in this process, which is killed at the `number`-th moment."""
    folder = os.path.abspath(folder)
    count = 0

    def note(event: str, parts: tuple) -> None:
        nonlocal count
        if event not in WATCHED or not parts or not isinstance(parts[0], str | bytes | os.PathLike):
            return
        if event == "open" and not (parts[1] is None or set("wax+") & set(str(parts[1]))):
            return
        path = os.path.abspath(os.fsdecode(parts[0]))
        if path != folder and not path.startswith(folder + os.sep):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    sys.argv = [f"{module.rpartition('.')[2]}.py", *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        pathlib.Path(f"{folder}.events").write_text(str(count))


def serve(modules: Sequence[str]) -> None:
    """Forks a process for each line on the standard input, [folder, number, module, arguments, log]; one at a time.

    It answers with two lines, the process's id and, at its end, its exit code, negative for a signal.
    """
    for module in modules:
        import_what_it_imports(module)
    for line in sys.stdin:
        folder, number, module, arguments, log = json.loads(line)
        assert os.listdir("/proc/self/task") == [str(os.getpid())], "A process with several threads is not forked."
        process = os.fork()
        if not process:
            for place, flags, descriptors in ((os.devnull, os.O_RDONLY, (0,)), (log, os.O_WRONLY, (1, 2))):
                opened = os.open(place, flags)
                for descriptor in descriptors:
                    os.dup2(opened, descriptor)
                os.close(opened)
            run(folder, number, module, arguments)
            return
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def import_what_it_imports(module: str) -> None:
    """Imports what a command imports at its head, and not the command: `runpy` runs it as the main program."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for statement in ast.parse(pathlib.Path(spec.origin).read_text()).body:
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names = [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
        else:
            continue
        for name in names:
            with contextlib.suppress(ModuleNotFoundError):  # a function, not a module
                importlib.import_module(name)


class Server:
    """The server's other end; a context manager."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], cwd: pathlib.Path):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", *modules],
            env=environment,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._process:
            self._process.stdin.close()
        assert self._process.returncode == 0

    def start(self, folder: pathlib.Path, number: int, module: str, arguments: Sequence[str], log: str) -> "Forked":
        """Has a process forked, see `run`; its output goes to `log`. The one before must have ended."""
        pathlib.Path(log).write_text("")
        asked = json.dumps([str(folder), number, module, list(arguments), log])
        self._process.stdin.write(asked.encode() + b"\n")
        return Forked(self._process, int(self._process.stdout.readline()))


class Forked:
    """A forked process, to be used as a `subprocess.Popen`.

    Attributes:
      pid: its id.
      returncode: its exit code, negative for a signal; None while it runs, as far as was asked.
    """

    def __init__(self, server: subprocess.Popen, pid: int):
        self._server, self.pid, self.returncode = server, pid, None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises `subprocess.TimeoutExpired` where it has not ended after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._server.stdout], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.returncode = int(self._server.stdout.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)


def main() -> None:
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        folder, number, module, *arguments = sys.argv[1:]
        run(folder, int(number), module, arguments)


if __name__ == "__main__":
    main()
