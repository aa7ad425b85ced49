"""Reads PyTorch checkpoints and safetensors files without executing anything in them."""

import pathlib
import re
from typing import Any

import numpy as np

from emokd.errors import InputError, excerpt
from emokd.weights.mapping import unwrap


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a .pth, .pt or .bin file, in evaluation of nothing but tensors and plain containers.

    Returns:
      Arrays by name, without the wrappers that `mapping.unwrap` knows.

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
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever the bytes lead to
        raise _unreadable(path, str(error) or type(error).__name__) from error
    if not isinstance(loaded, dict):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}, not a state dict. Save `model.state_dict()` instead."
        )
    return {name: _to_numpy(torch, value, name, path) for name, value in unwrap(loaded, str(path)).items()}


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
    return unwrap({name: _widen(np.asarray(value)) for name, value in loaded.items()}, str(path))


def _widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _to_numpy(torch: Any, value: Any, name: str, path: pathlib.Path) -> np.ndarray:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        kind = type(value).__name__ if not isinstance(value, torch.Tensor) else f"{value.layout} {value.dtype} tensor"
        raise InputError(
            f"{path}: {name!r} is a {kind}, not a dense array. If the file wraps its state dict in further dicts, "
            f"save the inner one alone: torch.save(loaded[...], 'weights.pt')."
        )
    value = value.detach()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _unreadable(path: pathlib.Path, reason: str) -> InputError:
    needed = sorted(set(re.findall(r"Unsupported global: GLOBAL (\S+)", reason)))
    if not needed:
        return InputError(f"{path} cannot be read as a PyTorch checkpoint: {reason.splitlines()[0]}. Fetch it again.")
    return InputError(
        f"{path} holds Python objects ({excerpt(needed)}), like a whole pickled module; opening it would execute "
        f"code from the file, so it was not opened. If you trust it, save its arrays where its code is installed:\n"
        f"  model = torch.load({path.name!r}, map_location='cpu', weights_only=False)\n"
        f"  torch.save(model.state_dict() if hasattr(model, 'state_dict') else model['state_dict'], 'weights.pt')"
    )
