"""FER+: FER2013 faces with ten votes each, in the official layout (`fer2013new.csv`, `FER2013Train/...`)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from emokd.data.described import constant, described
from emokd.data.examples import Examples
from emokd.data.files.store import open_files
from emokd.data.pictures import check_options, picture_examples
from emokd.data.tables.classes import AFFECTNET, FERPLUS
from emokd.data.tables.consistency import report_losses
from emokd.data.tables.pixel_table import TABLES as PIXEL_TABLES
from emokd.data.tables.pixel_table import find_pixel_table, pixel_examples, read_pixel_table
from emokd.data.tables.table import Row, read_table
from emokd.data.tables.targets import MOST_VOTES
from emokd.errors import InputError, excerpt, nearest
from emokd.labels import UNLABELLED

TABLE = "fer2013new.csv"
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
PROTOCOLS = ("majority", "cross_entropy")
ORDERS = {"ferplus": FERPLUS, "affectnet": AFFECTNET}

_VOTE_COLUMNS = (*FERPLUS, "unknown", "NF")
_TO_AFFECTNET = [
    FERPLUS.index(name)
    for name in ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
]


def load(directory: str, options: Mapping) -> Examples:
    """Loads FER+ by one of its protocols (Barsoum et al. 2016, and their published reader of the votes).

    Votes of 1 are taken for noise and set to 0, "unknown" and "NF" (no face) included. Then
    - `majority`: the label with more than half of the remaining votes, column `expression`;
    - `cross_entropy`: a distribution, column `votes`: labels are taken by falling votes, ties together, until
      three quarters of the votes are covered or three labels are taken, or "unknown"/"NF" comes up; the example
      stays when the labels cover more than half of the votes. The paper's `probability`, which draws one label from
      it at every visit and has the same gradient on average, is not here.
    The protocol applies to training. Validation and test labels are always by majority, as in the authors' code; under
    `cross_entropy` they are rows of `votes` with a single 1. Examples that have no label by these rules, or whose top
    label is "unknown" or "NF", are left out and counted in the log.

    Rows without a file name (no face) are skipped. A name listed twice keeps its first row, and the log says so:
    three rows of the official table repeat another with the same votes, and `fer0033120.png` comes a second time
    with 10 votes for NF, out of the order of the names. [ours]

    Without the folders the faces are read from `fer2013.csv` (or Kaggle's `icml_face_data.csv`), whose rows match those
    of the table of votes. Names, and therefore divisions by them, are the same.

    Args:
      directory: holds the table, and the three folders, `images.zip` or `fer2013.csv`.
      options: `protocol` (default `majority`), `order`: `ferplus` (neutral, happiness, surprise, sadness, anger,
        disgust, fear, contempt; the default) or `affectnet` (neutral, happy, sad, surprise, fear, disgust, anger,
        contempt); `min_side` (see `picture_examples`).

    Raises:
      InputError: the table or a picture is missing, a row is wrong, or an unknown option value.
    """
    check_options("ferplus", options, ("protocol", "order"))
    protocol = _choice("protocol", options.get("protocol") or "majority", PROTOCOLS)
    order = _choice("order", options.get("order") or "ferplus", ORDERS)
    table = os.path.join(directory, TABLE)
    listed = read_table(table, required=("Usage", "Image name", *_VOTE_COLUMNS))
    rows = _first_of_each([row for row in listed if row.cells["Image name"].strip()])
    files = open_files(directory)
    picture_names = {
        name for name in files.names if name.startswith(tuple(f"{folder}/" for folder in FOLDERS.values()))
    }
    pixel_table = None if picture_names else find_pixel_table(directory)
    names, targets, splits, lines, unlabelled, best = [], [], [], [], 0, []
    for row in rows:
        usage = row.text("Usage")
        if usage not in FOLDERS:
            raise row.error(f"there is no usage {usage!r}", f"Use one of {', '.join(FOLDERS)}.")
        name = f"{FOLDERS[usage]}/{row.text('Image name')}"
        if name not in picture_names and not pixel_table:
            raise row.error(
                f"{name} is not in {files.where}",
                f"Unpack all three folders there, or put {' or '.join(PIXEL_TABLES)} beside {TABLE}.",
            )
        votes = np.array([row.number(column, low=0, high=MOST_VOTES) for column in _VOTE_COLUMNS])
        best.append(int(votes[:8].argmax()) if votes[:8].any() else UNLABELLED)
        target = distribution(votes, protocol if usage == "Training" else "majority")
        if target is None:
            unlabelled += 1
            continue
        names.append(name)
        targets.append(target)
        splits.append(usage)
        lines.append(row.line)
    logging.info(
        "ferplus: %d of %d faces have no label by the protocol %r and are left out.", unlabelled, len(rows), protocol
    )
    if not names:
        raise InputError(f"{table}: no face has a label by the protocol {protocol!r}. Check the vote columns.")
    distributions = np.array(targets, np.float32)
    report_losses("ferplus", np.array(best), distributions.argmax(axis=1), FERPLUS, f"no label by {protocol!r}")
    if order == "affectnet":
        distributions = distributions[:, _TO_AFFECTNET]
    if protocol == "majority":
        columns = {"expression": distributions.argmax(axis=1).astype(np.int32)}
    else:
        columns = {"votes": distributions}
    classes = {"expression": ORDERS[order]}
    if pixel_table:
        pixels = _aligned_pixels(pixel_table, listed, lines)
        return pixel_examples("ferplus", names, pixels, columns, classes, splits)
    return picture_examples("ferplus", files, names, columns, classes, options, splits=splits, face_crop="box")


def describe(options: Mapping, rows: int) -> Examples:
    """Made-up examples like those of `load`: each has one label, also as a distribution, and a black picture."""
    check_options("ferplus", options, ("protocol", "order"))
    protocol = _choice("protocol", options.get("protocol") or "majority", PROTOCOLS)
    classes = ORDERS[_choice("order", options.get("order") or "ferplus", ORDERS)]
    made = described("ferplus", rows, {"expression": classes}, {"image": constant((1, 1, 3), np.uint8)})
    if protocol == "majority":
        return made
    return dataclasses.replace(made, columns={"votes": np.eye(8, dtype=np.float32)[made.columns["expression"]]})


def _aligned_pixels(path: str, listed: Sequence[Row], lines: Sequence[int]) -> UInt8[np.ndarray, "N 48 48"]:
    """The faces for the rows on these lines of the table of votes, from a table of pixels with the same rows."""
    rows, pixels = read_pixel_table(path, ("Usage",))
    if len(rows) != len(listed):
        raise InputError(
            f"{path} has {len(rows)} rows, but {listed[0].table} has {len(listed)}. They belong together row by row; "
            "download both again."
        )
    for row, other in zip(rows, listed, strict=True):
        if row.text("Usage") != other.text("Usage"):
            raise row.error(
                f"the usage is {row.text('Usage')!r}, but {other.text('Usage')!r} in {other.table}, line {other.line}",
                "The tables belong together row by row; download both again.",
            )
    place = {row.line: i for i, row in enumerate(listed)}
    return pixels[[place[line] for line in lines]]


def distribution(votes: Float[np.ndarray, "10"], protocol: str) -> Float[np.ndarray, "8"] | None:
    """The target of one face from its ten votes (eight labels, unknown, NF), or None where it has none.

    See `load` for the protocols; `majority` gives a row with a single 1.
    """
    votes = np.where(votes <= 1, 0.0, votes)
    total = votes.sum()
    chosen = np.zeros(10)
    if protocol == "majority":
        if votes.max() > total / 2:
            chosen[votes.argmax()] = 1.0
    else:
        chosen = _most_voted(votes)
        if chosen.sum() <= total / 2 or np.count_nonzero(chosen) > 3:
            return None
    if not chosen.any() or chosen.argmax() >= 8:
        return None
    return chosen[:8] / chosen[:8].sum()


def _most_voted(votes: np.ndarray) -> np.ndarray:
    """The votes of the labels that count, zero for the others; see `load`."""
    chosen = np.zeros(10)
    covered, taken, total = 0.0, 0, votes.sum()
    for level in sorted({vote for vote in votes if vote > 0}, reverse=True):
        if covered >= 0.75 * total or taken >= 3:
            break
        for i in np.flatnonzero(votes == level):
            if i >= 8:
                # "Unknown" or "no face" ends the list. It is taken itself only if it comes first.
                if not taken:
                    chosen[i] = level
                return chosen
            chosen[i] = level
            covered += level
            taken += 1
    return chosen


def _first_of_each(rows: Sequence[Row]) -> list[Row]:
    first: dict[str, Row] = {}
    dropped = []
    for row in rows:
        name = row.cells["Image name"].strip()
        if name in first:
            dropped.append(f"{name} (line {row.line}, first on line {first[name].line})")
        else:
            first[name] = row
    if dropped:
        logging.warning(
            "%s lists %d names again; their first rows count: %s.", rows[0].table, len(dropped), excerpt(dropped)
        )
    return list(first.values())


def _choice(key: str, value: str, allowed) -> str:
    if value not in allowed:
        raise InputError(
            f"config.data.options.{key} is {value!r}.{nearest(str(value), allowed)} Choose one of {', '.join(allowed)}."
        )
    return value
