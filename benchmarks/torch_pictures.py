"""Pictures for PyTorch's DataLoader. A module of its own: worker processes import it."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from emokd.data.decode import read_file, to_canvas


class Pictures(torch.utils.data.Dataset):
    """Square canvases uint8 [S, S, 3] of picture files.

    Args:
      paths: the files.
      side: of the canvases.
      pillow: whether Pillow decodes, as is usual with PyTorch, or what emokd decodes with.
    """

    def __init__(self, paths: Sequence[str], side: int, pillow: bool):
        self.paths, self.side, self.pillow = list(paths), side, pillow

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy((self.of_pillow if self.pillow else self.of_emokd)(self.paths[index]))

    def of_emokd(self, path: str) -> np.ndarray:
        """What emokd's pipeline does with a file."""
        return to_canvas(read_file(path, self.side), self.side)

    def of_pillow(self, path: str) -> np.ndarray:
        """Decoded whole, the short side resized, the centre cut out."""
        with Image.open(io.BytesIO(pathlib.Path(path).read_bytes())) as image:
            picture = image.convert("RGB")
        width, height = picture.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.array(picture.resize((self.side, self.side), Image.Resampling.BILINEAR, box=box))
