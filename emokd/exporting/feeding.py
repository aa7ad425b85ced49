"""From a batch as the network's forward pass takes it to the inputs of an exported file."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from emokd.data.augment import centre_views
from emokd.exporting.student import Student
from emokd.inference.signature import IMAGE
from emokd.recipes.common.views import see

Batch = dict[str, Shaped[np.ndarray, "B ..."]]


def feeds(
    student: Student,
    batch: Mapping[str, Shaped[np.ndarray, "B ..."]],
    *,
    channels_first: bool = True,
    raw: bool = True,
) -> Batch:
    """Turns a batch into the inputs of the exported file, by name.

    Args:
      student: the exported model.
      batch: uint8 canvases, and arrays in the network's units.
      channels_first: whether the file takes normalised pictures as [B, C, H, W] rather than [B, H, W, C].
      raw: whether the file takes arrays as they are in the data rather than in the network's units.
    """
    arrays: Any = dict(batch)
    seen: Any = jax.device_get(see(student.model.spec, arrays, centre_views(len(next(iter(batch.values()))))))
    seen = seen if isinstance(seen, dict) else {IMAGE: seen}
    found: Batch = {}
    for name, wanted in student.inputs.items():
        values = np.asarray(seen[name])
        if student.preprocess and wanted.is_picture:
            values = np.asarray(batch[wanted.reads])
        elif channels_first and name in student.pictures:
            values = values.transpose(0, 3, 1, 2)
        elif raw and wanted.preprocessing is None and wanted.reads in student.references:
            reference = student.references[wanted.reads]
            values = values.astype(np.float64) * reference.unit + reference.centre
        found[name] = np.ascontiguousarray(values)
    return found
