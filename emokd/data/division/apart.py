"""Leaves out of a training set the examples that are copies of scored ones."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from emokd.data.division.duplicates import Duplicates, find_duplicates
from emokd.data.examples import Examples, Rows
from emokd.errors import InputError, excerpt


def leave_out_copies(
    examples: Examples, held: Sequence[Examples], what: str, whose: str, same_set: bool = False, compare: bool = True
) -> Examples:
    """The examples without those that are in `held`, or are copies or near copies of one there. Logs their number.

    Args:
      examples: the examples to train on.
      held: the examples not to train on, such as the validation and the test split.
      what: what `examples` are, for messages: "config.data.extra".
      whose: what `held` is, for messages: "the validation or test split".
      same_set: both are of one data set, so that equal keys mean the same example.
      compare: compare pixels or rows too, see `emokd.data.division.likeness`; False: of two sets, bytes alone.

    Returns:
      The remaining examples; the same object where none is left out. A set of near copies of more than four examples
      and more than a twentieth of all is taken for chance likeness: its examples stay, and the log says so.

    Raises:
      InputError: nothing would be left.
    """
    n, total = len(examples), sum(map(len, held))
    if not total:
        return examples
    keys = {key for part in held for key in part.keys} if same_set else set()
    equal = {i for i, key in enumerate(examples.keys) if key in keys}
    near: set[int] = set()
    joined = _joined([examples, *held]) if compare else None
    if joined is not None:
        duplicates = find_duplicates(joined)
        equal |= _with_held(duplicates.sets, n)
        kept, chained = _by_size(duplicates, max(4, (n + total) // 20))
        near = _with_held(kept, n) - equal
        if alike := _with_held(chained, n) - equal - near:
            logging.warning(
                "%s: %d examples of %s look like some in %s, but so many look alike that they are not left out: %s.",
                *(examples.name, len(alike), what, whose, excerpt([examples.keys[i] for i in sorted(alike)], 3)),
            )
    elif not same_set and not compare and all(part.checksum for part in (examples, *held)):
        sums = {checksum for part in held for checksum in part.checksums()} - {""}
        equal |= {i for i, checksum in enumerate(examples.checksums()) if checksum in sums}
    elif not same_set:
        logging.warning(
            "%s: the examples of %s cannot be compared with %s (%s): see to it yourself that it holds none of those.",
            *(examples.name, what, whose, held[0].name),
        )
        return examples
    gone = equal | near
    if len(gone) == n:
        raise InputError(
            f"{examples.name}: every example of {what} is in {whose} ({held[0].name}), or nearly equal to one there. "
            "Give other examples, or another split."
        )
    logging.log(
        logging.WARNING if gone else logging.INFO,
        "%s: %d of %d examples of %s are left out, as they are in %s (%d) or near copies of some there (%d)%s.",
        *(examples.name, len(gone), n, what, whose, len(equal), len(near)),
        f": {excerpt([examples.keys[i] for i in sorted(gone)], 3)}" if gone else "",
    )
    return examples.select(np.array([i for i in range(n) if i not in gone], np.int64)) if gone else examples


def _with_held(sets: Sequence[Sequence[int]], n: int) -> set[int]:
    """The indices below n that share a set with an index of n or more."""
    return {i for members in sets if max(members) >= n for i in members if i < n}


def _by_size(duplicates: Duplicates, most: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Sets of near copies of at most this size, and the larger ones."""
    return [members for members in duplicates.near if len(members) <= most], [
        members for members in duplicates.near if len(members) > most
    ]


def _joined(parts: Sequence[Examples]) -> Examples | None:
    """All examples as one set, with the inputs that can be compared; None where there are none."""
    whole = dataclasses.replace(
        parts[0],
        keys=[f"{p}/{key}" for p, part in enumerate(parts) for key in part.keys],
        columns={},
        classes={},
        inputs={},
        # Digests of bytes compare within a set only: pixels and rows decide.
        content=[f"{p}/{i}" for p, part in enumerate(parts) for i in range(len(part))].__getitem__,
        splits=None,
        groups=None,
        pixels=None,
    )
    decoders = [part.pixels for part in parts if part.pixels is not None]
    if len(decoders) == len(parts):
        owners = [(decode, i) for decode, part in zip(decoders, parts, strict=True) for i in range(len(part))]
        return dataclasses.replace(whole, pixels=lambda i, side: owners[i][0](owners[i][1], side))
    shared = [name for name, read in parts[0].inputs.items() if all(_alike(part, name, read) for part in parts)]
    if not shared:
        return None
    return dataclasses.replace(whole, inputs={name: Rows(np.concatenate(_arrays(parts, name))) for name in shared})


def _arrays(parts: Sequence[Examples], name: str) -> list[np.ndarray]:
    readers = [(part.inputs[name], np.arange(len(part))) for part in parts]
    return [read.many(places) for read, places in readers if isinstance(read, Rows)]


def _alike(part: Examples, name: str, read: Callable[[int], np.ndarray]) -> bool:
    rows = part.inputs.get(name)
    return isinstance(rows, Rows) and isinstance(read, Rows) and rows.array.shape[1:] == read.array.shape[1:]
