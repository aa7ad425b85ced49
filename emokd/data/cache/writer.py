"""Writes a teacher cache in parts, so that it can be stopped at any moment and shared by several processes.

While the cache is being made, the folder holds

    unfinished.json     the plan: the cache's key, and how its rows are divided into parts
    part-00007.bin      the features of the part's rows, complete: it is written under another name and renamed
    features.partial    once all parts are there: their contents in order, each part removed after it was copied

With P processes, process i modulo P makes part i. The existence of its file is all that says that a part is done, so it
does not matter when the work is interrupted, nor how many processes continue it.
"""

import dataclasses
import io
import json
import os
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped, UInt64

from emokd.data.cache.description import (
    DESCRIPTION,
    FEATURES,
    INDEX,
    as_text,
    damaged,
    read_description,
    read_object,
)
from emokd.data.cache.reader import DTYPES, STORED, Key, differences
from emokd.errors import InputError, excerpt
from emokd.files import sync, write_whole

UNFINISHED, PARTIAL = "unfinished.json", "features.partial"

MAX_PARTS = 1000
"""Most parts of a cache. An interruption costs each process one part at most: a thousandth of a large cache."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a cache is going to be written.

    Attributes:
      key: what is stored of which teachers; the plan itself uses `views` and `dtype`.
      widths: number of features of each teacher, in the order in which they are concatenated.
      rows: number of examples.
      rows_per_part: rows of each part but the last, which may be shorter.
    """

    key: Key
    widths: Mapping[str, int]
    rows: int
    rows_per_part: int

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.rows // self.rows_per_part)

    @property
    def views(self) -> int:
        """Number of views of each example, without the evaluation view."""
        return int(self.key["views"])

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of one example's features: (views + 1, D)."""
        return self.views + 1, sum(self.widths.values())

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the features."""
        return np.dtype(DTYPES[self.key["dtype"]])

    @property
    def row_bytes(self) -> int:
        """Bytes of one example's features."""
        return int(np.prod(self.row_shape)) * self.dtype.itemsize

    def rows_of(self, part: int) -> range:
        """The rows of a part."""
        return range(part * self.rows_per_part, min((part + 1) * self.rows_per_part, self.rows))

    def part_bytes(self, part: int) -> int:
        """Size of a part's file in bytes."""
        return len(self.rows_of(part)) * self.row_bytes


def create_plan(key: Key, widths: Mapping[str, int], rows: int, batch_size: int) -> Plan:
    """The plan of a new cache; a part is a whole number of batches."""
    batches = -(-rows // batch_size)
    return Plan(key, dict(widths), rows, batch_size * -(-batches // MAX_PARTS))


def is_finished(folder: pathlib.Path, key: Key) -> bool:
    """Whether the folder holds a finished cache that serves `key`.

    Raises:
      InputError: it holds the finished cache of another key.
    """
    if not (folder / DESCRIPTION).exists():
        return False
    changed = differences(read_description(folder)["key"], key)
    if changed:
        raise InputError(
            f"{folder} holds the teacher cache of another key ({excerpt(changed)}); restore that, or use another "
            "folder."
        )
    return True


def begin(folder: pathlib.Path, plan: Plan) -> Plan:
    """Begins a cache, or continues the unfinished one in the folder.

    Returns:
      The plan to follow: with the parts of the first start, whose batch size may have been another.

    Raises:
      InputError: the folder holds an unfinished cache of another key, or the disk has too little room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / UNFINISHED
    if path.exists():
        stored = read_object(path)
        changed = differences(stored["key"], plan.key, less=False)
        if changed:
            raise InputError(
                f"{folder} holds an unfinished teacher cache of another key ({excerpt(changed)}); restore that, or use "
                "another folder."
            )
        rows_per_part = stored.get("rows_per_part")
        if not isinstance(rows_per_part, int) or rows_per_part < 1:
            raise damaged(folder, f"{UNFINISHED} does not say how large its parts are")
        plan = dataclasses.replace(plan, rows_per_part=rows_per_part)
    needed = plan.part_bytes(0) + sum(plan.part_bytes(part) for part in missing_parts(folder, plan))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"The teacher cache needs another {in_words(needed)} in {folder}, but only {in_words(free)} are free. "
            "Make room, give another --output, or lower config.data.views."
        )
    if not path.exists():
        write_whole(path, json.dumps({"key": plan.key, "rows_per_part": plan.rows_per_part}).encode())
    return plan


def missing_parts(folder: pathlib.Path, plan: Plan) -> list[int]:
    """The parts that are still to be written, ascending."""
    if (folder / FEATURES).exists():
        return []
    there = _parts_there(folder, plan)
    copied = _copied_parts(folder, plan, there)
    return [part for part in range(copied, plan.parts) if not there[part]]


def write_part(folder: pathlib.Path, plan: Plan, part: int, features: Shaped[np.ndarray, "N V D"]) -> None:
    """Writes a part, whole or not at all.

    Args:
      folder: the cache.
      plan: what `begin` returned.
      part: its number.
      features: of its rows, in the plan's `dtype`.
    """
    shape = (len(plan.rows_of(part)), *plan.row_shape)
    if features.shape != shape or features.dtype != plan.dtype:
        raise ValueError(f"part {part} is {features.dtype} {features.shape}, not {plan.dtype} {shape}")
    write_whole(_part(folder, part), np.ascontiguousarray(features).view(STORED[plan.key["dtype"]]).data)


def finish(folder: pathlib.Path, plan: Plan, index: UInt64[np.ndarray, " N"]) -> None:
    """Joins the parts, all of which must exist, into the finished cache.

    One process calls it. If it is interrupted, another call continues the work.

    Args:
      folder: the cache.
      plan: what `begin` returned.
      index: the examples' long ids, ascending, in the order of the rows.
    """
    if missing := missing_parts(folder, plan):
        raise ValueError(f"{folder} lacks the parts {excerpt(missing)}")
    if not (folder / FEATURES).exists():
        _join_parts(folder, plan)
        (folder / PARTIAL).replace(folder / FEATURES)
    buffer = io.BytesIO()
    np.save(buffer, index)
    write_whole(folder / INDEX, buffer.getbuffer())
    for left_over in folder.glob(".*.tmp"):  # of writes that were interrupted
        left_over.unlink()
    write_whole(folder / DESCRIPTION, as_text(plan.key, plan.widths, folder))
    remove_marker(folder)


def remove_marker(folder: pathlib.Path) -> None:
    """Removes from a finished cache that it is unfinished, which a process killed at the end of `finish` leaves."""
    (folder / UNFINISHED).unlink(missing_ok=True)


def _join_parts(folder: pathlib.Path, plan: Plan) -> None:
    """Appends the parts to `features.partial` and removes each once it is safe on the disk.

    What the file holds from the first remaining part on may be incomplete, and is written again.
    """
    header = _header(plan)
    first = _copied_parts(folder, plan, _parts_there(folder, plan))
    if first == plan.parts:
        return
    descriptor = os.open(folder / PARTIAL, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+b") as joined:
        joined.write(header)
        joined.truncate(len(header) + first * plan.rows_per_part * plan.row_bytes)
        joined.seek(0, os.SEEK_END)
        for part in range(first, plan.parts):
            with _part(folder, part).open("rb") as source:
                shutil.copyfileobj(source, joined, 2**20)
            sync(joined)
            _part(folder, part).unlink()


def _copied_parts(folder: pathlib.Path, plan: Plan, there: list[bool]) -> int:
    """How many parts are safe in `features.partial`: all before the first that has not been removed."""
    if not (folder / PARTIAL).exists():
        return 0
    first = there.index(True) if True in there else plan.parts
    end = len(_header(plan)) + min(first * plan.rows_per_part, plan.rows) * plan.row_bytes
    return first if (folder / PARTIAL).stat().st_size >= end else 0


def _header(plan: Plan) -> bytes:
    """The header of a NumPy file of the features."""
    buffer = io.BytesIO()
    shape = (plan.rows, *plan.row_shape)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": STORED[plan.key["dtype"]], "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def _part(folder: pathlib.Path, part: int) -> pathlib.Path:
    return folder / f"part-{part:05d}.bin"


def _parts_there(folder: pathlib.Path, plan: Plan) -> list[bool]:
    """Whether each part's file is complete. Lists the folder: a network file system may cache that a file is absent."""
    with os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    return [sizes.get(_part(folder, part).name) == plan.part_bytes(part) for part in range(plan.parts)]


def in_words(size: float) -> str:
    """Bytes as a person reads them: "12.3 MB"."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB"))
    return f"{size / unit:.1f} {name}"
