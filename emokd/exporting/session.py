"""A model in ONNX Runtime, as the check runs it."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from emokd.inference import onnx_engine


class Session(onnx_engine.Session):
    """As `inference.onnx_engine.Session`; any tensor that the graph gives out can be read."""

    runtime = "ONNX Runtime"

    def read(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Runs the model and returns some of its outputs by name."""
        return dict(zip(outputs, self._session.run(list(outputs), dict(arrays)), strict=True))
