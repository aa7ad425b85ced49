"""Notices within seconds that one of several processes has ended, and ends the others with a message that names it.

A collective waits for ever for a process that is gone, and JAX's own heartbeats take a minute and end with a page of
C++. Here every process keeps a connection to process 0 open. The kernel closes a connection when its process ends,
however it ends, and keep-alive probes notice a host that is gone. [ours]
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from absl import logging

LOST = 75
"""Exit code where another process is gone: sysexits' for "try again"."""
GRACE_SECONDS = 10.0
"""How long a process may go on after another one has ended with an error: it may be about to end by the same one."""
NEWS_SECONDS = 3.0
"""How long news of a lost process may take."""
_CONNECT_SECONDS = 20.0
_ADDRESS_BYTES = 256
_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_BYE = "bye"


class Peers:
    """The connections of one process to the others: those of process 0 to all, those of the rest to process 0.

    A line of text is a message: "hello INDEX WHERE" when a process connects, "lost INDEX WHERE" when process 0 has
    noticed that one is gone, "bye CODE" before a process ends by itself.

    Attributes:
      lines: the connections.
      port: where process 0 listens, 0 before it does.
    """

    def __init__(self, index: int, count: int, command: str, end: Callable[[str], None] | None = None):
        """Prepares.

        Args:
          index: which process this is.
          count: of all processes.
          command: what messages begin with.
          end: ends the process with a message; for tests.
        """
        self._index, self._count, self._command = index, count, command
        self._end = end or _leave
        self.lines: list[socket.socket] = []
        self._lock = threading.Lock()
        self._leaving = False
        self.port = 0

    def listen(self) -> int:
        """Opens process 0's port for the others, and returns it."""
        server = socket.create_server(("", 0))
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        self.port = server.getsockname()[1]
        return self.port

    def connect(self, host: str, port: int) -> None:
        """Connects to process 0; where that is not possible, JAX's heartbeats have to do, which is logged."""
        try:
            line = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
        except OSError as error:
            logging.warning(
                "Process %d has no second connection to process 0 (%s:%d: %s). A lost process is noticed "
                "within a minute.",
                *(self._index, host, port, error),
            )
            return
        line.settimeout(None)
        _probe(line)
        self.lines.append(line)
        _send(line, f"hello {self._index} {_here()}")
        threading.Thread(target=self._follow, args=(line, 0, host), daemon=True).start()

    def leave(self, code: int) -> None:
        """Tells the others that this process ends by itself, with an exit code."""
        with self._lock:
            self._leaving, lines = True, list(self.lines)
        for line in lines:
            _send(line, f"{_BYE} {code}")

    def wait(self) -> None:
        """Waits a moment for news that another process is lost, which ends this one."""
        time.sleep(NEWS_SECONDS)

    def _accept(self, server: socket.socket) -> None:
        with server:
            while True:
                line, (host, *_) = server.accept()
                _probe(line)
                with self._lock:
                    self.lines.append(line)
                threading.Thread(target=self._follow, args=(line, None, host), daemon=True).start()

    def _follow(self, line: socket.socket, other: int | None, where: str) -> None:
        """Reads what another process says until it ends; `other` is its index where that is known already."""
        code: int | None = None
        try:
            with line, line.makefile(encoding="utf-8") as said:
                for text in said:
                    kind, _, rest = text.strip().partition(" ")
                    if kind == "hello":
                        number, _, where = rest.partition(" ")
                        other = int(number)
                    elif kind == _BYE:
                        code = int(rest)
                        break
                    elif kind == "lost":
                        number, _, there = rest.partition(" ")
                        self.lose(int(number), there)
        except (OSError, ValueError) as error:
            logging.debug("The connection to process %s broke: %s", other, error)
        if code == 0 or other is None:  # a stranger that says no hello is none of ours
            return
        if code is not None:
            time.sleep(GRACE_SECONDS)
        self.lose(other, where, code)

    def lose(self, other: int, where: str, code: int | None = None) -> None:
        """Ends this process because another one is gone; process 0 tells the others first."""
        with self._lock:
            if self._leaving:
                return
            self._leaving, lines = True, list(self.lines)
        if self._index == 0:
            for line in lines:
                _send(line, f"lost {other} {where}")
        how = "has ended, or cannot be reached any more"
        if code is not None:
            how = f"has ended with an error (exit code {code})"
        self._end(
            f"{self._command}: process {other} of {self._count} ({where}) {how}, so process {self._index} ends too. "
            "Start the same command again, in as many processes as you like: it goes on from the last checkpoint."
        )


def watch(index: int, count: int, host: str, command: str) -> Peers:
    """Connects all processes; to be called by each of them once they have joined.

    Args:
      index: which process this is.
      count: of all processes.
      host: of process 0, as the others reach it; empty for the name that process 0 gives itself.
      command: what messages begin with.
    """
    from jax.experimental import multihost_utils

    peers = Peers(index, count, command)
    address = np.zeros(_ADDRESS_BYTES, np.uint8)
    if index == 0:
        text = f"{host or socket.getfqdn()} {peers.listen()}".encode()
        address[: len(text)] = np.frombuffer(text, np.uint8)
    address = np.asarray(multihost_utils.broadcast_one_to_all(address), np.uint8)
    if index:
        name, port = address.tobytes().rstrip(b"\0").decode().split(" ")
        peers.connect(name.strip("[]"), int(port))
    return peers


def _here() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"


def _send(line: socket.socket, text: str) -> None:
    try:
        line.sendall(f"{text}\n".encode())
    except OSError as error:  # it is gone, which its own thread notices
        logging.debug("%r could not be sent: %s", text, error)


def _probe(line: socket.socket) -> None:
    """Has the kernel ask every few seconds whether the other host is still there."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):  # not on every system
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _leave(message: str) -> None:
    """Ends the process at once: its main thread may wait in a collective for ever. Files are written whole or not."""
    print(message, file=sys.stderr, flush=True)
    os._exit(LOST)
