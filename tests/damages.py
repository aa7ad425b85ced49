"""Seeded damage to files, and the bounds within which a reader reads, skips or refuses what it is given."""

import contextlib
import pathlib
import resource
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from emokd.errors import InputError

SECONDS, MIB = 20, 1024
FEW, MANY = 12, 80
"""Damaged files of each kind: by default, and in the slow tests."""


def flip(content: bytearray, rng) -> bytearray:
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


def overwrite(content: bytearray, rng) -> bytearray:
    content[rng.integers(len(content))] = rng.integers(256)
    return content


def flip_early(content: bytearray, rng) -> bytearray:
    content[rng.integers(min(len(content), 600))] ^= 1 << rng.integers(8)
    return content


def cut(content: bytearray, rng) -> bytearray:
    return content[: rng.integers(len(content))]


def blank(content: bytearray, rng) -> bytearray:
    start = rng.integers(len(content))
    content[start : start + 16] = bytes(len(content[start : start + 16]))
    return content


def repeat(content: bytearray, rng) -> bytearray:
    start = rng.integers(len(content))
    return content[:start] + content[max(start - 40, 0) :]


DAMAGES = (flip, overwrite, flip_early, cut, blank, repeat)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Ends what hangs, and fails where memory rose by more than reading such files could need."""

    def late(*_):
        raise TimeoutError(f"more than {SECONDS} s for one file")

    before, peak = signal.signal(signal.SIGALRM, late), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < MIB


def refused(read: Callable[[], object]) -> str:
    """The message of an InputError, empty where it was read; anything else fails."""
    signal.alarm(SECONDS)
    try:
        read()
    except InputError as error:
        assert str(error).strip() and "object at 0x" not in str(error)
        return str(error)
    finally:
        signal.alarm(0)
    return ""


def damaged(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The content, damaged once in `count` ways."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield bytes(DAMAGES[number % len(DAMAGES)](bytearray(whole), rng))


def try_all(path: pathlib.Path, read: Callable[[], object], count: int, seed: int) -> list[str]:
    """Damages a file `count` times, each time from its whole content; what was said."""
    whole, told = path.read_bytes(), []
    for content in damaged(whole, count, seed):
        path.write_bytes(content)
        told.append(refused(read))
    path.write_bytes(whole)
    assert not refused(read)
    return told


def amounts(names):
    few = [pytest.param(name, FEW, id=f"{name}-few") for name in names]
    return few + [pytest.param(name, MANY, id=f"{name}-many", marks=pytest.mark.slow) for name in names]
