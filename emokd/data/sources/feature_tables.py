"""Tables of features, one for each modality, and a table of labels that names the examples."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.arrays import array_examples, as_features, check_rows, read_names, read_npz, read_numbers
from emokd.data.examples import Examples
from emokd.data.pictures import check_options, class_options
from emokd.data.tables.table import id_column, read_table, unique
from emokd.data.tables.targets import read_groups, read_splits, read_targets
from emokd.errors import InputError, excerpt
from emokd.names import essence, number_essence

LABELS = "labels.csv"
ID = "id"
RAW_INPUTS = ("physiology", "audio")
_NO_FEATURES = ("label", "valence", "arousal", "split", "subject", "group")
"""Columns of `labels.csv`; among the features they would give the target away."""


def load(directory: str, options: Mapping) -> Examples:
    """Loads feature tables that are aligned by the examples' ids, in any order of their rows.

    The convention:
    - `labels.csv` has a column `id` and one or both of: `label` (a class name); `valence` and `arousal` in [-1, 1].
      Optional: `split` (train, validation or test) and `subject` (or `group`). Each of its rows is an example. An
      empty cell of a target is an example without it (see `targets`).
    - A table is a CSV file, whose column `id` (else the first one) is the example's id and whose others are numbers,
      or an array of an .npz file, written `file.npz:key`, whose rows are named by the file's array `id`. No feature
      is called `label`, `valence`, `arousal`, `split`, `subject` or `group`.
    - What is missing is NaN (in a CSV also an empty cell). An example that lacks a whole modality has a row of NaN.
      A trace (`physiology`) is either complete or missing as a whole.

    Args:
      directory: holds the tables.
      options: `tables`: modality -> file. `physiology` ([N, T, C]) and `audio` give the inputs of these names; any
        other name NAME gives `features/NAME`. `labels` (default `labels.csv`); `classes` (a list in the order of the
        ids; default: the labels in sorted order).

    Raises:
      InputError: a file, array or column is missing, a cell is wrong, an id is repeated, a trace is flat or has
        gaps, or the ids of a table are not those of the labels; the message names the file and the line, or the first
        ten ids.
    """
    check_options("feature_tables", options, ("tables", "labels", "classes"))
    path = os.path.join(directory, options.get("labels") or LABELS)
    rows = read_table(path, required=(ID,))
    unique(rows, ID)
    ids = [row.text(ID) for row in rows]
    wanted = bool(options.get("classes"))
    columns, classes = read_targets("feature_tables", rows, class_options(options), votes=False, wanted=wanted)
    arrays, names = {}, {}
    for modality, place in _tables(options):
        name = modality if modality in RAW_INPUTS else f"features/{modality}"
        arrays[name], names[name] = _read_aligned(os.path.join(directory, place), path, ids)
        if name == "physiology" and arrays[name].ndim != 3:
            raise InputError(
                f"{place}: physiology has the shape {list(arrays[name].shape)}, not [examples, samples, channels]. "
                "Reshape it, or give what is no trace another name."
            )
        if name == "physiology":
            samples, channels = arrays[name].shape[1:]
            if channels > samples:
                logging.warning(
                    "%s: physiology has %d channels of %d samples each: are the two axes swapped? It is [examples, "
                    "samples, channels].",
                    *(place, channels, samples),
                )
            _check_traces(place, ids, arrays[name])
    return array_examples(
        "feature_tables",
        ids,
        columns,
        classes,
        arrays,
        splits=read_splits(rows),
        groups=read_groups("feature_tables", rows, "subject"),
        names=names,
    )


def _check_traces(place: str, ids: Sequence[str], traces: np.ndarray) -> None:
    """Checks that no trace has gaps or is flat; a trace that is NaN throughout counts as missing."""
    gaps = np.isnan(traces)
    torn = gaps.any((1, 2)) & ~gaps.all((1, 2))
    flat = (np.ptp(np.where(gaps, 0.0, traces), axis=1) == 0).any(1) & ~gaps.any((1, 2))
    for bad, what in ((torn, "missing samples"), (flat, "a flat channel")):
        if bad.any():
            names = [ids[i] for i in np.flatnonzero(bad).tolist()]
            raise InputError(
                f"{place}: the traces of {len(names)} examples have {what}: {excerpt(names)}. Restore them, or make "
                "them NaN throughout: these examples then lack the modality."
            )


def _tables(options: Mapping) -> list[tuple[str, str]]:
    tables = options.get("tables")
    if not tables or not hasattr(tables, "items"):
        raise InputError(
            "config.data.options.tables names no table. Give a modality and its file, "
            "such as {'eye': 'eye.csv', 'physiology': 'traces.npz:emg'}."
        )
    for modality in tables:
        if modality in ("image", "video") or "/" in modality:
            raise InputError(
                f"config.data.options.tables: {modality!r} cannot name a table of features. Use physiology, audio, or "
                "a name of your own without a slash; 'eye' becomes the input 'features/eye'."
            )
    return [(modality, str(place)) for modality, place in tables.items()]


def _read_aligned(place: str, labels: str, ids: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The table's rows in the order of `ids`, and the names of its columns where it has any."""
    row_of, values, columns = _read_csv(place) if ":" not in os.path.basename(place) else _read_array(place)
    lacking = [name for name in ids if name not in row_of]
    if lacking:
        alike = {number_essence(name): name for name in row_of}
        written = next(
            (f" {alike[e]!r} is there: is it {n!r}?" for n in lacking if (e := number_essence(n)) in alike), ""
        )
        raise InputError(
            f"{place} lacks {len(lacking)} of the ids in {labels}: {excerpt(lacking)}.{written} Add their rows, or "
            "write ids alike; an example that lacks the modality has a row of NaN."
        )
    if len(row_of) > len(ids):
        wanted = set(ids)
        more = [name for name in row_of if name not in wanted]
        raise InputError(
            f"{labels} lacks {len(more)} of the ids in {place}: {excerpt(more)}. Label them or remove their rows."
        )
    return values[[row_of[name] for name in ids]], columns


def _read_csv(path: str) -> tuple[dict[str, int], np.ndarray, list[str]]:
    rows = read_table(path)
    key = id_column(rows)
    columns = [name for name in rows[0].cells if name != key]
    if not columns:
        raise InputError(f"{path}, line 1: there is no column besides the ids ({key!r}). Add the features.")
    targets = [name for name in columns if essence(name) in _NO_FEATURES]
    if targets:
        raise InputError(
            f"{path}, line 1: the column {targets[0]!r} would be a feature, but has the name of one of the labels' "
            "columns. Remove it, so that no target is among the features; if it is none, give it another name."
        )
    unique(rows, key)
    return {row.text(key): i for i, row in enumerate(rows)}, read_numbers(rows, columns), columns


def _read_array(place: str) -> tuple[dict[str, int], np.ndarray, list[str]]:
    path, key = place.rsplit(":", 1)
    arrays = read_npz(path, (ID, key))
    check_rows(path, arrays)
    row_of = {name: i for i, name in enumerate(read_names(path, arrays[ID]))}
    return row_of, as_features(arrays[key], place), []
