"""Memory of a process that does many runs one after another: what it uses, and returning what it no longer needs."""

import contextlib
import ctypes
import gc
import os
import pathlib

from emokd.reporting.provenance import memory_bytes

MAPS_SHARE = 0.75
"""Programs are dropped beyond this share of Linux's limit on memory maps. A program compiled for the CPU holds hundreds
of maps, and LLVM aborts a process that exceeds the limit: about twenty runs' programs of a MobileNetV2 did."""
MEMORY_SHARE = 1 / 8
"""Programs are dropped beyond this share of the machine's memory."""


def maps_share() -> float:
    """The share of Linux's limit on memory maps that this process uses; 0 where that is not known."""
    try:
        used = len(pathlib.Path("/proc/self/maps").read_bytes().splitlines())
        return used / int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
    except OSError:
        return 0.0


def resident_bytes() -> int:
    """Resident memory of this process; 0 where that is not known."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def is_short() -> bool:
    """Whether this process uses more memory, or more memory maps, than it may where it can do with less."""
    return maps_share() > MAPS_SHARE or resident_bytes() > MEMORY_SHARE * memory_bytes() > 0


def release(keep: bool = False) -> None:
    """Frees what only reference cycles hold, and returns free memory to the system.

    glibc keeps what the threads of the compiler and of the checkpoint writer have freed, each thread in an arena of its
    own, and gives back none of it while something small lies above: after every compilation some more.

    Args:
      keep: what is there now, mostly programs, stays: later collections skip it, until one without `keep`. A whole
        collection takes half a second with JAX loaded.
    """
    if not keep:
        gc.unfreeze()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    if keep:
        gc.freeze()
