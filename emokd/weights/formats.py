"""Recognises the format of a weights file by its first bytes, or by its suffix where these say nothing."""

import pathlib
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from emokd.errors import InputError
from emokd.weights.keras_file import KERAS_3, read_keras
from emokd.weights.mapping import KERAS, TFJS, TORCH, Layout
from emokd.weights.tfjs_file import read_tfjs
from emokd.weights.torch_file import read_safetensors, read_torch

Reader = Callable[[pathlib.Path], dict[str, np.ndarray]]
PYTORCH: tuple[Reader, Layout] = (read_torch, TORCH)
SAFETENSORS: tuple[Reader, Layout] = (read_safetensors, TORCH)
HDF5: tuple[Reader, Layout] = (read_keras, KERAS)
MANIFEST: tuple[Reader, Layout] = (read_tfjs, TFJS)
FORMATS: Mapping[str, tuple[Reader, Layout]] = {
    **dict.fromkeys((".pth", ".pt", ".bin", ".tar", ".ckpt", ".pkl"), PYTORCH),
    ".safetensors": SAFETENSORS,
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".json": MANIFEST,
}
"""Reader and layout for the last suffix of a file's name (PyTorch's "resnet18.pth.tar" is no archive)."""

HEAD = 4096
PICKLED = "Export it with the framework that wrote it as a PyTorch state dict or as .safetensors."
OTHERS: Mapping[str, str] = {
    ".onnx": f"ONNX graphs are not read, for they have no names of layers to go by. {PICKLED}",
    ".tflite": f"TensorFlow Lite is not read. {PICKLED}",
    ".pb": f"TensorFlow graphs are not read. {PICKLED}",
    ".npz": "Arrays of NumPy are not read. Save them by safetensors.numpy.save_file, under the framework's names.",
    ".msgpack": f"Flax files are not read. {PICKLED}",
}


def read_file(path: pathlib.Path) -> tuple[dict[str, np.ndarray], Layout]:
    """Reads the arrays in a weights file, and gives the layout of the framework that wrote it.

    Raises:
      InputError: there is no such file, or its format is unknown or damaged.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}. Correct the path.")
    reader = recognise(path)
    if reader is None and (manifest := _manifest_of(path)):
        raise InputError(f"{path} holds the bytes of a TensorFlow.js model. Give its manifest instead: {manifest}.")
    reader = reader or FORMATS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} is of no known format, by its first bytes nor by its suffix. Known: PyTorch "
            f"({', '.join(suffix for suffix, kind in FORMATS.items() if kind is PYTORCH)}), .safetensors, Keras "
            f"(.h5, .hdf5), TensorFlow.js (...-weights_manifest.json). {OTHERS.get(path.suffix.lower(), PICKLED)}"
        )
    read, layout = reader
    return read(path), layout


def recognise(path: pathlib.Path) -> tuple[Reader, Layout] | None:
    """The reader and layout for a file, by its first bytes; None if they say nothing.

    Raises:
      InputError: the file is recognised as something else than weights; the message has the remedy.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path)
    # An HDF5 file may begin with a user block.
    if any(head[start : start + 8] == b"\x89HDF\r\n\x1a\n" for start in (0, 512, 1024, 2048)):
        return HDF5
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PYTORCH
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"[", b"{"):
        return MANIFEST
    for begin, what in (
        (b"version https://git-lfs", "only a pointer to a file in Git LFS. Fetch the file itself: git lfs pull"),
        (b"<", "a web page or XML, not weights. Fetch the file itself, not the page that shows it"),
        (b"\x1f\x8b", "compressed by gzip. Unpack it: gunzip, or tar -xzf"),
        (b"BZh", "compressed by bzip2. Unpack it first"),
        (b"\xfd7zXZ", "compressed by xz. Unpack it first"),
        (b"7z\xbc\xaf", "a 7z archive. Unpack it first"),
        (b"Rar!", "a RAR archive. Unpack it first"),
    ):
        if text.startswith(begin) or head.startswith(begin):
            raise InputError(f"{path} is {what}.")
    if head[257:262] == b"ustar":
        raise InputError(f"{path} is a tar archive. Unpack it (tar -xf), and give the weights file in it.")
    return None


def _recognise_zip(path: pathlib.Path) -> tuple[Reader, Layout] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # its reader says what is wrong
    if any(name.endswith("constants.pkl") for name in names) and any("/code/" in name for name in names):
        raise InputError(
            f"{path} is a TorchScript archive: a program with its weights. It was not run. If you trust it, save its "
            f"weights alone:\n  import torch\n"
            f"  torch.save(torch.jit.load({path.name!r}, map_location='cpu').state_dict(), 'weights.pt')"
        )
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return PYTORCH
    if any(name.endswith(".weights.h5") for name in names):
        raise InputError(f"{path} is a .keras archive. {KERAS_3}")
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(f"{path} holds arrays of NumPy. {OTHERS['.npz']}")
    if any(name == "saved_model.pb" or name.endswith("/saved_model.pb") for name in names):
        raise InputError(f"{path} holds a SavedModel. {OTHERS['.pb']}")
    raise InputError(f"{path} is an archive ({len(names)} files). Unpack it, and give the weights file in it.")


def _manifest_of(path: pathlib.Path) -> str:
    """The name of a TensorFlow.js manifest beside `path` that lists it as a shard; empty where there is none."""
    if path.suffix.lower() not in ("", ".bin"):
        return ""
    for other in sorted(path.parent.glob("*.json")):
        try:
            if f'"{path.name}"' in other.read_text(encoding="utf-8")[: 1 << 20]:
                return other.name
        except (OSError, UnicodeError):
            continue
    return ""
