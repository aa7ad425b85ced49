"""Our portable model: a folder with `model.json` (what it is) and `weights.safetensors` (its arrays).

    model.json           {"format", "emokd", "spec", "provenance", "weights_sha256"}
    weights.safetensors  "params/backbone/..." and "stats/backbone/...", float32

Nothing in it can execute code, and any language reads it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

import emokd
from emokd.errors import InputError, excerpt
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, TrainedModel, Tree, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights.mapping import compare, flatten, refuse, unflatten

Spec = NetworkSpec | MultimodalSpec

FORMAT = 1
DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
REMEDY = "Import or train the model again, or restore the folder from where it came:"


@dataclasses.dataclass(frozen=True)
class SeenAs:
    """How pictures became squares in a model's training, and what the model computed in.

    Attributes:
      canvas: side of the stored square, pixels.
      fit: "crop", "squash" or "pad".
      face_crop: how faces were cut out, "landmarks" or "box".
      precision: a name in `models.network.PRECISIONS`.
      mirror: whether its scores are of valence and arousal averaged with the mirrored picture's.
    """

    canvas: int
    fit: str
    face_crop: str
    precision: str = "float32"
    mirror: bool = False


def save_model(
    folder: str | pathlib.Path, spec: Spec, params: Tree, stats: Tree, provenance: Mapping[str, Any]
) -> None:
    """Writes a model folder whole or not at all; an older model in its place is replaced.

    Args:
      folder: where; its parents are made.
      spec: the architecture.
      params: its parameters, arrays on host or device.
      stats: its BatchNorm statistics.
      provenance: where the weights came from: JSON values, such as the source file's name and sha256.

    Raises:
      InputError: the arrays do not fit `spec` or are not finite, `folder` holds something else, or it cannot
        be written.
    """
    folder = pathlib.Path(folder)
    # Not `ascontiguousarray`, which makes a scalar an array of one.
    leaves = {path: np.asarray(leaf, order="C") for path, leaf in flatten({"params": params, "stats": stats}).items()}
    abstract = _abstract(spec)
    _check(leaves, abstract, str(folder))
    weights = safetensors.numpy.save(
        {path: leaves[path].astype(leaf.dtype) for path, leaf in flatten(abstract).items()}
    )
    description = {
        "format": FORMAT,
        "emokd": emokd.__version__,
        "spec": spec_to_json(spec),
        "provenance": dict(provenance),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(description, indent=2) + "\n"
    with _new_folder(folder) as temporary:
        _write(temporary / WEIGHTS, weights)
        _write(temporary / DESCRIPTION, text.encode())


def load_model(folder: str | pathlib.Path) -> tuple[Spec, Tree, Tree, dict[str, Any]]:
    """Reads a model folder.

    Returns:
      (spec, params, stats, provenance); the arrays are NumPy's, on the host.

    Raises:
      InputError: it is no model folder, is damaged, or its weights do not fit its description; every difference
        is listed.
    """
    folder = pathlib.Path(folder)
    description = _read_description(folder)
    spec = spec_from_json(description["spec"], str(folder / DESCRIPTION))
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{folder} has no {WEIGHTS}. {REMEDY[:-1]}.")
    if model_hash(folder) != description["weights_sha256"]:
        raise InputError(f"{weights} is not the file that {DESCRIPTION} describes (its sha256 differs). {REMEDY[:-1]}.")
    try:
        leaves = safetensors.numpy.load_file(weights)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{weights} cannot be read as safetensors: {error}. {REMEDY[:-1]}.") from error
    abstract = _abstract(spec)
    _check(leaves, abstract, str(weights))
    tree = unflatten(leaves, abstract)
    return spec, tree["params"], tree["stats"], description["provenance"]


def load_trained(folder: str | pathlib.Path) -> TrainedModel:
    """Reads a model folder as one of the networks of a run.

    Raises:
      InputError: as `load_model`.
    """
    spec, params, stats, _ = load_model(folder)
    folder = pathlib.Path(folder)
    return TrainedModel(spec, params, stats, origin=f"{folder.name} (sha256 {model_hash(folder)[:16]})")


def require_pictures(model: TrainedModel, source: str) -> TrainedModel:
    """The model, if one picture is all it takes.

    Raises:
      InputError: it takes several modalities; `source` says which model.
    """
    if isinstance(model.spec, MultimodalSpec):
        inputs = ", ".join(modality.input for modality in model.spec.modalities.values())
        raise InputError(f"{source} takes {inputs}, not a picture alone. Name a network of pictures.")
    return model


def load_with_canvas(folder: str | pathlib.Path) -> tuple[TrainedModel, SeenAs]:
    """Reads a model folder, and how its training made pictures into squares and computed on them.

    That is known of a student, from its provenance. Imported weights are shown pictures cropped to the network's own
    size, and faces cut out around their landmarks.

    Raises:
      InputError: as `load_model`.
    """
    model = load_trained(folder)
    provenance = _read_description(pathlib.Path(folder))["provenance"]
    crop = provenance.get("face_crop") or "landmarks"
    if not provenance.get("config"):
        return model, SeenAs(_largest_side(model.spec), "crop", crop)
    values = json.loads(provenance["config"])
    data = values["data"]
    precision, mirror = values.get("precision", "float32"), bool(values.get("mirror", False))
    return model, SeenAs(data["canvas"], data["fit"], crop, precision, mirror)


def _largest_side(spec: Spec) -> int:
    """The side of the largest pictures that a network is shown; 1 where it is shown none."""
    if isinstance(spec, NetworkSpec):
        return spec.preprocessing.size
    return max((m.preprocessing.size for m in spec.modalities.values() if m.preprocessing is not None), default=1)


def provenance(folder: str | pathlib.Path) -> dict[str, Any]:
    """Where a model folder's weights came from, and what is known of the data that they learnt from.

    Raises:
      InputError: it is no model folder.
    """
    return _read_description(pathlib.Path(folder))["provenance"]


def model_hash(folder: str | pathlib.Path) -> str:
    """SHA-256 of a model folder's weights, hexadecimal: the name by which runs refer to it."""
    with (pathlib.Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """A specification as JSON values."""
    return dataclasses.asdict(spec)


def spec_from_json(values: Mapping[str, Any], source: str) -> Spec:
    """Inverse of `spec_to_json`.

    Raises:
      InputError: a key is missing or unknown; `source` says where.
    """
    try:
        classes = {head: tuple(names) for head, names in values["classes"].items()}
        if "modalities" not in values:
            seen = _preprocessing(values["preprocessing"])
            return NetworkSpec(**{**values, "classes": classes, "preprocessing": seen})
        modalities = {
            name: ModalitySpec(
                **{
                    **modality,
                    "shape": tuple(modality["shape"]),
                    "preprocessing": modality["preprocessing"] and _preprocessing(modality["preprocessing"]),
                }
            )
            for name, modality in values["modalities"].items()
        }
        hallucinated = tuple(values["hallucinated"])
        return MultimodalSpec(**{**values, "classes": classes, "modalities": modalities, "hallucinated": hallucinated})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{source} does not describe a network of this version of emokd: {error}.") from error


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _abstract(spec: Spec) -> Tree:
    params, stats = functional(spec).abstract
    return {"params": params, "stats": stats}


def _check(leaves: Mapping[str, np.ndarray], abstract: Tree, source: str) -> None:
    problems = []
    expected = flatten(abstract)
    for path, leaf in expected.items():
        if path not in leaves:
            problems.append(f"{path}: expected {leaf.shape}, found nothing")
        elif problem := compare(path, leaf, leaves[path]):
            problems.append(problem)
    problems += [
        f"{path}: expected nothing, found {leaf.shape}" for path, leaf in leaves.items() if path not in expected
    ]
    refuse(problems, source, REMEDY)


def _read_description(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        found = excerpt(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise InputError(f"{folder} is not a model folder: it has no {DESCRIPTION} ({found or 'it is empty'}).")
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. {REMEDY[:-1]}.") from error
    missing = {"format", "spec", "provenance", "weights_sha256"} - set(description)
    if missing:
        raise InputError(f"{path} lacks {excerpt(sorted(missing))}. {REMEDY[:-1]}.")
    if description["format"] != FORMAT:
        raise InputError(
            f"{path} has format {description['format']}, written by emokd {description.get('emokd')}; this is emokd "
            f"{emokd.__version__}, which reads format {FORMAT}. Use the version that wrote it."
        )
    return description


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary folder that takes `folder`'s place when the block ends, and disappears when it fails."""
    if folder.exists() and not (folder / DESCRIPTION).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a model folder. Choose another place, or remove it.")
    unique = uuid.uuid4().hex[:8]
    temporary = folder.with_name(f".{folder.name}.{unique}.tmp")
    old = folder.with_name(f".{folder.name}.{unique}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        raise InputError(
            f"The model folder {folder} cannot be written: {error.strerror or error}. Nothing was changed; free space "
            f"or choose another place."
        ) from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def _write(path: pathlib.Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
