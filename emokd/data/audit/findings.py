"""Finds what is wrong, or likely wrong, with a data set, by the same checks that a run makes at its start."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from emokd.data.audit.published import differences
from emokd.data.division.crossings import crossing, groups_of
from emokd.data.division.duplicates import Duplicates
from emokd.data.examples import Examples, Rows
from emokd.data.tables.consistency import find_contradictions
from emokd.data.tables.expressions import expression_ids
from emokd.errors import InputError, excerpt

SHOWN = 5
"""How many examples a finding names."""
_READERS = 4


def find_all(source: str, examples: Examples, parts: Mapping[str, np.ndarray], duplicates: Duplicates) -> list[str]:
    """All findings, one sentence each.

    Args:
      source: the set's name, by which published counts are looked up.
      examples: the whole set.
      parts: indices of each split's examples, as the run would divide them.
      duplicates: the set's copies.
    """
    home = {int(i): name for name, part in parts.items() for i in part}
    return [
        *(f"Other than published: {line}." for line in differences(source, examples)),
        *unreadable(examples),
        *copies(examples, duplicates),
        *_crossings(examples, duplicates, home),
        *labels(examples),
    ]


def unreadable(examples: Examples) -> list[str]:
    """Examples that cannot be read: tries every input of every example, except arrays that are in memory."""
    bad: dict[str, str] = {}
    for read in (read for read in examples.inputs.values() if not isinstance(read, Rows)):
        with ThreadPoolExecutor(_READERS) as pool:
            for key, problem in zip(examples.keys, pool.map(_problem(read), range(len(examples))), strict=True):
                if problem:
                    bad.setdefault(key, problem)
    if not bad:
        return []
    return [f"{len(bad)} of {len(examples)} examples cannot be read: {excerpt(bad.values(), SHOWN)}"]


def _problem(read: Callable[[int], np.ndarray]) -> Callable[[int], str]:
    def ask(i: int) -> str:
        try:
            read(i)
        except InputError as error:
            return str(error)
        return ""

    return ask


def copies(examples: Examples, duplicates: Duplicates) -> list[str]:
    """Sets of equal examples, sets of equal examples with different labels, and sets of near copies."""
    findings = []
    for sets, what in (
        (
            duplicates.sets,
            f"equal examples ({duplicates.other_bytes} examples of them in other bytes, equal in pixels)",
        ),
        (duplicates.conflicting, "equal examples with different labels"),
        (duplicates.near, "near copies (compressed again, resized, grey, brighter, mirrored; rows with fewer digits)"),
    ):
        if sets:
            shown = [" = ".join(examples.keys[i] for i in members[:4]) for members in sets]
            findings.append(f"{len(sets)} sets of {what}, {sum(map(len, sets))} examples: {excerpt(shown, SHOWN)}.")
    return findings


def _crossings(examples: Examples, duplicates: Duplicates, home: Mapping[int, str]) -> list[str]:
    """Groups and sets of copies that straddle splits: this configuration's, and those that the set prescribes."""
    named = {examples.keys[indices[0]]: indices for indices in (*duplicates.sets, *duplicates.near)}
    groups = groups_of(examples)
    prescribed = {} if examples.splits is None else {i: str(name) for i, name in enumerate(examples.splits) if name}
    findings = []
    for members, what, sides, which in (
        (groups, "groups (subjects)", home, "of this configuration"),
        (groups, "groups (subjects)", prescribed, "that the set prescribes"),
        (named, "sets of copies", home, "of this configuration"),
        (named, "sets of copies", prescribed, "that the set prescribes"),
    ):
        if across := crossing(members, sides):
            shown = [f"{name} ({' and '.join(splits)})" for name, splits in across.items()]
            findings.append(
                f"{len(across)} of {len(members)} {what} are in several splits {which}: {excerpt(shown, SHOWN)}."
            )
    return findings


def labels(examples: Examples) -> list[str]:
    """Classes without examples, and classes whose valence or arousal contradicts their name."""
    ids, names = expression_ids(examples), examples.classes.get("expression", ())
    if ids is None:
        return []
    count = np.bincount(ids[ids >= 0], minlength=len(names))
    findings = [f"No example has the class {excerpt(np.array(names)[count == 0])}."] if not count.all() else []
    if "valence_arousal" in examples.columns:
        wrong, sentence = find_contradictions(ids, examples.columns["valence_arousal"], names)
        findings += [sentence[0].upper() + sentence[1:]] if wrong else []
    return findings
