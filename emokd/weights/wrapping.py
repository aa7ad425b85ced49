"""Removes what training scripts put around a state dict: containers, prefixes, a second set of weights.

A checkpoint is flattened to names that say where an array was ("state_dict_ema.module.conv1.weight"). A part of a name
counts as wrapping only where the rest is a name of the architecture; nothing else is removed.
"""

import collections
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from emokd.errors import InputError, excerpt, nearest
from emokd.weights.mapping import TORCH, Names

ROOT = "."
"""The key of a set whose names have no prefix."""
DEPTH = 6
"""Largest depth at which dicts are searched: a dict in a file may contain itself."""
OPTIMISER = re.compile("optim|sched|scaler", re.IGNORECASE)
PLAIN = {"", "state_dict", "model_state_dict", "model", "module", "_orig_mod"}
"""Usual parts of a prefix, whose removal is not logged."""
AVERAGED = re.compile("ema|averag|swa|shadow|polyak", re.IGNORECASE)


def flatten_containers(loaded: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """The arrays of all state dicts in a checkpoint, by their place in it and their name, joined by dots.

    A state dict is a dict most of whose entries, dicts aside, are arrays. States of optimisers are left out.

    Args:
      loaded: the content of the file.
      source: the file's name, for messages.

    Raises:
      InputError: there is no state dict.
    """
    flat: dict[str, Any] = {}
    for place, state in _state_dicts(loaded, ()):
        flat |= {".".join((*place, name)): value for name, value in state.items()}
    if not flat:
        raise InputError(
            f"{source} is not a state dict and holds none: its keys are {excerpt(map(repr, loaded), 5) or 'none'}. "
            f"Save `model.state_dict()`."
        )
    for unnamed in _unnamed_averages(loaded, ()):
        logging.warning(
            "%s: %r holds averaged weights as well, without names, so that they cannot be read; the others were. "
            "Published accuracies are usually those of averaged weights: where the model is at hand, copy them into it "
            "and save `model.state_dict()`.",
            *(source, ".".join(unnamed)),
        )
    return flat


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _state_dicts(loaded: Mapping[Any, Any], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    entries = {key: value for key, value in loaded.items() if not isinstance(value, Mapping)}
    arrays = [value for value in entries.values() if _is_array(value)]
    named = all(isinstance(key, str) for key in entries)
    if named and any(len(array.shape) for array in arrays) and 2 * len(arrays) >= len(entries):
        yield place, entries
    for key, value in loaded.items():
        if isinstance(value, Mapping) and isinstance(key, str) and len(place) < DEPTH and not OPTIMISER.search(key):
            yield from _state_dicts(value, (*place, key))


def _unnamed_averages(loaded: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Places of lists of averaged weights without names, as `torch_ema` and NeMo save them."""
    entries = loaded.items() if isinstance(loaded, Mapping) else enumerate(loaded)
    for key, value in entries if len(place) < DEPTH else ():
        inner = (*place, str(key))
        if isinstance(value, list | tuple) and sum(map(_is_array, value)) > 1:
            if any(AVERAGED.search(part) for part in inner):
                yield inner
        elif isinstance(value, Mapping | list | tuple):
            yield from _unnamed_averages(value, inner)


def find_prefixes(names: Collection[str], expected: Collection[str]) -> dict[str, set[str]]:
    """For each prefix (without its last dot): the `expected` names that are in `names` with this prefix."""
    names_by_prefix: dict[str, set[str]] = collections.defaultdict(set)
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if (end := ".".join(parts[start:])) in expected:
                names_by_prefix[".".join(parts[:start])].add(end)
    return names_by_prefix


def unwrap(
    flat: Mapping[str, Any], layouts: Sequence[tuple[Names, Mapping[str, str]]], key: str, head: str, source: str
) -> tuple[dict[str, Any], Names, list[str]]:
    """Selects a set of weights, and removes the prefix of its names.

    Args:
      flat: arrays by name, as `flatten_containers` gives them.
      layouts: the namings of the architecture's modules, each with our path of each array by its name in files.
      key: the prefix of the set of weights to use, `ROOT` for the set without a prefix; empty if there is one set.
      head: our name of the only head, for which a linear layer of any name is taken if it is the one left over; empty
        to take none.
      source: the file's name, for messages.

    Returns:
      Arrays by the architecture's names, as far as these confirm a prefix; the naming that fits best; and notes on what
      was done.

    Raises:
      InputError: there are several sets of weights and `key` does not say which; or none at `key`.
    """
    notes = []
    named, key = (key != ROOT and key.rstrip(".")), key if key == ROOT else key.rstrip(".")
    if named:
        inside = {name.removeprefix(f"{key}."): value for name, value in flat.items() if name.startswith(f"{key}.")}
        if not inside:
            parts_of_names = {name.rpartition(".")[0] for name in flat} | {name.split(".")[0] for name in flat}
            raise InputError(
                f"{source} holds no weights under {key!r}.{nearest(key, parts_of_names)} "
                f"Its names begin with {excerpt(sorted({name.split('.')[0] for name in flat}))}."
            )
        notes.append(f"took the {len(inside)} arrays of {key!r}, left {len(flat) - len(inside)} others aside")
        flat = inside
    prefixes = [find_prefixes(flat, expected) for _, expected in layouts]
    best = max(range(len(layouts)), key=lambda i: max(map(len, prefixes[i].values()), default=0) / len(layouts[i][1]))
    (names, expected), names_by_prefix = layouts[best], prefixes[best]
    if not names_by_prefix:
        return dict(flat), names, notes
    most = max(names_by_prefix.values(), key=len)
    # A second set of weights repeats at least half of the first one's names; other parts of a model do not.
    sets = [prefix for prefix, ends in names_by_prefix.items() if ends is most or 2 * len(ends & most) >= len(most)]
    if key and "" in sets:  # the key names the set without a further prefix
        others = tuple(f"{prefix}." for prefix in sets if prefix)
        kept = {name: value for name, value in flat.items() if not name.startswith(others)}
        if len(kept) < len(flat):
            notes.append(f"took the arrays without a further prefix, left {len(flat) - len(kept)} others aside")
        flat, sets = kept, [""]
    if len(sets) > 1:
        raise InputError(_which(sets, names_by_prefix, source, f"{key}." if named else ""))
    (prefix,) = sets
    if not PLAIN.issuperset(prefix.split(".")):
        notes.append(f"took {prefix + '.'!r} off the names")
    stripped = {
        name.removeprefix(f"{prefix}.") if prefix else name: value
        for name, value in flat.items()
        if not prefix or name.startswith(f"{prefix}.")
    }
    for name, value in flat.items():
        if prefix and not name.startswith(f"{prefix}."):
            ours = next((end for end in _ends(name) if end in expected and end not in stripped), name)
            if ours != name:
                notes.append(f"took {name!r} as {ours!r}")
            stripped[ours] = value
    return _adopt_head(stripped, expected, head, notes), names, notes


def _ends(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(1, len(parts)))


def _adopt_head(arrays: dict[str, Any], expected: Mapping[str, str], head: str, notes: list[str]) -> dict[str, Any]:
    """Takes the only unused linear layer as the head, where the head is all that is missing."""
    heads = [name for name, path in expected.items() if head and path.startswith(f"heads/{head}/")]
    missing = [name for name in expected if name not in arrays]
    left = [name for name in arrays if name not in expected and name.rpartition(".")[2] not in TORCH.ignored]
    if not heads or set(missing) != set(heads) or len(left) != 2:
        return arrays
    ranks = {len(np.shape(arrays[name])): name for name in left}
    modules = {name.rpartition(".")[0] for name in left}
    if ranks.keys() != {1, 2} or len(modules) != 1 or {name.rpartition(".")[2] for name in left} != {"weight", "bias"}:
        return arrays
    (module,) = modules
    for name in heads:
        arrays[name] = arrays.pop(f"{module}.{name.rpartition('.')[2]}")
    notes.append(f"took {module!r}, the one layer left over, as the head")
    return arrays


def _which(sets: Sequence[str], names_by_prefix: Mapping[str, Collection[str]], source: str, inside: str) -> str:
    """The message that asks which set of weights to use; `inside` is put before their prefixes."""

    def averaged(prefix: str) -> bool:
        return bool(AVERAGED.search(prefix))

    listed = [
        f"{inside + prefix or ROOT!r} ({len(names_by_prefix[prefix])} arrays{', averaged' if averaged(prefix) else ''})"
        for prefix in sorted(sets)
    ]
    example = inside + next((prefix for prefix in sorted(sets) if averaged(prefix)), sorted(sets)[0]) or ROOT
    advice = " Published accuracies are usually those of averaged weights." if any(map(averaged, sets)) else ""
    return (
        f"{source} holds {len(sets)} sets of weights for this network: {'; '.join(listed)}. Say which: "
        f"--key={example}, or in a configuration {source}#{example}.{advice}"
    )
