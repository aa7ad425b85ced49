"""The engine that computes an exported model's outputs by ONNX Runtime, without JAX."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped

from emokd.data.reference import Reference
from emokd.errors import InputError
from emokd.inference.rendering import render_whole
from emokd.inference.signature import Input
from emokd.models.preprocessing import Preprocessing

Arrays = Mapping[str, Shaped[np.ndarray, "B ..."]]

_DTYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}

# Without VNNI instructions, products of uint8 and int8 saturate. With this option ONNX Runtime converts int8 weights to
# uint8 on such processors, whose products do not.
_EXACT_INT8 = "session.x64quantprecision"


class Session:
    """A model in ONNX Runtime, on the CPU. Several threads may call it at once.

    Args:
      model: the file's content, or its path.
      threads: how many compute one batch; 0: as many as ONNX Runtime chooses.

    Raises:
      InputError: the package is not installed, or cannot read the file.
    """

    def __init__(self, model: bytes | pathlib.Path, threads: int = 0):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"An exported model is run by ONNX Runtime, which is not installed ({error}). Install it: "
                "pip install emokd[onnx]; to export as well: pip install emokd[export]."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry(_EXACT_INT8, "1")
        given = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class
            where = "The exported model" if isinstance(model, bytes) else str(model)
            raise InputError(f"{where} cannot be read by ONNX Runtime: {error}. Export the model again.") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        inputs = {each.name: each.type for each in self._session.get_inputs()}
        if strange := sorted(set(inputs.values()) - set(_DTYPES)):
            raise InputError(f"The exported model takes {', '.join(strange)}, which no export of emokd does.")
        self.dtypes = {name: np.dtype(_DTYPES[kind]) for name, kind in inputs.items()}

    def __call__(self, arrays: Arrays) -> dict[str, Float[np.ndarray, "B _"]]:
        """Runs the model and returns its outputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(arrays)), strict=True))


@dataclasses.dataclass(frozen=True)
class Feed:
    """How the values of one input become the graph's.

    Attributes:
      wanted: the input.
      preprocessing: size and normalisation of pictures and videos; None where the graph prepares them, and of arrays.
      reference: the centre and unit that the graph counts an array from; None where it takes it as it is.
    """

    wanted: Input
    preprocessing: Preprocessing | None = None
    reference: Reference | None = None

    def __call__(self, values: Shaped[np.ndarray, "B ..."]) -> Shaped[np.ndarray, "B ..."]:
        """The graph's values of an input that is as for `Engine`."""
        if self.reference is not None:  # the graph takes raw values; the unit is a power of two, so nothing is lost
            return values.astype(np.float64) * self.reference.unit + self.reference.centre
        if self.preprocessing is None:
            return values
        frames = values.reshape(-1, *values.shape[-3:])
        pixels = self.preprocessing(render_whole(frames, self.preprocessing.size))
        if self.wanted.kind == "picture":
            return pixels.transpose(0, 3, 1, 2)
        return pixels.reshape(*values.shape[:2], *pixels.shape[1:])


class OnnxEngine:
    """An exported model in ONNX Runtime. A batch of any size is computed as it is: nothing is compiled per size."""

    def __init__(self, session: Session, feeds: Mapping[str, Feed]):
        """Puts the engine together.

        Args:
          session: the model.
          feeds: by the name of the graph's input.

        Raises:
          InputError: the graph has other inputs.
        """
        if feeds.keys() != session.dtypes.keys():
            raise InputError(
                f"The exported model takes {', '.join(session.dtypes)}, but its description names {', '.join(feeds)}. "
                "Export the model again."
            )
        self._session, self._feeds = session, feeds

    def __call__(self, arrays: Arrays) -> dict[str, Float[np.ndarray, "B _"]]:
        """As `Engine`."""
        fed = {
            name: np.ascontiguousarray(feed(arrays[feed.wanted.reads]), self._session.dtypes[name])
            for name, feed in self._feeds.items()
        }
        return {name: values.astype(np.float32, copy=False) for name, values in self._session(fed).items()}
