"""Runs a command: flags, log format, compilation cache, and errors that a user can read."""

import contextlib
import copy
import errno
import io
import logging as python_logging
import os
import pathlib
import re
import select
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging

from emokd import imports
from emokd.errors import InputError, nearest
from emokd.jobs import help
from emokd.reporting.provenance import command as command_line
from emokd.training import distributed, peers
from emokd.training.stopped import Stopped

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes on its own start; errors still show

INPUT_ERROR = 2
"""Exit code when the user's input, not the program, is at fault."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
STOPPED = "EMOKD_EXIT_STOPPED"
"""Names the exit code of a run that SIGTERM has stopped, in place of 0, for launchers to which 0 means that the run is
finished."""
READER_GONE = 141
"""Exit code where the output is a pipe that nobody reads any more, as in `... | head -1`: the shells' for SIGPIPE."""


TRUST = flags.DEFINE_list(
    "trust", [], "Import paths (package.module:function) that a run's or a model's folder may name."
)


def run(main: Callable[[list[str]], None], *, several_processes: bool = False, takes_arguments: bool = False) -> None:
    """Runs a command's `main` and exits; joins other processes first where the environment names them.

    An error that the user can mend ends with one message on stderr, prefixed by the command's name, and exit code 2:
    an InputError, a wrong flag or configuration key, a full disk. Ctrl-C exits with 130, and a pipe that nobody
    reads any more with 141 and no message. SIGTERM exits with 0, or as EMOKD_EXIT_STOPPED says, where a run was under
    way, which has then saved its last step. Where one of several processes is lost, the others end with 75, see
    `emokd.training.peers`. Any other error is a bug and keeps its traceback. With `--verbosity=1` every error keeps it.

    Args:
      main: takes the arguments that are not flags, the program's name first.
      several_processes: whether several processes can share the command's work.
      takes_arguments: whether there may be arguments that are not flags. Elsewhere they are refused: absl reads
        `--flag false` as a flag that is set, and an argument.
    """
    command = pathlib.Path(sys.argv[0]).stem
    others: list[peers.Peers] = []

    def joined(argv: list[str]) -> None:
        if len(argv) > 1 and not takes_arguments:
            raise InputError(
                f"What is {' '.join(argv[1:])}? All options of {command} are flags with their values behind '=', such "
                "as --config=FILE; a switch is on as --NAME, and off as --NAME=false."
            )
        # Import paths that the user gives are trusted: in overrides of the configuration, and in --trust.
        imports.trust([TRUST.value, flags.FLAGS["config"].value if "config" in flags.FLAGS else None])
        others.extend(join_processes(command, several_processes))
        main(argv)

    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[TRUST.name])  # so that --help lists it
    configure_logging()
    configure_compilation_cache()
    with told_to(others), readable_errors(command):
        app.run(joined, flags_parser=parse_flags)


@contextlib.contextmanager
def told_to(others: Sequence[peers.Peers]) -> Iterator[None]:
    """Tells the other processes, if there are any, with which exit code this one ends."""
    try:
        yield
    except SystemExit as left:
        for connection in others:
            connection.leave(left.code if isinstance(left.code, int) else int(left.code is not None))
        raise
    except BaseException:
        for connection in others:
            connection.wait()  # a collective may have failed because a process is lost, which ends this one
            connection.leave(1)
        raise


def join_processes(command: str, several_processes: bool) -> list[peers.Peers]:
    """Joins the processes that the environment names, see `emokd.training.distributed`; only process 0 logs at INFO.

    Returns:
      The connection to the others, where there are any.

    Raises:
      InputError: the variables are wrong, the processes do not find each other, or the command is for one process.
    """
    processes = distributed.requested(os.environ)
    if processes is None:
        return []
    if not several_processes:
        names = [name for name in (distributed.MODE, *distributed.EXPLICIT) if os.environ.get(name)]
        raise InputError(f"{command} runs in one process; unset {', '.join(names)}.")
    import jax  # here, because commands without JAX import this module

    index = distributed.initialize(processes)
    if index and logging.get_verbosity() < logging.DEBUG:
        logging.set_verbosity(logging.WARNING)
    if jax.process_count() == 1:
        return []
    host = "" if processes == "auto" else processes.coordinator.rpartition(":")[0]
    return [peers.watch(index, jax.process_count(), host, command)]


@contextlib.contextmanager
def readable_errors(command: str) -> Iterator[None]:
    """Turns the errors that a user can mend into one message and an exit code.

    Args:
      command: the name that the message begins with.
    """
    try:
        try:
            yield
        except SystemExit as left:
            sys.stdout.flush()
            if isinstance(left.__context__, BrokenPipeError):  # rich, which draws progress, exits so
                drop_unread_output()
                raise SystemExit(READER_GONE) from None
            raise
        sys.stdout.flush()  # so that a failing write is caught here, not while Python shuts down
    except KeyboardInterrupt:
        _leave(f"{command}: interrupted", INTERRUPTED)
    except Stopped as stopped:
        import jax

        code = INTERRUPTED if stopped.signal is signal.SIGINT else int(os.environ.get(STOPPED) or 0)
        if jax.process_index():  # process 0 says it
            raise SystemExit(code) from None
        _leave(f"{command}: {stopped} The same command goes on from there:\n  {command_line()}", code)
    except BrokenPipeError as error:
        if not drop_unread_output():
            raise
        logging.debug("Nobody reads", exc_info=error)
        raise SystemExit(READER_GONE) from None
    except InputError as error:
        logging.debug("Input error", exc_info=error)
        _leave(f"{command}: {error}", INPUT_ERROR)
    except Exception as error:
        told = full_disk(error) or _refused(error)
        if told is None:
            raise
        logging.debug("The disk", exc_info=error)
        _leave(f"{command}: {told}", INPUT_ERROR)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FURTHER_LINE = re.compile(r"\n(?! )")


def printable(text: str) -> str:
    """The text as a message: names of files and classes must not steer the terminal, nor pass for messages.

    Control characters are written out, those that turn the direction of writing included. Each line but the first
    begins with a blank, so that a name with a line break cannot begin a line that looks like another message.
    """
    return _FURTHER_LINE.sub("\n  ", _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text))


class LogFormatter(python_logging.Formatter):
    """Writes records, the names in them as `printable` has them, and with their line breaks written out."""

    def format(self, record: python_logging.LogRecord) -> str:
        """The record's line, or its lines where the message itself has several."""
        if isinstance(record.args, tuple):
            record = copy.copy(record)  # other handlers, such as that of a run's warnings, get it as it is
            record.args = tuple(
                str(arg).replace("\n", "\\n") if isinstance(arg, str | pathlib.PurePath) else arg
                for arg in record.args or ()
            )
        return printable(super().format(record))


def _leave(message: str, code: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    with contextlib.suppress(BrokenPipeError):
        print(printable(message), file=sys.stderr, flush=True)
    drop_unread_output()
    raise SystemExit(code) from None


def drop_unread_output() -> bool:
    """Redirects stdout and stderr to the null device, where they are pipes that nobody reads any more.

    Otherwise Python reports an error when it flushes them at its end.

    Returns:
      Whether there is such a pipe.
    """
    found = False
    for stream in (sys.stdout, sys.stderr):
        try:
            descriptor = stream.fileno()
            poll = select.poll()
            poll.register(descriptor, 0)
            gone = any(events & select.POLLERR for _, events in poll.poll(0))
        except (AttributeError, ValueError, io.UnsupportedOperation):  # closed, or no file at all
            continue
        if gone:
            found = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    return found


def parse_flags(argv: list[str]) -> list[str]:
    """Parses all flags.

    Args:
      argv: the program's name and its arguments.

    Returns:
      The arguments that are not flags, the program's name first.

    Raises:
      InputError: a flag or a configuration key does not exist or has a wrong value, or a required one is missing.
    """
    if help.is_asked(argv):
        print(help.of_this_command())
        raise SystemExit(0)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        name = error.flagname.removeprefix("no") if error.flagname.startswith("noconfig.") else error.flagname
        if name.startswith("config.") and "config" in flags.FLAGS:
            raise InputError(
                f"--{name} changes a configuration, but none is given before it: --config=FILE."
            ) from error
        raise InputError(f"There is no flag --{name}.{_nearest_flag(name)}") from error
    except flags.DuplicateFlagError as error:
        raise InputError("--config is given twice; give it once, before its overrides.") from error
    except flags.Error as error:
        raise InputError(_flag_message(str(error))) from error
    except (KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
        # ml_collections raises these for overrides that do not fit the configuration.
        raise InputError(f"A --config override does not fit the configuration: {_one_line(str(error))}") from error
    if "config" in flags.FLAGS and _config_is_missing():
        raise InputError("--config is missing: give --config=FILE, or --config=emokd:NAME; --list_configs names them.")
    return rest


def _config_is_missing() -> bool:
    from emokd.configuration.flag import is_missing  # here, because commands without --config need no ml_collections

    return is_missing()


def _nearest_flag(name: str) -> str:
    hint = nearest(name, flags.FLAGS)
    return hint.replace("'", "--", 1).replace("'", "", 1)


def _flag_message(message: str) -> str:
    missing = re.search(r"Flag (--\S+) must have a value other than None", message)
    if missing:
        return f"{missing.group(1)} is missing: give {missing.group(1)}=..."
    return _one_line(message)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def full_disk(error: BaseException) -> str | None:
    """The message for an error that a full disk caused, or None for any other.

    TensorStore and the asynchronous checkpoint writer wrap the system's error, so causes are searched too.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            name = cause.filename or _workdir()
            return f"no space left on the disk{f': {name}' if name else ''}"
        if os.strerror(errno.ENOSPC) in str(cause):
            place = re.search(r'"(/[^"]+)"', str(cause))
            return f"no space left on the disk: {place.group(1) if place else _one_line(str(cause))}"
        cause = cause.__cause__ or cause.__context__
    return None


_REMEDIES = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "Change who may read and write there, or give another place."
    ),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG), "Give another place."),
}
"""By the system's number of an error. A file that is missing is not among them: who reads it says what it was for."""


def _refused(error: Exception) -> str | None:
    """The message for a place that may not be read or written, or cannot be one; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    place = error.filename2 or error.filename
    return None if place is None else f"{place}: {error.strerror}. {_REMEDIES[error.errno]}"


def _workdir() -> str:
    """The folder that a command writes to: the likeliest place of an error that names none."""
    return str(flags.FLAGS["workdir"].value or "") if "workdir" in flags.FLAGS else ""


def configure_logging() -> None:
    """Sets up logging: short lines on stderr; of libraries that report progress at INFO, only WARNING and above."""
    handler = logging.get_absl_handler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    handler.addFilter(_ours_or_serious)
    sys.excepthook = _report_uncaught
    threading.excepthook = _report_in_thread
    sys.unraisablehook = _report_unraisable
    # Of a failed save, when Python ends: orbax's writers were never asked to begin.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)


_PACKAGE = str(pathlib.Path(__file__).parents[1]) + os.sep
_CHATTY = re.compile(r"[/\\](orbax|grain|tensorflow_datasets|etils|flax|jax)[/\\]")


def _ours_or_serious(record: python_logging.LogRecord) -> bool:
    """Whether a record is shown. orbax and grain log through absl's own logger, so only the path tells them apart."""
    if logging.get_verbosity() >= logging.DEBUG:
        return True
    if record.levelno >= python_logging.WARNING:
        # Each of orbax's threads reports a full disk with a page of traceback; the command says it once.
        error = record.exc_info[1] if record.exc_info else None
        return error is None or not (full_disk(error) or _of_a_closed_loop(error))
    return record.pathname.startswith(_PACKAGE) or not _CHATTY.search(record.pathname)


# After a failed save each of TensorStore's writers reports to orbax's event loop, which is closed. The command has said
# what failed, so this one error is silenced, in each of Python's hooks for uncaught exceptions.


def _of_a_closed_loop(error: BaseException | None) -> bool:
    return type(error) is RuntimeError and str(error) == "Event loop is closed"


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    if not _of_a_closed_loop(error):
        sys.__excepthook__(kind, error, trace)


def _report_in_thread(found: threading.ExceptHookArgs) -> None:
    if not _of_a_closed_loop(found.exc_value):
        threading.__excepthook__(found)


def _report_unraisable(found: "sys.UnraisableHookArgs") -> None:
    if not _of_a_closed_loop(found.exc_value):
        sys.__unraisablehook__(found)


def configure_compilation_cache() -> None:
    """Keeps compiled programs between runs, in the user's cache directory.

    EMOKD_COMPILATION_CACHE names another directory, and empty turns the cache off; JAX's own
    JAX_COMPILATION_CACHE_DIR is respected. Does not start JAX's backend, and does not import JAX: where that comes
    later, or never, it is told by the environment.
    """
    chosen = os.environ.get("EMOKD_COMPILATION_CACHE")
    if chosen == "":
        _set_in_jax("jax_enable_compilation_cache", False)
    elif chosen:
        _set_in_jax("jax_compilation_cache_dir", str(pathlib.Path(chosen).expanduser().absolute()))
    elif not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        _set_in_jax("jax_compilation_cache_dir", str(_user_cache() / "emokd" / "jax"))


def _set_in_jax(name: str, value: str | bool) -> None:
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(name, value)
    else:
        os.environ[name.upper()] = str(value)


def _user_cache() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
