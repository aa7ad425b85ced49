"""Reads tables whose cells hold pictures: `fer2013.csv`, with 48 x 48 grey pixels in each row."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from emokd.data.examples import Examples
from emokd.data.tables.table import Row, iterate_table
from emokd.errors import InputError

TABLES = ("fer2013.csv", "icml_face_data.csv")
"""The table as it was released, and Kaggle's other copy of it, with spaces in its header."""

PIXELS = "pixels"
SIDE = 48

_LEVELS = {str(value): value for value in range(256)}


@dataclasses.dataclass(frozen=True, eq=False)
class GreyPictures:
    """Reads grey pictures in memory as RGB ones.

    Attributes:
      pixels: [N, H, W].
    """

    pixels: UInt8[np.ndarray, "N H W"]

    def __call__(self, i: int) -> UInt8[np.ndarray, "H W 3"]:
        """Picture i."""
        return np.repeat(self.pixels[i][..., None], 3, axis=-1)

    def content(self, i: int) -> str:
        """A digest of picture i."""
        return hashlib.blake2b(self.pixels[i].tobytes(), digest_size=16).hexdigest()


def find_pixel_table(directory: str, name: str = "") -> str | None:
    """The table of pixels in a directory, or `directory` itself where it is a table; None where there is none."""
    if os.path.isfile(directory):
        return directory
    for table in (name,) if name else TABLES:
        if os.path.isfile(os.path.join(directory, table)):
            return os.path.join(directory, table)
    return None


def read_pixel_table(path: str, required: Sequence[str]) -> tuple[list[Row], UInt8[np.ndarray, "N 48 48"]]:
    """Reads a table's rows without their pixels, and the pixels, which take 2,304 bytes of memory for each row.

    Raises:
      InputError: as `table.iterate_table`; or a row has not 48 x 48 whole numbers from 0 to 255: the message names the
        line.
    """
    rows, pixels = [], bytearray()
    for row in iterate_table(path, (*required, PIXELS)):
        pixels += _levels(row)
        rows.append(Row(row.table, row.line, {name: cell for name, cell in row.cells.items() if name != PIXELS}))
    return rows, np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)


def pixel_examples(
    name: str,
    keys: Sequence[str],
    pixels: UInt8[np.ndarray, "N H W"],
    columns: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    splits: Sequence[str] | None,
) -> Examples:
    """Makes Examples of cut-out grey faces in memory; see Examples for the arguments."""
    pictures = GreyPictures(pixels)
    return Examples(
        name=name,
        keys=list(keys),
        columns=columns,
        classes={column: tuple(values) for column, values in classes.items()},
        inputs={"image": pictures},
        content=functools.partial(GreyPictures.content, pictures),
        pixels=lambda i, side: pictures(i),  # in memory at full size, which any least side allows
        splits=None if splits is None else np.array(splits),
        face_crop="box",
    )


def _levels(row: Row) -> bytes:
    cells = row.cells[PIXELS].split()
    if len(cells) != SIDE * SIDE:
        raise row.error(
            f"column {PIXELS!r} holds {len(cells)} numbers, not {SIDE} x {SIDE} = {SIDE * SIDE}",
            "Download the table again: a line may be cut off.",
        )
    try:
        return bytes(map(_LEVELS.__getitem__, cells))
    except KeyError as error:
        raise row.error(
            f"column {PIXELS!r} holds {error.args[0]!r}, no whole number from 0 to 255", "Download the table again."
        ) from None


def no_pixel_table(directory: str) -> InputError:
    """The error for a directory without such a table."""
    packed = [name for name in ("fer2013.tar.gz", "fer2013.zip", "archive.zip") if _is_file(directory, name)]
    remedy = (
        f"Unpack {packed[0]} there." if packed else f"Put {TABLES[0]} there, or name it in config.data.options.table."
    )
    return InputError(f"{directory} has no table {' or '.join(TABLES)}. {remedy}")


def _is_file(directory: str, name: str) -> bool:
    return os.path.isfile(os.path.join(directory, name))
