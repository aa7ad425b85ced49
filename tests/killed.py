"""Runs a command of emokd until its process does a chosen thing to a file of a folder, and kills it at that moment.

killed.py FOLDER NUMBER MODULE ARGUMENTS: the process kills itself (SIGKILL) at the NUMBER-th time that it opens a file
below FOLDER for writing, makes, renames or removes one; 0 for never. At its end FOLDER.events holds how many times that
was. Python reports these moments before they happen, so the last one before a kill did happen and this one did not.
"""

import os
import pathlib
import runpy
import signal
import sys

WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "os.link")


def main() -> None:
    folder, number, module, *arguments = sys.argv[1:]
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
        if count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    sys.argv = [f"{module.rpartition('.')[2]}.py", *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        pathlib.Path(f"{folder}.events").write_text(str(count))


if __name__ == "__main__":
    main()
