"""Reads headers of .npy files, and compares the size they claim with the file's before anything is allocated."""

import math
import struct
import tokenize
from typing import IO

import numpy as np

MAX_HEADER = 1 << 16


class PythonObjects(ValueError):
    """The array's entries are pickled objects."""


def header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a .npy file.

    Args:
      file: at its beginning; afterwards at the first byte of the numbers.
      size: bytes of the whole file.

    Raises:
      PythonObjects: its entries are pickled objects.
      ValueError: it is no .npy file, or is smaller or larger than its header claims.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        start = file.tell()
        length = struct.unpack("<H" if version == (1, 0) else "<I", file.read(2 if version == (1, 0) else 4))[0]
        if length > MAX_HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        file.seek(start)
        shape, _, dtype = read(file, max_header_size=MAX_HEADER)
    except (KeyError, SyntaxError, TypeError, RecursionError, MemoryError, struct.error, tokenize.TokenError) as error:
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from error
    if dtype.hasobject:
        raise PythonObjects("it holds pickled Python objects")
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"its shape is {shape}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there:
        raise ValueError(f"its header claims {claimed:,} bytes of numbers, but {there:,} are there")
    return tuple(shape), dtype
