import errno
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
import rich.console
from absl import flags
from absl import logging as absl_logging

from emokd.configuration import flag
from emokd.errors import InputError
from emokd.jobs import command
from emokd.training.stopped import Stopped

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import os
import sys
import jax
from absl import flags, logging
from emokd.jobs import command
from emokd.training.stopped import Stopped
from emokd.configuration import flag

CONFIG = flag.define_config_flag()
assert flag.define_config_flag().name == CONFIG.name
WORKDIR = flags.DEFINE_string("workdir", None, "Where.", required=True)
NUMBER = flags.DEFINE_integer("number", 1, "A number.")


def main(argv):
    from jax._src import xla_bridge

    assert not xla_bridge.backends_are_initialized()
    logging.info("our news")
    exec(compile("from absl import logging; logging.info('their news')", "/lib/orbax/x.py", "exec"), {})
    exec(compile("from absl import logging; logging.warning('their worry')", "/lib/orbax/x.py", "exec"), {})
    jax.jit(lambda x: x + 1)(1.0)
    print(argv[1:], flag.file_of(CONFIG), CONFIG.value.to_dict(), CONFIG.value.is_locked)
    if NUMBER.value == 3:
        raise RuntimeError("a bug")


if __name__ == "__main__":
    command.run(main, takes_arguments="FLAGS_ALONE" not in os.environ)
"""

CONFIG = """
import ml_collections
from emokd.configuration.config import check_argument


def get_config(arg=""):
    check_argument(arg)
    return ml_collections.ConfigDict(
        {
            "arg": arg,
            "batch_size": 4,
            "flip": True,
            "sizes": [1],
            "optimizer": {"learning_rate": 0.1, "warmup_epochs": 2.0},
        }
    )
"""


@pytest.fixture
def run(tmp_path):
    """Runs the program above in a process of its own, in a folder with experiment.py."""
    (tmp_path / "sample.py").write_text(PROGRAM)
    (tmp_path / "experiment.py").write_text(CONFIG)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        inherited = {k: v for k, v in os.environ.items() if k not in ("EMOKD_COMPILATION_CACHE", "XLA_FLAGS")}
        inherited |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
        inherited |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | environment
        return subprocess.run(
            [sys.executable, "sample.py", *arguments], cwd=tmp_path, env=inherited, capture_output=True, text=True
        )

    return run


def test_a_command_that_works(run, tmp_path):
    done = run("--workdir=w", "--config=experiment.py:small", "--config.optimizer.warmup_steps=10", "picture.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "['picture.png'] experiment.py:small {'arg': 'small', 'batch_size': 4, 'flip': True, 'optimizer': "
        "{'learning_rate': 0.1, 'warmup_steps': 10}, 'sizes': [1]} True\n"
    )
    lines = done.stderr.splitlines()
    assert [line[9:] for line in lines] == ["I our news", "W their worry"]
    assert any((tmp_path / "cache" / "emokd" / "jax").iterdir())


GIVEN = ("--workdir=w", "--config=experiment.py")


def test_what_is_no_flag_is_refused_where_there_are_flags_alone(run):
    """Such as the value of a switch that has no '=' before it, which would be switched on."""
    done = run(*GIVEN, "--config.flip", "false", FLAGS_ALONE="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sample: What is false? All options of sample are flags with their values behind '='")


def test_a_bug_keeps_its_traceback_and_the_compilation_cache_can_be_off(run, tmp_path):
    done = run(*GIVEN, "--number=3", EMOKD_COMPILATION_CACHE="")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("RuntimeError: a bug\n")
    assert not (tmp_path / "cache").exists()


def test_the_compilation_cache_can_move(run, tmp_path):
    assert run(*GIVEN, EMOKD_COMPILATION_CACHE="elsewhere").returncode == 0
    assert not (tmp_path / "cache").exists()
    assert any((tmp_path / "elsewhere").iterdir())


def test_a_wrong_flag_is_one_line(run):
    done = run(*GIVEN, "--config.bacth_size=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "sample: config has no key 'bacth_size'. Did you mean 'batch_size'?\n"


def test_a_verbose_wrong_flag_keeps_its_traceback(run):
    assert "Traceback" in run("--verbosity=1", *GIVEN, "--config.bacth_size=3").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--wrokdir=w",), "There is no flag --wrokdir. Did you mean --workdir?"),
        ((*GIVEN, "--number=x"), "flag --number=x: invalid literal for int() with base 10: 'x'"),
        (("--config=experiment.py",), "--workdir is missing: give --workdir=..."),
        (("--workdir=w",), "--config is missing: give --config=FILE"),
        (("--workdir=w", "--config.batch_size=3"), "--config.batch_size changes a configuration, but none is given"),
        (
            ("--workdir=w", "--config=experimnt.py"),
            "no configuration file 'experimnt.py'. Did you mean 'experiment.py'",
        ),
        (("--workdir=w", "--config=experiment.py:big"), "has no variant 'big'"),
        ((*GIVEN, "--config.bacth_size=3"), "config has no key 'bacth_size'. Did you mean 'batch_size'?"),
        ((*GIVEN, "--noconfig.flipp"), "config has no key 'flipp'. Did you mean 'flip'?"),
        ((*GIVEN, "--config.optimizer.learningrate=3"), "Did you mean 'learning_rate'?"),
        ((*GIVEN, "--config.batch_size=x"), "flag --config.batch_size=x: invalid literal for int()"),
        (
            (*GIVEN, "--config.optimizer.warmup_steps=5", "--config.optimizer.warmup_epochs=2"),
            "config.optimizer.warmup_steps and config.optimizer.warmup_epochs are the same duration in two units; "
            "give one of them, not both.",
        ),
        (
            (*GIVEN, "--config.optimizer.warmup_epochs=2", "--config.optimizer.warmup_examples", "5"),
            "config.optimizer.warmup_epochs and config.optimizer.warmup_examples are the same duration",
        ),
        (
            (*GIVEN, "--config.sizes=3"),
            "config.sizes is [1] in the configuration and cannot be set on the command line",
        ),
        ((*GIVEN, "--config.batch_size=3", "--config=experiment.py"), "--config is given twice"),
        ((*GIVEN, "--config.batch_size[0]=3"), "does not fit the configuration"),
    ],
)
def test_messages_of_wrong_flags(arguments, message, tmp_path, monkeypatch):
    (tmp_path / "experiment.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    monkeypatch.setattr("sys.argv", ["sample.py", *arguments])
    flag.define_config_flag()
    flags.DEFINE_string("workdir", None, "Where.", required=True, flag_values=flags.FLAGS)
    flags.DEFINE_integer("number", 1, "A number.", flag_values=flags.FLAGS)
    with pytest.raises(InputError) as error:
        command.parse_flags(["sample.py", *arguments])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def disk_full_inside() -> Exception:
    """As an asynchronous writer reports it: wrapped."""
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/runs/a/checkpoint")
        except OSError as error:
            raise RuntimeError("the save failed") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("Row 3 of a.csv is empty."), 2, "train: Row 3 of a.csv is empty.\n"),
        (KeyboardInterrupt(), 130, "train: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 2, "train: no space left on the disk: /a/b\n"),
        (disk_full_inside(), 2, "train: no space left on the disk: /runs/a/checkpoint\n"),
        (
            ValueError('RESOURCE_EXHAUSTED: Error writing "params.kernel/0" at "/a/c/": No space left on device'),
            2,
            "train: no space left on the disk: /a/c/\n",
        ),
        (
            ValueError("write:\nNo space left on device"),
            2,
            "train: no space left on the disk: write: No space left on device\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "train: no space left on the disk\n"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "w" * 300),
            2,
            f"train: {'w' * 300}: File name too long. Give another place.\n",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "a"), 2, "train: a: File exists. Give another place.\n"),
    ],
)
def test_errors_that_the_user_can_mend(error, code, message, capsys):
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        raise error
    assert left.value.code == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_run_that_was_told_to_stop_names_the_command_that_continues_it(by, code, capsys, monkeypatch):
    monkeypatch.setattr(command, "command_line", lambda: "python -m emokd.train --workdir=here")
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        raise Stopped(by, 12)
    assert left.value.code == code
    told = f"train: Stopped by {by.name} after step 12, which is saved. The same command goes on from there:\n"
    assert capsys.readouterr().err == f"{told}  python -m emokd.train --workdir=here\n"


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_launcher_names_the_exit_code_of_a_run_that_was_told_to_stop(by, code, monkeypatch):
    monkeypatch.setenv(command.STOPPED, "75")
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        raise Stopped(by, 12)
    assert left.value.code == code


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EIO, "Input/output error", "/a"), SystemExit(3)])
def test_other_errors_pass(error, capsys):
    with pytest.raises(type(error)) as left, command.readable_errors("train"):
        raise error
    assert left.value is error
    assert capsys.readouterr().err == ""


def record(error: Exception | None, level: int = logging.ERROR) -> logging.LogRecord:
    trace = error and (type(error), error, error.__traceback__)
    return logging.LogRecord("absl", level, "/lib/orbax/future.py", 1, "a thread failed", (), trace)


CLOSED, ANOTHER = RuntimeError("Event loop is closed"), RuntimeError("Another")


def uncaught(error):
    sys.excepthook(type(error), error, None)


def in_a_thread(error):
    def act():
        raise error

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def in_a_finalizer(error):
    class Writer:
        def __del__(self):
            raise error

    Writer()


def test_a_full_disk_is_not_reported_by_every_thread_too(capsys):
    """Nor by what each of them does afterwards, on whichever of Python's ways it is reported."""
    handler = absl_logging.get_absl_handler()
    before, hooks = list(handler.filters), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    try:
        command.configure_logging()
        assert not handler.filter(record(disk_full_inside()))
        assert not handler.filter(record(CLOSED))
        assert handler.filter(record(ValueError("another")))
        assert handler.filter(record(None))
        assert not handler.filter(record(None, logging.INFO))
        for error, said in ((CLOSED, False), (ANOTHER, True), (ValueError("Event loop is closed"), True)):
            for report in (uncaught, in_a_thread, in_a_finalizer):
                report(error)
                assert (f"{type(error).__name__}: {error}\n" in capsys.readouterr().err) == said
    finally:
        handler.filters[:] = before
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        handler.setFormatter(absl_logging.PythonFormatter())


@pytest.fixture
def unread(monkeypatch):
    """Replaces a standard stream by a pipe whose reader has left."""
    opened = []

    def replace(name, **options):
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w", **options)
        opened.append(stream)
        monkeypatch.setattr(sys, name, stream)
        return stream

    yield replace
    for stream in opened:
        stream.close()  # would raise, were there still something to be written to nobody


def prints(text="answer", **options):
    return lambda: print(text, **options)


def fails(error):
    def act():
        print("answer")
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (prints(flush=True), 141),
        (prints(), 141),  # buffered, so it fails at the end
        (prints("x" * 100_000), 141),
        (fails(SystemExit(0)), 141),  # as --help does
        (fails(InputError("Row 3 is empty.")), 2),
    ],
)
def test_a_reader_that_has_left_is_no_bug(act, code, unread, capsys):
    unread("stdout")
    with pytest.raises(SystemExit) as left, command.readable_errors("predict"):
        act()
    assert left.value.code == code
    assert capsys.readouterr().err == ("predict: Row 3 is empty.\n" if code == 2 else "")


def test_messages_that_nobody_reads_are_no_bug_either(unread):
    unread("stderr")
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        raise InputError("Row 3 is empty.")
    assert left.value.code == 2


def test_progress_that_nobody_reads_ends_the_command_likewise(unread):
    unread("stderr")
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        rich.console.Console(stderr=True).print("step 1")
    assert left.value.code == 141


def test_another_broken_pipe_is_a_bug():
    with pytest.raises(BrokenPipeError), command.readable_errors("train"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the shell")
def test_the_exit_code_is_that_of_shells_for_a_closed_pipe():
    done = subprocess.run(["bash", "-c", "set -o pipefail; yes | head -1"], capture_output=True)
    assert done.returncode == command.READER_GONE


def test_a_file_that_may_not_be_written_is_one_message(capsys):
    error = PermissionError(errno.EACCES, "Permission denied", "w/report.html")
    with pytest.raises(SystemExit) as left, command.readable_errors("report"):
        raise error
    assert left.value.code == command.INPUT_ERROR
    assert capsys.readouterr().err == (
        "report: w/report.html: Permission denied. Change who may read and write there, or give another place.\n"
    )
