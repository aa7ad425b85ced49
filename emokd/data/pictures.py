"""Makes Examples whose input is one picture file each."""

import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.decode import DecodeError, decode
from emokd.data.examples import Examples
from emokd.data.files.listing import by_suffix
from emokd.data.files.store import FileError, Files
from emokd.data.tables.class_list import as_classes
from emokd.data.tables.table import Row
from emokd.errors import InputError, excerpt, nearest
from emokd.names import essence, normal_path, undecodable


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
    """Makes Examples of pictures; their keys are the file names. Pictures are decoded when they are read.

    Keys are in Unicode's form C, so that a copy of a set from a Mac falls into the same splits; files are opened by
    their names as they are. [ours]

    Args:
      name: the data set's name.
      files: where the pictures are.
      names: the picture of each example, each one in `files.names`.
      columns: targets, as in Examples.
      classes: class names by column.
      options: `min_side` (0: full size): JPEGs may be decoded reduced, with both sides still at least this;
        set it to the canvas size for speed.
      splits: the prescribed split of each example.
      groups: the subject (or video, say) of each example; a group's examples are kept in one split.
      face_crop: how faces were cut out, as in Examples.

    Raises:
      InputError: a file is listed twice, or a name is not valid text.
    """
    if broken := undecodable(names):
        raise InputError(
            f"{name}: the names of {len(broken)} files in {files.where} are not UTF-8: "
            f"{excerpt(map(ascii, broken), 3)}. They were unpacked or copied in an older encoding; rename them "
            "(convmv -f latin1 -t utf8 -r --notest), or unpack the archive again."
        )
    if twice := sorted({file for file, count in Counter(names).items() if count > 1}):
        raise InputError(f"{name}: {len(twice)} pictures are listed twice: {excerpt(twice, 3)}. List each once.")
    min_side = int(options.get("min_side", 0) or 0)

    def pixels(i: int, side: int) -> np.ndarray:
        try:
            data = files.read(names[i])
        except FileError as error:  # counts like a picture that cannot be decoded
            raise DecodeError(str(error)) from error
        return decode(data, f"{files.where}/{names[i]}", side)

    def read(i: int) -> np.ndarray:
        return pixels(i, min_side)

    return Examples(
        name=name,
        keys=_keys(names),
        columns=columns,
        classes={column: tuple(values) for column, values in classes.items()},
        inputs={"image": read},
        content=files.contents(names),
        pixels=pixels,
        checksum=lambda i: files.checksum(names[i]),
        splits=None if splits is None else np.array(splits),
        groups=None if groups is None else np.array(groups),
        face_crop=face_crop,
    )


def find_pictures(files: Files, rows: Sequence[Row], column: str = "path") -> list[str]:
    """The file name of each row's picture.

    Raises:
      InputError: a picture is missing; the message names the first such row and counts the others. Or two rows name
        the same file, in one spelling or two.
    """
    for row in rows:
        row.text(column)  # refuses an empty cell
    names = [files.find(row.cells[column]) for row in rows]
    missing = [row for row, name in zip(rows, names, strict=True) if name is None]
    if missing:
        others = f" ({len(missing) - 1} more rows name missing files)" if len(missing) > 1 else ""
        path = missing[0].text(column)
        wanted = {essence(normal_path(path)), essence(normal_path(urllib.parse.unquote(path)))}
        alike = [name for name in files.names if essence(name) in wanted]
        remedy = (
            f"There is {alike[0]!r}: write its letters, signs and spaces as they are."
            if alike
            else ("Paths count from there; restore the file or remove the row.")
        )
        raise missing[0].error(f"{path!r} is not in {files.where}{others}", remedy)
    first: dict[str, Row] = {}
    for row, name in zip(rows, names, strict=True):
        if name in first:
            raise row.error(
                f"{row.text(column)!r} is also on line {first[name].line}, as {first[name].text(column)!r}",
                "Keep one of the two rows.",
            )
        first[str(name)] = row
    return [name for name in names if name is not None]


def report_unused(name: str, files: Files, used: Sequence[str]) -> None:
    """Logs how many of the files no example uses."""
    unused = set(files.names).difference(used)
    if unused:
        logging.info(
            "%s: %d of the %d files in %s are not used: %s.",
            *(name, len(unused), len(files.names), files.where, by_suffix(unused)),
        )


def check_options(name: str, options: Mapping, allowed: Sequence[str]) -> None:
    """Checks that a source knows all options that it is given. Every source takes `min_side`.

    Raises:
      InputError: an option is unknown; the message names the nearest known one.
    """
    for key in options:
        if key not in allowed and key != "min_side":
            raise InputError(
                f"config.data.options: {name} has no option {key!r}.{nearest(key, allowed)} "
                f"It has: {', '.join(allowed) or 'none'}."
            )


def class_options(options: Mapping, default: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """The class list of `options.classes`, checked, or the default."""
    classes = options.get("classes") or default
    if classes is None:
        return None
    return as_classes(classes, "config.data.options.classes")


def _keys(names: Sequence[str]) -> list[str]:
    """The files' names in Unicode's form C, except names that would then be equal."""
    keys = [normal_path(name) for name in names]
    count = Counter(keys)
    return [key if count[key] == 1 else name for key, name in zip(keys, names, strict=True)]
