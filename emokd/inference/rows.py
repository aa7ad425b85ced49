"""Reads a file of examples for a multimodal model."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from emokd.data.arrays import check_rows, read_names, read_npz, read_numbers
from emokd.data.tables.table import id_column, read_table, unique
from emokd.errors import InputError, excerpt
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
    - A CSV file has the ids in its first column. A column `eye/x` belongs to the modality `eye`, whose columns are in
      the same order as in training. For a model with one modality, columns without a slash belong to it.

    Missing values are NaN, in a CSV also empty cells. Privileged modalities are ignored.

    Raises:
      InputError: the file cannot be read, has a modality or column that the model does not have, or a cell that is
        no number; or a modality is not a row of numbers, so that no table can hold it.
    """
    text = os.fspath(path)
    if text.lower().endswith(".npz"):
        return _read_npz(text)
    if text.lower().endswith(".csv"):
        return _read_csv(text, modalities)
    raise InputError(f"{text} is neither an .npz nor a .csv file by its name. Save the rows as one of them.")


def _read_npz(path: str) -> Rows:
    ids = read_npz(path, (ID,))[ID]
    with np.load(path, allow_pickle=False) as archive:
        names = [name for name in archive.files if name != ID]
    arrays = read_npz(path, names)
    check_rows(path, {ID: ids, **arrays})
    return Rows(read_names(path, ids), arrays)


def _read_csv(path: str, modalities: Modalities) -> Rows:
    rows = read_table(path)
    key = id_column(rows)
    columns = [name for name in rows[0].cells if name != key]
    unique(rows, key)
    only = next(iter(modalities.inputs)) if len(modalities.inputs) == 1 else None
    named: dict[str, list[str]] = {}
    for column in columns:
        name, slash, _ = column.rpartition("/")
        if not slash and only is None:
            raise InputError(
                f"{path}, line 1: the column {column!r} does not say of which modality it is. Write MODALITY/{column}; "
                f"the model takes {modalities.describe()}."
            )
        named.setdefault(name if slash else str(only), []).append(column)
    wanted = modalities.resolve(list(named))
    arrays = {}
    for given, name in wanted.items():
        _check_width(path, name, modalities.inputs[name], named[given])
        arrays[name] = read_numbers(rows, named[given])
    return Rows([row.text(key) for row in rows], arrays)


def _check_width(path: str, name: str, wanted: Input, columns: Sequence[str]) -> None:
    if wanted.kind != "array" or len(wanted.shape) != 1:
        raise InputError(f"{path}: {name} is no row of numbers, so a CSV cannot hold it. Give an .npz file.")
    if len(columns) != wanted.shape[0]:
        raise InputError(
            f"{path}, line 1: {name} has {wanted.shape[0]} numbers, but there are {len(columns)} columns of it: "
            f"{excerpt(columns)}. Give those of its training, in their order."
        )
