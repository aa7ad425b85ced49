"""A weights file of another framework, whatever its format, as a model of ours."""

import hashlib
import importlib
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from emokd.errors import InputError, excerpt, nearest
from emokd.models.network import NetworkSpec, TrainedModel, count_parameters, functional
from emokd.weights.keras_file import read_keras
from emokd.weights.mapping import KERAS, TORCH, Layout, convert, leave_out_modules
from emokd.weights.model_folder import save_model
from emokd.weights.torch_file import read_safetensors, read_torch

FOREIGN = {
    "resnet18": "emokd.weights.resnet",
    "resnet50": "emokd.weights.resnet",
    "mobilenet_v2": "emokd.weights.mobilenet_v2",
    "efficientnet_b0": "emokd.weights.efficientnet",
    "efficientnet_b2": "emokd.weights.efficientnet",
    "efficientnet_lite0": "emokd.weights.efficientnet_lite",
    "efficientformer_l1": "emokd.weights.efficientformer",
    "efficientformer_l3": "emokd.weights.efficientformer",
    "efficientformer_l7": "emokd.weights.efficientformer",
    "mini_xception": "emokd.weights.mini_xception",
    "emonet": "emokd.weights.emonet",
    "r3d18": "emokd.weights.resnet3d",
}
"""The module that names each architecture's foreign modules (`foreign_module`).

If it also has `prepare(foreign) -> foreign`, that rewrites the file's arrays before they are mapped. If it has `HEADS`,
its files have heads of their own: for each name the class names by number of classes, as far as they are known.
"""

FORMATS: Mapping[str, tuple[Callable[[pathlib.Path], dict[str, np.ndarray]], Layout]] = {
    ".pth": (read_torch, TORCH),
    ".pt": (read_torch, TORCH),
    ".bin": (read_torch, TORCH),
    ".tar": (read_torch, TORCH),
    ".safetensors": (read_safetensors, TORCH),
    ".h5": (read_keras, KERAS),
    ".hdf5": (read_keras, KERAS),
}
"""Reader and layout for the last suffix of a file's name (PyTorch's "resnet18.pth.tar" is no archive)."""

DEFAULT_HEAD = "pretrained"


def import_file(
    backbone: str,
    path: str | pathlib.Path,
    *,
    options: Mapping[str, Any] | None = None,
    head: str = "",
    leave_out: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> TrainedModel:
    """Reads a weights file for one of our architectures; nothing in it is executed, and nothing is left over.

    Args:
      backbone: a name in `registry.BACKBONES`.
      path: the file; its suffix says the format.
      options: the backbone's options.
      head: our name for the file's head, whose size is read off the file. Empty: "pretrained", or the names that
        the architecture's heads have by themselves, where the file has a head that is not left out.
      leave_out: foreign modules that are not wanted, such as "fc".
      classes: names of the head's classes, in order.

    Raises:
      InputError: the file is missing, damaged, of another architecture, or has no such head or number of classes.
    """
    path = pathlib.Path(path)
    foreign_module = find_foreign_module(backbone)
    module = importlib.import_module(FOREIGN[backbone])
    foreign, layout = read_file(path)
    foreign = leave_out_modules(foreign, leave_out, layout, path.name)
    if hasattr(module, "prepare"):
        foreign = module.prepare(foreign)
    own: Mapping[str, Mapping[int, tuple[str, ...]]] = getattr(module, "HEADS", {})
    heads = _find_heads(foreign, layout, foreign_module, own, head, path.name)
    named = {name: own[name][size] for name, size in heads.items() if size in own.get(name, {})}
    given = _name_classes(heads, classes, path.name)
    for name in given:
        if name in named and given[name] != named[name] and sorted(given[name]) == sorted(named[name]):
            logging.warning(
                "%s: the classes of %s are given in the order %s, but such files are known to have %s. If that "
                "holds for this one, leave --classes out.",
                path.name,
                name,
                ", ".join(given[name]),
                ", ".join(named[name]),
            )
    named |= given
    spec = NetworkSpec(backbone, options=dict(options or {}), heads=heads, classes=named)
    network = functional(spec)
    params, stats = convert(foreign, network.abstract, foreign_module, layout=layout, source=path.name)
    spec = NetworkSpec(spec.backbone, spec.options, spec.heads, spec.classes, network.module.backbone.preprocessing)
    return TrainedModel(spec, params, stats, origin=f"{path.name} (sha256 {file_hash(path)[:16]})")


def import_weights(
    model: str,
    checkpoint: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    head: str = "",
    leave_out: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> str:
    """Reads the weights file `checkpoint` and writes the model folder `output`.

    Args:
      model: architecture.
      checkpoint: weights file.
      output: model folder.
      head: see `import_file`.
      leave_out: likewise.
      classes: likewise.

    Returns:
      One line that says what was written.

    Raises:
      InputError: the file does not fit, or the folder cannot be written.
    """
    checkpoint = pathlib.Path(checkpoint)
    trained = import_file(model, checkpoint, head=head, leave_out=leave_out, classes=classes)
    provenance = {"source": checkpoint.name, "source_sha256": file_hash(checkpoint), "left_out": list(leave_out)}
    save_model(output, trained.spec, trained.params, trained.stats, provenance)
    heads = ", ".join(f"{name} ({size})" for name, size in trained.spec.heads.items()) or "none"
    return f"{output}: {model}, {count_parameters(trained.params):,} parameters, heads: {heads}, from {trained.origin}"


def find_foreign_module(backbone: str) -> Callable[[str], str]:
    """The function that names an architecture's foreign modules.

    Raises:
      InputError: no foreign file is known for it.
    """
    if backbone not in FOREIGN:
        raise InputError(
            f"No weights of other frameworks can be imported for {backbone!r}.{nearest(backbone, FOREIGN)} "
            f"Known: {', '.join(sorted(FOREIGN))}."
        )
    return importlib.import_module(FOREIGN[backbone]).foreign_module


def read_file(path: pathlib.Path) -> tuple[dict[str, np.ndarray], Layout]:
    """The arrays in a weights file, and the layout of the framework that wrote it.

    Raises:
      InputError: there is no such file, or its format is unknown or damaged.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: the suffix of a weights file says its format. Known: {', '.join(FORMATS)}.")
    if not path.is_file():
        raise InputError(f"There is no file {path}. Correct the path.")
    read, layout = FORMATS[path.suffix]
    return read(path), layout


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_heads(
    foreign: Mapping[str, np.ndarray],
    layout: Layout,
    foreign_module: Callable[[str], str],
    own: Collection[str],
    head: str,
    source: str,
) -> dict[str, int]:
    if own and head and head not in own:
        raise InputError(f"The heads of {source} have names of their own: {', '.join(own)}. Give none, not {head!r}.")
    names = {
        name: layout.foreign_name(foreign_module(f"heads/{name}"), "kernel") for name in own or [head or DEFAULT_HEAD]
    }
    if head and names[head] not in foreign:
        raise InputError(f"{source} has no head: {names[head]!r} is not among its arrays, {excerpt(foreign)}.")
    found = {name: foreign[array] for name, array in names.items() if array in foreign}
    return {name: layout.to_ours("kernel", kernel, rank=2).shape[-1] for name, kernel in found.items()}


def _name_classes(heads: Mapping[str, int], classes: Sequence[str], source: str) -> dict[str, tuple[str, ...]]:
    if not classes:
        return {}
    if not heads:
        raise InputError(f"{len(classes)} class names are given, but {source} has no head, or it is left out.")
    (head, size), *_ = heads.items()
    if len(classes) != size:
        raise InputError(f"{len(classes)} class names are given, but the head of {source} has {size} classes.")
    if repeated := sorted({name for name in classes if list(classes).count(name) > 1}):
        raise InputError(f"Class names must differ; repeated: {excerpt(repeated)}.")
    return {head: tuple(classes)}
