"""What a process's memory is said to be, and that freed memory goes back to the system."""

import gc
import mmap
import pathlib
import sys
import threading
import weakref

import pytest

from emokd.training import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")


def test_memory_maps_are_counted():
    before, limit = memory.maps_share(), int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
    # Neighbours of equal protection would be merged into one.
    held = [mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | (i % 2) * mmap.PROT_WRITE) for i in range(200)]
    assert (memory.maps_share() - before) * limit == pytest.approx(200, abs=30)
    del held


def test_resident_memory_is_what_is_written_to():
    before = memory.resident_bytes()
    held = bytearray(b"1" * 2**26)
    assert memory.resident_bytes() - before > 2**26 - 2**22
    del held


def test_memory_is_short_beyond_a_share_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "maps_share", lambda: 0.1)
    monkeypatch.setattr(memory, "memory_bytes", lambda: 8 * memory.resident_bytes() + 2**32)
    assert not memory.is_short()
    monkeypatch.setattr(memory, "memory_bytes", lambda: memory.resident_bytes())
    assert memory.is_short()
    monkeypatch.setattr(memory, "memory_bytes", lambda: 0)  # not known
    assert not memory.is_short()


def test_freed_memory_goes_back_to_the_system():
    """Pieces too small for maps of their own, in a thread's arena, with something left above them."""
    left = []

    def work():
        pieces = [bytearray(2**14) for _ in range(2**13)]  # 128 MiB
        left.append(bytearray(2**14))
        pieces.clear()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    held = memory.resident_bytes()
    memory.release()
    assert held - memory.resident_bytes() > 2**26


class Cycle:
    def __init__(self):
        self.itself = self


def test_what_is_kept_is_looked_at_again_later():
    cycle = Cycle()
    gone = weakref.ref(cycle)
    memory.release(keep=True)
    del cycle
    gc.collect()
    assert gone() is not None
    memory.release()
    assert gone() is None
