"""Reads and writes `model.json`, field by field, so that an error names the field that is wrong.

The file holds a SHA-256 of all its other entries, which shows whether it was changed after it was written. Folders of
emokd 0.1 have none and are read without it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import emokd
from emokd.errors import InputError, excerpt
from emokd.models.fusion import FUSIONS
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec
from emokd.models.precision import PRECISION_NAMES
from emokd.models.preprocessing import Preprocessing
from emokd.models.registry import BACKBONES
from emokd.weights.fields import Fields
from emokd.weights.seal import SEAL, sealed
from emokd.weights.seen_as import CROPS, FITS, SeenAs

Spec = NetworkSpec | MultimodalSpec

FORMAT = 1
DESCRIPTION = "model.json"
REMEDY = "Import or train the model again, or restore the folder from where it came."

LARGEST_SIDE = 4096
"""Largest side in pixels of a network's input or of a canvas; a larger one is taken for damage."""
LARGEST = 100_000
"""Largest number of outputs, width or option of a network; a larger one is taken for damage. It also bounds what a
damaged file can make us compute."""
LAYERS = {"depth": 256, "recursions": 256}
"""Largest value of the options that count layers, each of which takes time to build."""
LARGEST_FILE = 1 << 27


def read_description(folder: pathlib.Path) -> dict[str, Any]:
    """Reads a model folder's `model.json`, and checks its own hash if it has one.

    Raises:
      InputError: it is no model folder, or the file is damaged or of another version.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        found = excerpt(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise InputError(f"{folder} is not a model folder: it has no {DESCRIPTION} ({found or 'it is empty'}).")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, too many for a description. {REMEDY}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is not JSON: {error}. {REMEDY}") from error
    description = Fields(content, str(path), remedy=REMEDY)
    if missing := {"format", "spec", "provenance", "weights_sha256"} - set(content):
        raise InputError(f"{path} lacks {excerpt(sorted(missing))}. {REMEDY}")
    if content["format"] != FORMAT:
        raise InputError(
            f"{path} has format {str(content['format'])[:20]}, written by emokd {str(content.get('emokd'))[:20]}; this "
            f"is emokd {emokd.__version__}, which reads format {FORMAT}. Use the version that wrote it."
        )
    description.text("weights_sha256")
    description.inner("provenance")
    spec_from_json(content["spec"], str(path))
    if SEAL in content and sealed(content)[SEAL] != content[SEAL]:
        raise InputError(
            f"{path} is not what was written with the model (its sha256 differs): class names, normalisation or "
            f"origin may be wrong. {REMEDY} If you changed it on purpose, remove its entry {SEAL}."
        )
    return dict(content)


def seen_as(spec: Spec, provenance: Mapping[str, Any], source: str) -> SeenAs:
    """How training turned pictures into squares and computed on them, from a model's provenance.

    For imported weights: pictures cropped to the network's own size, and faces cut out around their landmarks.

    Raises:
      InputError: the provenance is damaged; `source` says whose.
    """
    origin = Fields(provenance, source, "provenance", REMEDY)
    crop = origin.text("face_crop", CROPS) if provenance.get("face_crop") else CROPS[0]
    if not provenance.get("config"):
        return SeenAs(_largest_side(spec), FITS[0], crop)
    try:
        values = json.loads(origin.text("config"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: provenance.config is not JSON: {error}. {REMEDY}") from error
    config = Fields(values, source, "provenance.config", REMEDY)
    data = config.inner("data")
    return SeenAs(
        canvas=data.whole("canvas", 1, LARGEST_SIDE),
        fit=data.text("fit", FITS),
        face_crop=crop,
        precision=config.text("precision", PRECISION_NAMES) if "precision" in values else "float32",
        mirror=config.flag("mirror") if "mirror" in values else False,
    )


def _largest_side(spec: Spec) -> int:
    """The side in pixels of a network's largest picture input; 1 where it has none."""
    if isinstance(spec, NetworkSpec):
        return spec.preprocessing.size
    return max((m.preprocessing.size for m in spec.modalities.values() if m.preprocessing is not None), default=1)


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A specification as JSON values. A network in floating point reads as it did before there were others."""
    values = dataclasses.asdict(spec)
    if not values.get("quantized", True):
        del values["quantized"]
    return values


def spec_from_json(values: Any, source: str) -> Spec:
    """Inverse of `spec_to_json`.

    Raises:
      InputError: a key is missing or unknown, or a value is of another type or out of range; `source` says where.
    """
    spec = Fields(values, source, "spec", REMEDY)
    return _multimodal(spec) if "modalities" in values else _network(spec)


def _network(spec: Fields) -> NetworkSpec:
    spec.require(["backbone", "options", "heads", "classes", "preprocessing", "dropout"], ["quantized"])
    heads = _heads(spec)
    return NetworkSpec(
        backbone=_backbone(spec),
        options=spec.options("options", LARGEST, LAYERS),
        heads=heads,
        classes=_classes(spec, heads),
        preprocessing=_preprocessing(spec.inner("preprocessing")),
        dropout=spec.number("dropout", 0, 1),
        quantized="quantized" in spec and spec.flag("quantized"),
    )


def _multimodal(spec: Fields) -> MultimodalSpec:
    spec.require([field.name for field in dataclasses.fields(MultimodalSpec)])
    heads, modalities = _heads(spec), spec.inner("modalities")
    return MultimodalSpec(
        modalities={name: _modality(modalities.inner(name)) for name in modalities},
        hallucinated=spec.texts("hallucinated"),
        width=spec.whole("width", 1, LARGEST),
        fusion=spec.text("fusion", tuple(FUSIONS)),
        fusion_options=spec.options("fusion_options", LARGEST, LAYERS),
        hallucination=spec.options("hallucination", LARGEST, LAYERS),
        heads=heads,
        classes=_classes(spec, heads),
        dropout=spec.number("dropout", 0, 1),
    )


def _modality(modality: Fields) -> ModalitySpec:
    modality.require([field.name for field in dataclasses.fields(ModalitySpec)])
    seen = modality["preprocessing"]
    return ModalitySpec(
        input=modality.text("input"),
        shape=modality.wholes("shape", 1, 100 * LARGEST),
        backbone=_backbone(modality),
        options=modality.options("options", LARGEST, LAYERS),
        preprocessing=None if seen is None else _preprocessing(modality.inner("preprocessing")),
        standardize=modality.text("standardize", ("columns", "all")),
    )


def _backbone(fields: Fields) -> str:
    """A known backbone's name, or an import path; `create_backbone` checks whether the path is trusted."""
    name = fields.text("backbone")
    return name if ":" in name else fields.text("backbone", tuple(BACKBONES))


def _heads(spec: Fields) -> dict[str, int]:
    heads = spec.inner("heads")
    return {name: heads.whole(name, 1, LARGEST) for name in heads}


def _classes(spec: Fields, heads: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    fields = spec.inner("classes")
    classes = {head: fields.texts(head) for head in fields}
    for head, names in classes.items():
        if head in heads and len(names) != heads[head]:
            raise fields.wrong_count(head, len(names), heads[head])
    return classes


def _preprocessing(seen: Fields) -> Preprocessing:
    seen.require(["size", "mean", "std", "channels"])
    channels = seen.whole("channels", 1, 3)
    return Preprocessing(
        size=seen.whole("size", 1, LARGEST_SIDE),
        mean=seen.numbers("mean", channels, -1e4, 1e4),
        std=seen.numbers("std", channels, 1e-4, 1e4),
        channels=channels,
    )
