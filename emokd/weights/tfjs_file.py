"""Reads TensorFlow.js manifests: a JSON table of arrays, and files of bytes ("shards") beside it."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from emokd.errors import InputError, excerpt

STORED: Mapping[str, np.dtype] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int32": np.dtype("<i4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
AGAIN = "Fetch the manifest and all its files again, from one place."


def read_tfjs(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a `...-weights_manifest.json`, or of a `model.json` with a "weightsManifest".

    Quantised weights (integers) become float32: value * scale + min, with their array's scale and min.

    Returns:
      Arrays by name, in TensorFlow's order of axes.

    Raises:
      InputError: it is no such manifest, a shard is missing or not as long as the manifest says, or an array has an
        unknown type. Sizes are checked before anything is read.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, group in enumerate(_groups(path)):
        entries = [_Entry(path, weight) for weight in group["weights"]]
        raw = _read_shards(path, group["paths"], sum(entry.bytes for entry in entries), number)
        start = 0
        for entry in entries:
            if entry.name in arrays:
                raise InputError(f"{path} names {entry.name!r} twice. {AGAIN}")
            arrays[entry.name] = entry.decode(raw[start : start + entry.bytes])
            start += entry.bytes
    return arrays


def shards_of(path: pathlib.Path) -> list[pathlib.Path]:
    """The paths of a manifest's shards. The manifest must have been checked by `read_tfjs` before."""
    return [path.parent / name for group in _groups(path) for name in group["paths"]]


def is_manifest(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a JSON value looks like the groups of a manifest."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(group, dict)
            and isinstance(group.get("paths"), list)
            and all(isinstance(name, str) for name in group["paths"])
            and isinstance(group.get("weights"), list)
            for group in value
        )
    )


class _Entry:
    """What a manifest says of one array."""

    def __init__(self, path: pathlib.Path, weight: Any):
        self.path = path
        if not isinstance(weight, dict) or not isinstance(weight.get("name"), str):
            raise InputError(f"{path}: an array of the manifest has no name. {AGAIN}")
        self.name = weight["name"]
        shape = weight.get("shape")
        if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
            raise InputError(f"{path}: the shape of {self.name!r} is {shape!r}, not a list of sizes. {AGAIN}")
        self.shape: Sequence[int] = shape
        self.quantization: Mapping[str, Any] = weight.get("quantization") or {}
        kind = self.quantization.get("dtype", weight.get("dtype"))
        if not isinstance(kind, str) or kind not in STORED:
            raise InputError(
                f"{path}: {self.name!r} is stored as {kind!r}, which cannot be read. Known: {', '.join(STORED)}."
            )
        self.stored = STORED[kind]
        self.scaled = bool(self.quantization) and kind != "float16"
        if self.scaled and not all(_is_number(self.quantization.get(key)) for key in ("scale", "min")):
            raise InputError(f"{path}: the quantization of {self.name!r} has no scale and min. {AGAIN}")
        self.bytes = math.prod(self.shape) * self.stored.itemsize

    def decode(self, raw: bytes) -> np.ndarray:
        """The array, dequantised."""
        array = np.frombuffer(raw, self.stored).reshape(self.shape)
        if self.scaled:
            # In double precision and then rounded once, as in JavaScript.
            array = array.astype(np.float64) * self.quantization["scale"] + self.quantization["min"]
        return array.astype(np.float32) if array.dtype.kind == "f" else array


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _groups(path: pathlib.Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}. {AGAIN}") from error
    groups = value.get("weightsManifest") if isinstance(value, dict) else value
    if isinstance(value, dict) and isinstance(value.get("weight_map"), dict):
        raise InputError(
            f"{path} is the index of weights that lie in several files, which are not read one by one. Join them into "
            "one, where the model is at hand: torch.save(model.state_dict(), 'weights.pt')."
        )
    if not is_manifest(groups):
        raise InputError(
            f"{path} is no manifest of TensorFlow.js, which is a list of groups with 'paths' and 'weights'. "
            f"Give the file that is called ...-weights_manifest.json or model.json."
        )
    return groups


def _read_shards(path: pathlib.Path, names: Sequence[str], expected: int, group: int) -> bytes:
    files = []
    for name in names:
        if pathlib.PurePosixPath(name).name != name or "\\" in name:
            raise InputError(f"{path} names the file {name!r}, which is not beside it. Put it there, and name it so.")
        files.append(path.parent / name)
    if missing := [file.name for file in files if not file.is_file()]:
        raise InputError(f"{path} needs {excerpt(missing)} beside it in {path.parent}, and finds none. {AGAIN}")
    total = sum(file.stat().st_size for file in files)
    if total != expected:
        raise InputError(
            f"{path}: the arrays of group {group + 1} take {expected:,} bytes, but {excerpt([f.name for f in files])} "
            f"hold {total:,}. {AGAIN}"
        )
    return b"".join(file.read_bytes() for file in files)
