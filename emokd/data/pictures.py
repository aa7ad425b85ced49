"""Examples whose input is a picture file each."""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.decode import decode
from emokd.data.examples import Examples
from emokd.data.files import Files
from emokd.data.tables import Row
from emokd.errors import InputError, nearest


def picture_examples(
    name: str,
    files: Files,
    names: Sequence[str],
    columns: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    options: Mapping,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    face_crop: str = "",
) -> Examples:
    """Makes Examples of pictures; their keys are the file names. Nothing is decoded before it is asked for.

    Args:
      name: the data set's name.
      files: where the pictures are.
      names: the picture of each example, each one in `files.names`.
      columns: targets, as in Examples.
      classes: class names by column.
      options: `min_side` (0: full size): JPEGs may be decoded reduced, with both sides still at least this;
        set it to the canvas size for speed.
      splits: the prescribed split of each example.
      groups: the subject of each example, or what else it must not be parted from, such as its video.
      face_crop: how faces were cut out, as in Examples.
    """
    min_side = int(options.get("min_side", 0) or 0)

    def pixels(i: int, side: int) -> np.ndarray:
        return decode(files.read(names[i]), f"{files.where}/{names[i]}", side)

    def read(i: int) -> np.ndarray:
        return pixels(i, min_side)

    return Examples(
        name=name,
        keys=list(names),
        columns=columns,
        classes={column: tuple(values) for column, values in classes.items()},
        inputs={"image": read},
        content=files.contents(names),
        pixels=pixels,
        splits=None if splits is None else np.array(splits),
        groups=None if groups is None else np.array(groups),
        face_crop=face_crop,
    )


def find_pictures(files: Files, rows: Sequence[Row], column: str = "path") -> list[str]:
    """The file name of each row's picture.

    Raises:
      InputError: a picture is not there; the message names the first such row and counts the others.
    """
    found = [files.find(row.text(column)) for row in rows]
    missing = [row for row, name in zip(rows, found, strict=True) if name is None]
    if missing:
        others = f" ({len(missing) - 1} more rows name missing files)" if len(missing) > 1 else ""
        raise missing[0].error(
            f"{missing[0].text(column)!r} is not in {files.where}{others}",
            "Paths count from there; restore the file or remove the row.",
        )
    return [name for name in found if name is not None]


def report_unused(name: str, files: Files, used: Sequence[str]) -> None:
    """Logs how many of the files no example uses."""
    unused = len(files.names) - len(set(used))
    if unused:
        logging.info("%s: %d of the %d files in %s are not used.", name, unused, len(files.names), files.where)


def check_options(name: str, options: Mapping, known: Sequence[str]) -> None:
    """Checks that a source knows all its options (`min_side` is everyone's).

    Raises:
      InputError: it does not; the message names the nearest that it knows.
    """
    for key in options:
        if key not in known and key != "min_side":
            raise InputError(
                f"config.data.options: {name} has no option {key!r}.{nearest(key, known)} "
                f"It has: {', '.join(known) or 'none'}."
            )


def class_options(options: Mapping, default: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """The class list of `options.classes`, checked, or the default."""
    given = options.get("classes") or default
    if given is None:
        return None
    classes = tuple(given.split(",")) if isinstance(given, str) else tuple(str(name) for name in given)
    repeated = sorted({name for name in classes if classes.count(name) > 1})
    if repeated:
        raise InputError(f"config.data.options.classes names {repeated[0]!r} twice. Name each class once.")
    return classes
