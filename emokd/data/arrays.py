"""Examples whose inputs are rows of arrays in memory, and the files that hold such arrays."""

import collections
import hashlib
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emokd.data import npy
from emokd.data.examples import Examples, Rows
from emokd.data.tables.table import Row
from emokd.errors import InputError, excerpt, nearest
from emokd.names import normal

_SMALL = 1 << 28
_LARGEST_RATIO = 100
"""Highest compression ratio of an array of more than `_SMALL` bytes. Real data does not compress further."""
_UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, OverflowError, MemoryError),
    *(RuntimeError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError),  # RuntimeError: encrypted
)
_LARGEST = float(np.finfo(np.float32).max)


def array_examples(
    name: str,
    keys: Sequence[str],
    columns: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    arrays: Mapping[str, np.ndarray],
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Examples:
    """Makes Examples of arrays that are aligned with the keys, row by row. NaN stays NaN.

    Args:
      name: the data set's name.
      keys: the name of each example.
      columns: targets, as in Examples.
      classes: class names by column.
      arrays: float64 or float32 [N, ...] by the input's name, such as `features/eye`; batches hold them as float32.
      splits: the prescribed split of each example.
      groups: the subject of each example.
      names: the names of an array's columns, by the input's name.

    Raises:
      InputError: there is no example, or some have no value in any array.
    """
    empty = np.all([np.isnan(array).reshape(len(array), -1).all(1) for array in arrays.values()], axis=0)
    if empty.any():
        ids = [keys[i] for i in np.flatnonzero(empty).tolist()]
        raise InputError(f"{name}: {len(ids)} examples have no value in any table: {excerpt(ids)}. Leave them out.")

    def content(i: int) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for input_name in sorted(arrays):
            digest.update(np.ascontiguousarray(arrays[input_name][i]).tobytes())
        return digest.hexdigest()

    return Examples(
        name=name,
        keys=list(keys),
        columns=columns,
        classes={column: tuple(values) for column, values in classes.items()},
        inputs={
            input_name: Rows(array, names=tuple((names or {}).get(input_name, ())))
            for input_name, array in arrays.items()
        },
        content=content,
        splits=None if splits is None else np.array(splits),
        groups=None if groups is None else np.array(groups),
    )


def read_npz(path: str, wanted: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads the arrays `wanted` of an .npz file, and those of `optional` that it has; pickled objects are refused.

    Raises:
      InputError: the file is missing or damaged, or lacks an array; the nearest name is given.
    """
    try:
        if os.path.exists(path) and not (os.path.isfile(path) and zipfile.is_zipfile(path)):
            raise InputError(f"{path} is not an .npz file. Save it by numpy.savez.")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in wanted:
                if key not in archive:
                    raise InputError(
                        f"{path} has no array {key!r}.{nearest(key, archive.files)} It has: {excerpt(archive.files)}."
                    )
            keys = [key for key in (*wanted, *optional) if key in archive]
            for key in keys:
                _check_size(archive.zip, key, path)
            return {key: archive[key] for key in keys}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The file {path} does not exist. Put it there or name another one.") from None
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an .npz file: {error}. Save it again by numpy.savez.") from error


def _check_size(archive: zipfile.ZipFile, key: str, path: str) -> None:
    """Compares the size that an array's header claims with its archive member's, before the array is read.

    Raises:
      InputError: the array holds Python objects.
      ValueError: the sizes differ, or the member is compressed further than real data can be (nothing but zeros, say).
    """
    name = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
    member = archive.getinfo(name)
    with archive.open(member) as file:
        try:
            npy.header(file, member.file_size)
        except npy.PythonObjects as error:
            raise InputError(
                f"{path} cannot be read: its array {key!r} is of Python objects, which are never opened. "
                "Save numbers or texts, such as np.array(list(names), dtype=str)."
            ) from error
        except ValueError as error:
            raise ValueError(f"array {key!r}: {error}") from error
    if member.file_size > max(_SMALL, _LARGEST_RATIO * member.compress_size):
        raise ValueError(
            f"array {key!r} would take {member.file_size:,} bytes, {_LARGEST_RATIO} times or more what it takes here"
        )


def as_features(array: np.ndarray, where: str) -> Float[np.ndarray, "N ..."]:
    """Converts an array to float32 where that holds every value of its dtype, else to float64. NaN is allowed.

    Args:
      array: numbers, [N, ...].
      where: file and key, for messages.

    Raises:
      InputError: it holds something else than numbers, has no second axis, or holds values beyond float32's range.
    """
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where} is of type {array.dtype}, which is not numeric. Save numbers.")
    if array.ndim < 2 or not array.size:
        raise InputError(f"{where} has the shape {list(array.shape)}. Give one row per example: [examples, features].")
    values = array.astype(np.float32 if np.can_cast(array.dtype, np.float32) else np.float64)
    infinite = np.flatnonzero((np.abs(values) > _LARGEST).reshape(len(values), -1).any(1))
    if len(infinite):
        raise InputError(
            f"{where} has infinite values in {len(infinite)} rows (from 0: {excerpt(infinite)}). "
            "Correct them; what is missing is NaN."
        )
    return values


def read_numbers(rows: Sequence[Row], columns: Sequence[str]) -> Float[np.ndarray, "N D"]:
    """The numbers of these columns of a table in float64; cells without a value (`table.is_missing`) become NaN.

    Raises:
      InputError: a cell is anything else; the message names the line.
    """
    return np.array([[_number(row, column) for column in columns] for row in rows], np.float64)


def read_names(path: str, names: np.ndarray) -> list[str]:
    """Reads examples' names from an array of texts or whole numbers [N], in `names.normal` form; 3.0 becomes "3".

    Raises:
      InputError: the array has another shape, an entry is not a name, or a name is repeated.
    """
    if names.ndim != 1:
        raise InputError(f"{path}: the names of the examples have the shape {list(names.shape)}. Give a list of texts.")
    if names.dtype.kind == "f" and np.isfinite(names).all() and (names == np.round(names)).all():
        names = names.astype(np.int64)
    try:
        texts = [normal(each.decode() if isinstance(each, bytes) else str(each)) for each in names.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a name of an example is not UTF-8 text. Save the names as texts.") from error
    twice = [name for name, count in collections.Counter(texts).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: {len(twice)} names are there more than once: {excerpt(twice)}. Keep one row of each."
        )
    return texts


def check_rows(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that the arrays of a file have equally many rows.

    Raises:
      InputError: the numbers of rows differ.
    """
    rows = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{key} {count}" for key, count in rows.items())
        raise InputError(
            f"{os.fspath(path)}: the arrays have different numbers of rows: {counts}. Save the file again."
        )


def _number(row: Row, column: str) -> float:
    if row.missing(column):
        return np.nan
    return row.number(column, -_LARGEST, _LARGEST)
