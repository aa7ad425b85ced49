"""Imports a weights file of another framework, of any known format, as a model of ours."""

import contextlib
import hashlib
import importlib
import inspect
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from emokd.errors import InputError, excerpt, nearest
from emokd.models.network import NetworkSpec, TrainedModel, count_parameters, functional
from emokd.models.registry import BACKBONES
from emokd.weights.formats import FORMATS, MANIFEST, read_file, recognise
from emokd.weights.mapping import Layout, Names, convert, flatten, leave_out_modules
from emokd.weights.model_folder import save_model
from emokd.weights.tfjs_file import shards_of
from emokd.weights.wrapping import unwrap

FOREIGN = {
    "resnet18": "emokd.weights.resnet",
    "resnet50": "emokd.weights.resnet",
    "mobilenet_v2": "emokd.weights.mobilenet_v2",
    "efficientnet_b0": "emokd.weights.efficientnet",
    "efficientnet_b2": "emokd.weights.efficientnet",
    "efficientnet_lite0": "emokd.weights.efficientnet",
    "hsemotion_b0": "emokd.weights.hsemotion",
    "hsemotion_b2": "emokd.weights.hsemotion",
    "convnext_tiny": "emokd.weights.convnext",
    "efficientformer_l1": "emokd.weights.efficientformer",
    "efficientformer_l3": "emokd.weights.efficientformer",
    "efficientformer_l7": "emokd.weights.efficientformer",
    "dinov2_small": "emokd.weights.dinov2",
    "clip_vit_b32": "emokd.weights.clip",
    "mini_xception": "emokd.weights.mini_xception",
    "emonet": "emokd.weights.emonet",
    "r3d18": "emokd.weights.resnet3d",
    "face_api_expression": "emokd.weights.face_api",
    "face_api_age_gender": "emokd.weights.face_api",
    "face_api_identity": "emokd.weights.face_api",
}
"""The module that maps each architecture's modules to foreign names: by `foreign_module`, or, where several namings are
in use, by `layouts(backbone)`, a sequence of `Names`.

If it also has `prepare(foreign) -> foreign`, that rewrites the file's arrays before they are mapped. If it has
`heads(backbone)`, its files have fixed heads: for each head's name the class names by number of classes, as far as they
are known. If it has `settle(names, options, file) -> (options, notes)`, that chooses options which the names leave
open.
"""

DEFAULT_HEAD = "pretrained"


KEY_MARK = "#"
"""Separates a file's path from the key of one of its sets of weights, where a configuration names both."""


def split_key(path: str) -> tuple[str, str]:
    """Splits a path of a configuration: "ema.pth#state_dict_ema" into ("ema.pth", "state_dict_ema")."""
    before, _, key = path.rpartition(KEY_MARK)
    is_file_name = pathlib.Path(before).suffix.lower() in FORMATS or (
        pathlib.Path(before).is_file() and not pathlib.Path(path).exists()
    )
    return (before, key) if key and is_file_name else (path, "")


def import_file(
    backbone: str,
    path: str | pathlib.Path,
    *,
    options: Mapping[str, Any] | None = None,
    head: str = "",
    leave_out: Sequence[str] = (),
    classes: Sequence[str] = (),
    key: str = "",
) -> TrainedModel:
    """Reads a weights file for one of our architectures. Nothing in it is executed, and every array must be used.

    Logs which prefixes were removed from names, which arrays were not used by request, and what was guessed.

    Args:
      backbone: a name in `registry.BACKBONES`.
      path: the file; its first bytes, or its suffix, say the format.
      options: the backbone's options.
      head: our name for the file's head, whose size is taken from the file. Empty: "pretrained", or the names of
        the architecture's fixed heads, where the file has a head that is not left out.
      leave_out: foreign modules that are not wanted, such as "fc".
      classes: names of the head's classes, in order.
      key: which set of weights, where the file has several: the beginning of their names, such as "state_dict_ema".

    Raises:
      InputError: the file is missing, damaged, of another architecture, or has no such head or number of classes;
        or it has several sets of weights, and no `key` says which.
    """
    path = pathlib.Path(path)
    layouts = find_layouts(backbone)
    module = importlib.import_module(FOREIGN[backbone])
    foreign, layout = read_file(path)
    early = [name for name in leave_out if any(n.startswith(name + layout.separator) for n in foreign)]
    foreign = leave_out_modules(foreign, early, layout, path.name)
    named_heads: Mapping[str, Mapping[int, tuple[str, ...]]] = (
        module.heads(backbone) if hasattr(module, "heads") else {}
    )
    options = dict(options or {})
    names, notes = layouts[0], list[str]()
    if layout.separator == ".":
        spec = NetworkSpec(backbone, options, dict.fromkeys(named_heads or [head or DEFAULT_HEAD], 1))
        paths = [leaf for tree in functional(spec).abstract for leaf in flatten(tree)]
        namings = [(each, _array_names(paths, each, layout)) for each in layouts]
        foreign, names, notes = unwrap(
            foreign, namings, key, "" if named_heads or leave_out else head or DEFAULT_HEAD, path.name
        )
    elif key:
        raise InputError(f"{path.name} has one set of weights; give no key ({key!r}).")
    foreign = leave_out_modules(foreign, [name for name in leave_out if name not in early], layout, path.name)
    options, guessed = _settle(backbone, names, options, path.name)
    if hasattr(module, "prepare"):
        foreign = module.prepare(foreign)
    heads = _find_heads(foreign, layout, names.foreign_module, named_heads, head, path.name)
    named = {name: named_heads[name][size] for name, size in heads.items() if size in named_heads.get(name, {})}
    class_names = _name_classes(heads, classes, path.name)
    for name in class_names:
        if name in named and class_names[name] != named[name] and sorted(class_names[name]) == sorted(named[name]):
            logging.warning(
                "%s: the classes of %s are given in the order %s, but such files are known to have %s. If that "
                "holds for this one, leave --classes out.",
                path.name,
                name,
                ", ".join(class_names[name]),
                ", ".join(named[name]),
            )
    named |= class_names
    spec = NetworkSpec(backbone, options=options, heads=heads, classes=named)
    network = functional(spec)
    params, stats = convert(foreign, network.abstract, names.foreign_module, layout=layout, source=path.name)
    spec = NetworkSpec(spec.backbone, spec.options, spec.heads, spec.classes, network.module.backbone.preprocessing)
    for done in [*notes, *guessed]:
        logging.warning("%s: %s.", path.name, done)
    which = KEY_MARK + key if key else ""
    return TrainedModel(spec, params, stats, origin=f"{path.name}{which} (sha256 {file_hash(path)[:16]})")


def import_weights(
    model: str,
    checkpoint: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    head: str = "",
    leave_out: Sequence[str] = (),
    classes: Sequence[str] = (),
    key: str = "",
    options: Mapping[str, Any] | None = None,
) -> str:
    """Reads the weights file `checkpoint` and writes the model folder `output`.

    Args:
      model: architecture.
      checkpoint: weights file.
      output: model folder.
      head: see `import_file`.
      leave_out: likewise.
      classes: likewise.
      key: likewise.
      options: likewise.

    Returns:
      One line that says what was written.

    Raises:
      InputError: the file does not fit, or the folder cannot be written.
    """
    checkpoint = pathlib.Path(checkpoint)
    trained = import_file(model, checkpoint, options=options, head=head, leave_out=leave_out, classes=classes, key=key)
    provenance = {"source": checkpoint.name, "source_sha256": file_hash(checkpoint), "left_out": list(leave_out)}
    save_model(output, trained.spec, trained.params, trained.stats, provenance | ({"key": key} if key else {}))
    heads = ", ".join(f"{name} ({size})" for name, size in trained.spec.heads.items()) or "none"
    return f"{output}: {model}, {count_parameters(trained.params):,} parameters, heads: {heads}, from {trained.origin}"


def read_options(texts: list[str]) -> dict[str, Any]:
    """`["size=256", "style=pytorch"]` as a dict; values are JSON where they can be, otherwise text.

    Raises:
      InputError: one has no "=".
    """
    options = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name.strip():
            raise InputError(f"--options={text}: write NAME=VALUE, such as size=256.")
        try:
            options[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            options[name.strip()] = value
    return options


def find_layouts(backbone: str) -> Sequence[Names]:
    """The namings of an architecture's modules in files.

    Raises:
      InputError: no foreign file is known for it.
    """
    if backbone not in FOREIGN:
        raise InputError(
            f"No weights of other frameworks can be imported for {backbone!r}.{nearest(backbone, FOREIGN)} "
            f"Known: {', '.join(sorted(FOREIGN))}."
        )
    module = importlib.import_module(FOREIGN[backbone])
    return module.layouts(backbone) if hasattr(module, "layouts") else [Names("", module.foreign_module)]


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 of a file, hexadecimal; for a manifest, of the manifest and its shards one after the other."""
    shards: list[pathlib.Path] = []
    with contextlib.suppress(InputError):  # the file is no manifest, or holds no weights
        shards = shards_of(path) if recognise(path) is MANIFEST else []
    digest = hashlib.sha256()
    for each in [path, *filter(pathlib.Path.is_file, shards)]:
        with each.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _array_names(paths: Sequence[str], names: Names, layout: Layout) -> dict[str, str]:
    """Our path of each array, by its name in files with this naming."""
    path_of = {}
    for path in paths:
        module, _, leaf = path.rpartition("/")
        with contextlib.suppress(KeyError):
            path_of[layout.foreign_name(names.foreign_module(module), leaf)] = path
    return path_of


def _settle(
    backbone: str, names: Names, options: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], Sequence[str]]:
    """The backbone's options that the file's naming implies, and notes on what was guessed."""
    module = importlib.import_module(FOREIGN[backbone])
    for option, value in names.options.items():
        if options.get(option, value) != value:
            raise InputError(
                f"{source} has the names of {names.label}, whose networks are of {option} {value!r}, not "
                f"{options[option]!r}: the numbers would be others. Leave the option {option!r} away."
            )
    settled, notes = {**options, **names.options}, list[str]()
    if hasattr(module, "settle"):
        settled, notes = module.settle(names, settled, source)
    place, factory = BACKBONES[backbone].split(":")
    defaults = inspect.signature(getattr(importlib.import_module(place), factory)).parameters
    # Options at their defaults are left out, as in a configuration that does not mention them.
    return {k: v for k, v in settled.items() if k in options or v != defaults[k].default}, notes


def _find_heads(
    foreign: Mapping[str, np.ndarray],
    layout: Layout,
    foreign_module: Callable[[str], str],
    named_heads: Collection[str],
    head: str,
    source: str,
) -> dict[str, int]:
    if named_heads and head and head not in named_heads:
        raise InputError(
            f"The heads of {source} have names of their own: {', '.join(named_heads)}. Give none, not {head!r}."
        )
    names = {
        name: layout.foreign_name(foreign_module(f"heads/{name}"), "kernel")
        for name in named_heads or [head or DEFAULT_HEAD]
    }
    if head and names[head] not in foreign:
        raise InputError(f"{source} has no head: {names[head]!r} is not among its arrays, {excerpt(foreign)}.")
    kernels = {name: foreign[array] for name, array in names.items() if array in foreign}
    return {name: layout.to_ours("kernel", kernel, rank=2).shape[-1] for name, kernel in kernels.items()}


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
