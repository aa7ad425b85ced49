"""Names a network's arrays as another framework does: the inverse of `mapping.convert`.

A foreign network has one head. Several heads of ours become one, whose outputs are ours one after the other, so that
a foreign network with that many outputs loads the file strictly. [ours]
"""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping

import numpy as np

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.registry import BACKBONES
from emokd.weights.importing import DEFAULT_HEAD, FOREIGN, find_layouts
from emokd.weights.mapping import TORCH, Layout, Names, convert, flatten

_LACKING = {"torchvision": ("efficientnet_lite0",)}
"""Architectures that a library has no network of, although its names for their kin would serve."""
_NOT_PYTORCH = tuple(f"emokd.weights.{name}" for name in ("mini_xception", "face_api", "hsemotion", "dinov2", "clip"))
"""Namings of files that are read but not written: of other frameworks, of teachers, or of a part of a file."""


def find_names(spec: NetworkSpec) -> Names:
    """The naming, in PyTorch's files, that fits the network's options; the first of several.

    Raises:
      InputError: there is none.
    """
    known = [name for name, module in FOREIGN.items() if module not in _NOT_PYTORCH]
    if spec.backbone not in known:
        raise InputError(
            f"There are no names of a PyTorch network to write the parameters of {spec.backbone!r} under. With the "
            f"format torch go {', '.join(known)}; --format=onnx takes every network."
        )
    place, factory = BACKBONES[spec.backbone].split(":")
    defaults = inspect.signature(getattr(importlib.import_module(place), factory)).parameters

    def fits(names: Names) -> bool:
        if spec.backbone in _LACKING.get(names.label, ()):
            return False
        return all(spec.options.get(key, defaults[key].default) == value for key, value in names.options.items())

    # A naming that the options ask for by name says more than one that serves several.
    return max(filter(fits, find_layouts(spec.backbone)), key=lambda names: names.label == "torchvision")


def to_foreign(model: TrainedModel, names: Names, layout: Layout = TORCH) -> dict[str, np.ndarray]:
    """The network's parameters and statistics by the names of another framework, in its order of axes.

    Args:
      model: a network of pictures.
      names: the naming.
      layout: of the framework.
    """
    module = importlib.import_module(FOREIGN[model.spec.backbone])
    heads: dict[str, list[np.ndarray]] = {}
    found: dict[str, np.ndarray] = {}
    leaves = {**flatten(model.params), **flatten(model.stats)}
    own = hasattr(module, "heads")
    ordered = sorted(leaves, key=lambda path: _place(path, list(model.spec.heads)))
    for path in ordered:
        place, _, leaf = path.rpartition("/")
        array = np.asarray(leaves[path])
        if place.startswith("heads/") and not own:
            heads.setdefault(leaf, []).append(array)
        else:
            found[layout.foreign_name(names.foreign_module(place), leaf)] = _ordered(layout, leaf, array)
    for leaf, arrays in heads.items():
        name = layout.foreign_name(names.foreign_module(f"heads/{DEFAULT_HEAD}"), leaf)
        found[name] = _ordered(layout, leaf, np.concatenate(arrays, -1))
    return module.restore(found) if hasattr(module, "restore") else found


def head_rows(heads: Mapping[str, int]) -> dict[str, slice]:
    """The outputs of the joined head that are each of ours."""
    found, start = {}, 0
    for name, size in heads.items():
        found[name] = slice(start, start + size)
        start += size
    return found


def from_foreign(arrays: Mapping[str, np.ndarray], spec: NetworkSpec, names: Names, source: str) -> TrainedModel:
    """Reads what `to_foreign` gave as the importer reads a file: with the joined head, or the file's own heads.

    Raises:
      InputError: an array is missing, left over, or of another shape.
    """
    module = importlib.import_module(FOREIGN[spec.backbone])
    heads = dict(spec.heads) if hasattr(module, "heads") else {DEFAULT_HEAD: sum(spec.heads.values())}
    joined = dataclasses.replace(spec, heads=heads if spec.heads else {}, classes={})
    prepared = module.prepare(arrays) if hasattr(module, "prepare") else arrays
    params, stats = convert(prepared, functional(joined).abstract, names.foreign_module, source=source)
    return TrainedModel(joined, params, stats, origin=source)


def _place(path: str, heads: list[str]) -> int:
    return heads.index(path.split("/")[1]) if path.startswith("heads/") else -1


def _ordered(layout: Layout, leaf: str, array: np.ndarray) -> np.ndarray:
    if leaf == "kernel":
        array = array.transpose(np.argsort(layout.kernel_axes.get(array.ndim, range(array.ndim))))
    return np.ascontiguousarray(array) if array.ndim else array
