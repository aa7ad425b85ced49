"""Reads and writes our portable model: a folder with `model.json` (what it is) and `weights.safetensors` (its arrays).

    model.json           {"format", "emokd", "spec", "provenance", "weights_sha256", "description_sha256"}
    weights.safetensors  "params/backbone/..." and "stats/backbone/...", float32

Nothing in it can execute code, and any language reads it.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

import emokd
from emokd.errors import InputError
from emokd.files import folder_written_whole, write_whole
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import NetworkSpec, TrainedModel, Tree, functional
from emokd.weights.description import (
    DESCRIPTION,
    FORMAT,
    REMEDY,
    Spec,
    read_description,
    sealed,
    seen_as,
    spec_from_json,
    spec_to_json,
)
from emokd.weights.mapping import compare, flatten, refuse, unflatten
from emokd.weights.seen_as import SeenAs

WEIGHTS = "weights.safetensors"


def save_model(
    folder: str | pathlib.Path, spec: Spec, params: Tree, stats: Tree, provenance: Mapping[str, Any]
) -> None:
    """Writes a model folder whole or not at all; an older model in its place is replaced.

    Args:
      folder: the folder to write; its parents are created.
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
    abstract = _abstract(spec, f"The specification for {folder}")
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
    text = json.dumps(sealed(json.loads(json.dumps(description))), indent=2) + "\n"
    with _new_folder(folder) as temporary:
        write_whole(temporary / WEIGHTS, weights)
        write_whole(temporary / DESCRIPTION, text.encode())


def load_model(folder: str | pathlib.Path) -> tuple[Spec, Tree, Tree, dict[str, Any]]:
    """Reads a model folder.

    Returns:
      (spec, params, stats, provenance); the arrays are NumPy's, on the host.

    Raises:
      InputError: it is no model folder, is damaged, or its weights do not fit its description; every difference
        is listed.
    """
    folder = pathlib.Path(folder)
    description = read_description(folder)
    spec = spec_from_json(description["spec"], str(folder / DESCRIPTION))
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{folder} has no {WEIGHTS}. {REMEDY}")
    if model_hash(folder) != description["weights_sha256"]:
        raise InputError(f"{weights} is not the file that {DESCRIPTION} describes (its sha256 differs). {REMEDY}")
    try:
        leaves = safetensors.numpy.load_file(weights)
    except (safetensors.SafetensorError, OSError, AttributeError) as error:  # the last one of types NumPy lacks
        raise InputError(f"{weights} cannot be read as safetensors: {error}. {REMEDY}") from error
    abstract = _abstract(spec, str(folder / DESCRIPTION))
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
    """Reads a model folder, and how its training turned pictures into squares and computed on them.

    The latter is from its provenance, see `description.seen_as`.

    Raises:
      InputError: as `load_model`; or the network cannot process pictures of the size that its description says.
    """
    model = load_trained(folder)
    place = str(pathlib.Path(folder) / DESCRIPTION)
    found = seen_as(model.spec, provenance(folder), place)
    if isinstance(model.spec, NetworkSpec):
        _check_pictures(model, place)
    return model, found


def _check_pictures(model: TrainedModel, place: str) -> None:
    """Traces the network on a picture of its own size without computing anything; `place` is the file, for messages."""
    seen = model.spec.preprocessing
    image = jax.ShapeDtypeStruct((1, seen.size, seen.size, seen.channels), jnp.float32)
    try:
        jax.eval_shape(functional(model.spec), model.params, model.stats, image)
    except Exception as error:  # each architecture has its own conditions
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{place}: the network cannot look at a picture of shape {image.shape[1:]}: {reason}. {REMEDY}"
        ) from error


def provenance(folder: str | pathlib.Path) -> dict[str, Any]:
    """Where a model folder's weights came from, and what is known of the data that they were trained on.

    Raises:
      InputError: it is no model folder.
    """
    return read_description(pathlib.Path(folder))["provenance"]


def model_hash(folder: str | pathlib.Path) -> str:
    """SHA-256 of a model folder's weights, hexadecimal: the name by which runs refer to it."""
    with (pathlib.Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _abstract(spec: Spec, source: str) -> Tree:
    try:
        params, stats = functional(spec).abstract
    except Exception as error:  # each architecture has its own conditions
        if isinstance(error, InputError):
            raise InputError(f"{source}: {error}") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{source} describes a network that cannot be built: {reason}. {REMEDY}") from error
    return {"params": params, "stats": stats}


def _check(leaves: Mapping[str, np.ndarray], abstract: Tree, source: str) -> None:
    problems = []
    expected = flatten(abstract)
    for path, leaf in expected.items():
        if path not in leaves:
            problems.append(f"{path}: expected {leaf.shape}, found nothing")
        elif problem := compare(path, leaf, leaves[path]):
            problems.append(problem)
        elif path.startswith("stats/") and path.endswith("/var") and (below := int((leaves[path] < 0).sum())):
            problems.append(f"{path}: expected variances, found {below} of {leaves[path].size} below 0")
    problems += [
        f"{path}: expected nothing, found {leaf.shape}" for path, leaf in leaves.items() if path not in expected
    ]
    refuse(problems, source, f"{REMEDY[:-1]}:")


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes a temporary folder that replaces `folder` when the block ends, and is removed when the block fails."""
    if folder.exists() and not (folder / DESCRIPTION).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a model folder. Choose another place, or remove it.")
    try:
        with folder_written_whole(folder) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(
            f"The model folder {folder} cannot be written: {error.strerror or error}. Nothing was changed; free space "
            f"or choose another place."
        ) from error
