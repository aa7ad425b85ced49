"""The other side: a plain PyTorch training step, eager, in channels_last, and compiled."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensor(values: Any, variant: str = "") -> torch.Tensor:
    """An array on the device; pictures [B, H, W, C] become [B, C, H, W] in the variant's memory format."""
    found = torch.tensor(np.array(values), device=DEVICE)
    if found.dtype in (torch.int32, torch.uint32):
        found = found.long()
    if found.ndim != 4:
        return found
    planes = found.permute(0, 3, 1, 2)
    return planes.contiguous(
        memory_format=torch.channels_last if "channels_last" in variant else torch.contiguous_format
    )


def place(module: nn.Module, variant: str) -> nn.Module:
    """A module on the device in the variant's memory format."""
    module = module.to(DEVICE)
    return module.to(memory_format=torch.channels_last) if "channels_last" in variant else module


def prepare(function: Callable, variant: str) -> Callable:
    """A function as the variant runs it."""
    # Where it leaves the graph, as at GeomLoss's diameter, it says so in twenty lines.
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    return torch.compile(function) if "compiled" in variant else function


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """PyTorch's fastest Adam."""
    return torch.optim.Adam(parameters, learning_rate, fused=True)


def half_precision() -> contextlib.AbstractContextManager:
    """Networks compute in bfloat16 on a GPU, as ours do there."""
    return torch.autocast("cuda", torch.bfloat16) if DEVICE.type == "cuda" else contextlib.nullcontext()


def finish() -> None:
    """Waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def training_call(
    loss: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    parameters: Iterable[nn.Parameter],
    variant: str,
    learning_rate: float = 1e-4,
) -> Callable[[], float]:
    """A call that takes a whole training step (forward, backward, Adam) and gives its loss when it is done.

    Args:
      loss: inputs to a scalar; compiled where the variant says so.
      inputs: its arguments, on the device.
      parameters: what learns.
      variant: one of `side_by_side.PICTURES` or `ARRAYS`.
      learning_rate: of Adam.
    """
    prepared, optimizer = prepare(loss, variant), adam(parameters, learning_rate)

    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        with half_precision():
            value = prepared(*inputs)
        value.backward()
        optimizer.step()
        finish()
        return value.item()

    return call
