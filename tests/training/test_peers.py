"""Connections that tell processes of each other's end; here threads of one process stand for the processes."""

import contextlib
import queue
import socket

import pytest

from emokd.training import peers
from emokd.training.peers import Peers

SECONDS = 10.0


class Watched:
    """Process 0 and two others, and the messages by which each of them ended."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(peers, "GRACE_SECONDS", 0.0)
        self.ended = [queue.Queue() for _ in range(3)]
        self.all = [Peers(i, 3, "train", self.ended[i].put) for i in range(3)]
        port = self.all[0].listen()
        for other in self.all[1:]:
            other.connect("127.0.0.1", port)
        while len(self.all[0].lines) < 2:
            pass

    def kill(self, index):
        """Does to its connections what the kernel does when a process ends."""
        self.all[index]._leaving = True  # a process that is gone notices nothing
        for line in self.all[index].lines:
            with contextlib.suppress(OSError):  # the other side was quicker
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def message(self, index):
        return self.ended[index].get(timeout=SECONDS)


@pytest.fixture
def watched(monkeypatch):
    found = Watched(monkeypatch)
    yield found
    for index in range(3):
        found.kill(index)


def test_a_lost_process_ends_all_others_with_its_name(watched):
    watched.kill(1)
    for index in (0, 2):
        said = watched.message(index)
        assert said.startswith("train: process 1 of 3 (pid ")
        assert f"has ended, or cannot be reached any more, so process {index} ends too." in said
        assert "it goes on from the last checkpoint" in said


def test_the_first_process_lost_ends_all_others(watched):
    watched.kill(0)
    for index in (1, 2):
        assert watched.message(index).startswith("train: process 0 of 3 (127.0.0.1) has ended")


def test_processes_that_end_well_end_nobody(watched):
    watched.all[1].leave(0)
    watched.kill(1)
    watched.all[2].leave(0)
    watched.kill(2)
    watched.all[0].leave(0)
    watched.kill(0)
    with pytest.raises(queue.Empty):
        watched.ended[0].get(timeout=0.3)
    assert all(messages.empty() for messages in watched.ended)


def test_a_process_that_ends_with_an_error_ends_the_others(watched):
    watched.all[2].leave(2)
    watched.kill(2)
    assert "process 2 of 3" in watched.message(1)
    assert "has ended with an error (exit code 2), so process 0 ends too" in watched.message(0)


def test_a_stranger_who_says_nothing_ends_nobody(watched):
    port = watched.all[0].port
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(queue.Empty):
        watched.ended[0].get(timeout=0.3)


def test_without_a_way_to_the_first_process_the_run_goes_on(monkeypatch):
    alone = Peers(1, 2, "train", end=pytest.fail)
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        alone.connect("127.0.0.1", taken.getsockname()[1])
    assert alone.lines == []
