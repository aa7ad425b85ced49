"""Reads PyTorch checkpoints and safetensors files without executing anything in them."""

import pathlib
import re
from typing import Any

import numpy as np

from emokd.errors import InputError, excerpt
from emokd.weights.wrapping import flatten_containers

SMALL = 1 << 20
"""A tensor of more bytes is refused if it repeats fewer bytes of the file (`torch.expand`)."""


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the state dicts of a PyTorch file, unpickling nothing but tensors and plain containers.

    Returns:
      Arrays by their place in the file and their name (see `wrapping.flatten_containers`).

    Raises:
      InputError: PyTorch is not installed, the file is damaged, is no state dict, or needs code to be executed,
        as a whole pickled module does.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"Reading {path} needs PyTorch. Install it: pip install emokd[torch]. (A .safetensors file needs nothing.)"
        ) from error
    try:
        with path.open("rb") as file:  # given a path, PyTorch would go by its suffix
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise _unreadable(path, str(error) or type(error).__name__) from error
    if not isinstance(loaded, dict):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}, not a state dict. Save `model.state_dict()` instead."
        )
    return {name: _to_numpy(torch, value, name, path) for name, value in flatten_containers(loaded, str(path)).items()}


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a .safetensors file; half-precision arrays of either kind are widened to float32.

    Raises:
      InputError: the file is missing, damaged or of another format.
    """
    # The NumPy reader does not know bfloat16; this one does.
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    try:
        loaded = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}. Fetch or write the file again.") from error
    except AttributeError as error:  # a type that NumPy lacks
        raise InputError(
            f"{path} holds arrays of a type that is not read ({error}), such as 8-bit floating point. Save float32 or "
            "float16."
        ) from error
    return flatten_containers({name: _widen(np.asarray(value)) for name, value in loaded.items()}, str(path))


def _widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _to_numpy(torch: Any, value: Any, name: str, path: pathlib.Path) -> np.ndarray:
    if kind := _oddity(torch, value):
        raise InputError(
            f"{path}: {name!r} is {kind}, not a dense array of ordinary numbers. Save the arrays as such, where the "
            f"model is at hand: torch.save({{k: v.float().contiguous() for k, v in model.state_dict().items()}}, "
            f"'weights.pt')."
        )
    value = value.detach().resolve_neg()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _oddity(torch: Any, value: Any) -> str:
    """What is wrong with a value that should be a tensor of numbers, found without allocating; empty if nothing is."""
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return f"a {value.layout} {value.dtype} tensor"
    if value.device.type != "cpu":
        return f"a tensor on {value.device.type!r}, without numbers"
    ordinary = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8)
    if value.dtype not in (*ordinary, torch.int8, torch.int16, torch.int32, torch.int64):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    if value.numel() * value.element_size() > max(value.untyped_storage().nbytes(), SMALL):
        return f"a view of shape {tuple(value.shape)} that repeats {value.untyped_storage().nbytes():,} bytes"
    return ""


def _unreadable(path: pathlib.Path, reason: str) -> InputError:
    needed = sorted(set(re.findall(r"Unsupported global: GLOBAL (\S+)", reason)))
    if not needed:
        return InputError(f"{path} cannot be read as a PyTorch checkpoint: {reason.splitlines()[0]}. Fetch it again.")
    return InputError(
        f"{path} holds Python objects ({excerpt(needed)}), like a whole pickled module; opening it would execute "
        f"code from the file, so it was not opened. If you trust it, save its arrays where its code is installed:\n"
        f"  import torch\n"
        f"  model = torch.load({path.name!r}, map_location='cpu', weights_only=False)\n"
        f"  torch.save(model.state_dict() if hasattr(model, 'state_dict') else model['state_dict'], 'weights.pt')"
    )
