"""A model in ONNX Runtime."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from emokd.errors import InputError

# On processors without VNNI instructions, products of uint8 and int8 saturate. With this option ONNX Runtime converts
# int8 weights to uint8 there, which do not.
_EXACT_INT8 = "session.x64quantprecision"


class Session:
    """A model in ONNX Runtime, on the CPU.

    Args:
      model: the file's content.

    Raises:
      InputError: the package is not installed.
    """

    runtime = "ONNX Runtime"

    def __init__(self, model: bytes):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"An export is checked in ONNX Runtime, which is not installed ({error}). Install it: "
                "pip install emokd[export]."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(_EXACT_INT8, "1")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]]) -> dict[str, Float[np.ndarray, "B _"]]:
        """Runs the model and returns its outputs by name."""
        return self.read(arrays, self._outputs)

    def read(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Runs the model and returns some of its outputs by name."""
        return dict(zip(outputs, self._session.run(list(outputs), dict(arrays)), strict=True))
