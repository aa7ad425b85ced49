"""Reads a file of examples for a multimodal model."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.arrays import check_rows, read_names, read_npz, read_numbers
from emokd.data.tables.table import id_column, read_table, unique
from emokd.errors import InputError, excerpt, nearest
from emokd.inference.modalities import Modalities
from emokd.inference.signature import Input

ID = "id"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The examples of a file.

    Attributes:
      ids: the name of each example.
      arrays: by modality, as `Modalities.take` takes them.
    """

    ids: Sequence[str]
    arrays: Mapping[str, np.ndarray]


def read_rows(path: str | os.PathLike, modalities: Modalities) -> Rows:
    """Reads a file of examples.

    - An .npz file has an array for each modality, under its name ("eye") or its input's ("features/eye"), and an array
      `id` that names the rows.
    - A CSV file has the ids in its column `id`, else in its first. A column `eye/x` belongs to the modality `eye`. For
      a model with one modality, columns without a slash belong to it. Columns are those of the training by their names,
      in any order; where the model does not know the names, in the training's order, which a warning says.

    Missing values are NaN, in a CSV also empty cells. Privileged modalities are ignored.

    Raises:
      InputError: the file cannot be read, has a modality or column that the model does not have, or a cell that is
        no number; or a modality is not a row of numbers, so that no table can hold it.
    """
    text = os.fspath(path)
    if text.lower().endswith(".npz"):
        return _read_npz(text, modalities)
    if text.lower().endswith(".csv"):
        return _read_csv(text, modalities)
    raise InputError(f"{text} is neither an .npz nor a .csv file by its name. Save the rows as one of them.")


def _read_npz(path: str, modalities: Modalities) -> Rows:
    ids = read_npz(path, (ID,))[ID]
    with np.load(path, allow_pickle=False) as archive:
        names = [name for name in archive.files if name != ID]
    arrays = read_npz(path, names)
    check_rows(path, {ID: ids, **arrays})
    for given, name in modalities.resolve(names).items():
        wanted, shape = modalities.inputs[name], list(arrays[given].shape)
        if wanted.kind != "picture" and len(shape) == len(wanted.shape):  # would be read as one example
            raise InputError(
                f"{path}: the array {given!r} has the shape {shape}, that of one example. Give one row for each id: "
                f"{[len(ids), *wanted.shape]}."
            )
    return Rows(read_names(path, ids), arrays)


def _read_csv(path: str, modalities: Modalities) -> Rows:
    rows = read_table(path)
    key = id_column(rows)
    columns = [name for name in rows[0].cells if name != key]
    unique(rows, key)
    only = next(iter(modalities.inputs)) if len(modalities.inputs) == 1 else None
    known = [prefix for name, seen in modalities.inputs.items() for prefix in (name, seen.reads)]
    named: dict[str, dict[str, str]] = {}  # a modality's name -> names of columns, without it -> columns
    for column in columns:
        # A column may have a slash of its own, so that known names come first.
        given = next((name for name in known if column.startswith(f"{name}/")), column.rpartition("/")[0])
        if only is not None and column in modalities.inputs[only].columns:
            given = ""
        if not given and only is None:
            raise InputError(
                f"{path}, line 1: the column {column!r} does not say of which modality it is. Write MODALITY/{column}; "
                f"the model takes {modalities.describe()}."
            )
        bare = column.removeprefix(f"{given}/")
        place = named.setdefault(given or str(only), {})
        if bare in place:
            raise InputError(f"{path}, line 1: {place[bare]!r} and {column!r} are the same column. Remove one of them.")
        place[bare] = column
    wanted = modalities.resolve(list(named))
    arrays = {
        name: read_numbers(rows, _in_order(path, name, modalities.inputs[name], named[given]))
        for given, name in wanted.items()
    }
    return Rows([row.text(key) for row in rows], arrays)


def _in_order(path: str, name: str, wanted: Input, column_of: Mapping[str, str]) -> list[str]:
    """The columns of one modality in the order of its training."""
    if wanted.kind != "array" or len(wanted.shape) != 1:
        raise InputError(f"{path}: {name} is no row of numbers, so a CSV cannot hold it. Give an .npz file.")
    columns = list(column_of.values())
    if len(columns) != wanted.shape[0]:
        lacking = [column for column in wanted.columns if column not in column_of]
        foreign = [column for column in column_of if wanted.columns and column not in wanted.columns]
        remarks = [f"lacks {excerpt(lacking)}"] * bool(lacking) + [f"has {excerpt(foreign)} besides"] * bool(foreign)
        raise InputError(
            f"{path}, line 1: {name} has {wanted.shape[0]} numbers, but there are {len(columns)} columns of it: "
            f"{excerpt(columns)}. Give those of its training, "
            + (f"of which it {' and '.join(remarks)}." if remarks else "in their order.")
        )
    if not wanted.columns:
        logging.warning(
            "%s: the model does not know the names of the columns of %s, so they are taken in the file's order, which "
            "must be the training's: %s.",
            *(path, name, excerpt(columns)),
        )
        return columns
    lacking = [column for column in wanted.columns if column not in column_of]
    if lacking:
        other = next(column for column in column_of if column not in wanted.columns)
        raise InputError(
            f"{path}, line 1: {name} had no column {other!r} in training.{nearest(other, lacking)} The file lacks "
            f"{excerpt(lacking)}. Give the columns of the training, in any order."
        )
    return [column_of[column] for column in wanted.columns]
