"""What the environment may ask for; a process that finds nobody; commands that are for one process."""

import os
import socket
import subprocess
import sys

import pytest

from emokd.errors import InputError
from emokd.training import distributed

GIVEN = {"EMOKD_COORDINATOR": "[::1]:5000", "EMOKD_PROCESSES": "2", "EMOKD_PROCESS": "1"}


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        ({}, None),
        ({"EMOKD_DISTRIBUTED": "", "EMOKD_PROCESS": ""}, None),
        (GIVEN, distributed.Processes("[::1]:5000", 2, 1)),
        ({"EMOKD_DISTRIBUTED": "auto"}, "auto"),
    ],
)
def test_what_is_asked_for(environment, processes):
    assert distributed.requested(environment) == processes


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"EMOKD_DISTRIBUTED": "aut"},
            "EMOKD_DISTRIBUTED is 'aut'; set it to 'auto', or unset it. Did you mean 'auto'",
        ),
        (GIVEN | {"EMOKD_DISTRIBUTED": "auto"}, "EMOKD_DISTRIBUTED=auto and EMOKD_COORDINATOR, .* are both set"),
        (GIVEN | {"EMOKD_PROCESS": ""}, "EMOKD_PROCESSES is set, but not EMOKD_PROCESS; set all of"),
        (GIVEN | {"EMOKD_COORDINATOR": "here"}, "EMOKD_COORDINATOR is 'here'; give HOST:PORT"),
        (GIVEN | {"EMOKD_COORDINATOR": "here:99999"}, "EMOKD_COORDINATOR is 'here:99999'; give HOST:PORT"),
        (GIVEN | {"EMOKD_PROCESSES": "two"}, "EMOKD_PROCESSES is 'two'; give a whole number"),
        (GIVEN | {"EMOKD_PROCESS": "-1"}, "EMOKD_PROCESS is '-1'; give a whole number"),
        (GIVEN | {"EMOKD_PROCESS": "2"}, "EMOKD_PROCESS is 2, but EMOKD_PROCESSES is 2; number them from 0"),
    ],
)
def test_what_is_wrong_is_said(environment, message):
    with pytest.raises(InputError, match=message):
        distributed.requested(environment)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EMOKD", "XLA"))}
    return subprocess.run(
        [sys.executable, *arguments],
        env=inherited | {"JAX_PLATFORMS": "cpu", "EMOKD_COMPILATION_CACHE": ""} | environment,
        capture_output=True,
        text=True,
    )


def test_a_process_without_the_first_gives_up():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"Process 1 of 2 found nobody at {address} within 0 seconds"):
            distributed.initialize(distributed.Processes(address, 2, 1), join_seconds=0)


def test_a_port_in_use_is_refused():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Process 0 cannot listen at port {port} "):
            distributed.initialize(distributed.Processes(f"127.0.0.1:{port}", 2, 0))


def test_outside_a_cluster_automatic_is_refused():
    done = python("-m", "emokd.evaluate", "--workdir=none", EMOKD_DISTRIBUTED="auto")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("evaluate: EMOKD_DISTRIBUTED=auto, but JAX could not join"), done.stderr


def test_a_command_for_one_process_says_so():
    done = python("-m", "emokd.report", "--workdir=none", **GIVEN)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "report: report runs in one process; unset EMOKD_COORDINATOR, EMOKD_PROCESSES, EMOKD_PROCESS.\n"
    )
