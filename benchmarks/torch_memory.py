"""PyTorch's side of memory.py's host table: a plain training loop in a process of its own.

    python benchmarks/torch_memory.py PICTURES.npz STEPS EVERY FOLDER

Prints the resident bytes at every training batch as one JSON list. It imports nothing of emokd.
"""

import json
import pathlib
import resource
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

BATCH, WIDTH, KEPT = 32, 4, 2


def resident_bytes() -> int:
    """The process's resident memory, from Linux's /proc."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def create_network(classes: int) -> nn.Module:
    """Five convolutions of growing width, as emokd's basic CNN has them, and a classifier."""
    channels = [3, WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH, 8 * WIDTH]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(channels[:-1], channels[1:], strict=True):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


def endless(loader: torch.utils.data.DataLoader) -> Iterator[list[torch.Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader


def train(file: str, steps: int, every: int, folder: str) -> list[int]:
    """Trains, evaluates and saves every so often, and reads the resident memory at every batch."""
    with np.load(file) as arrays:
        pictures = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(arrays["label"]).long()
    data = torch.utils.data.TensorDataset(pictures, labels)
    network, loss = create_network(int(labels.max()) + 1), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    batches, seen = endless(torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True)), []
    for step in range(1, steps + 1):
        batch, targets = next(batches)
        seen.append(resident_bytes())
        optimizer.zero_grad()
        loss(network.train()(batch), targets).backward()
        optimizer.step()
        if step % every == 0:
            with torch.inference_mode():
                network.eval()(pictures)
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, pathlib.Path(folder) / f"{step // every % KEPT}.pt")
    return seen


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
