"""StableHLO, the intermediate language of XLA, serialised by `jax.export`, run again by it.

The file holds the parameters and a program for batches of any size, on CPUs, GPUs and TPUs. Whoever runs it needs jax
and flatbuffers, not emokd nor flax:

    run = jax.export.deserialize(pathlib.Path("model.stablehlo").read_bytes()).call
    answers = run({"image": pictures})
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax import export
from jaxtyping import Float

from emokd.exporting.formats.format import Batch, Format, Request, Written, missing
from emokd.exporting.student import Student, create_function
from emokd.models.convolution import plain_convolutions

PLATFORMS = ("cpu", "cuda", "tpu")


def _write(request: Request) -> Written:
    student = request.student
    (batch,) = export.symbolic_shape("batch")
    inputs = {name: jax.ShapeDtypeStruct((batch, *seen.shape), np.float32) for name, seen in student.inputs.items()}
    # What runs on every platform has to be traced in the form that none prefers.
    with plain_convolutions():
        exported = export.export(jax.jit(create_function(student)), platforms=PLATFORMS)(inputs)
    try:
        content = bytes(exported.serialize())
    except ImportError as error:
        raise missing("StableHLO files are written with flatbuffers, which", error, "stablehlo") from error
    return Written(
        content,
        {
            "platforms": list(exported.platforms),
            "calling_convention_version": exported.calling_convention_version,
        },
    )


class Deserialised:
    """A file's program in JAX.

    Args:
      content: of the file.
    """

    runtime = "JAX, by jax.export.deserialize"

    def __init__(self, content: bytes):
        self._call = jax.jit(export.deserialize(bytearray(content)).call)

    def __call__(self, arrays: Batch) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """As `Runner`."""
        return jax.device_get(self._call(dict(arrays)))


def _open(student: Student, content: bytes, suffix: str) -> Deserialised:
    del student, suffix
    return Deserialised(content)


FORMAT = Format(
    name="stablehlo",
    file="model.stablehlo",
    suffixes=(".stablehlo",),
    library="jax",
    precisions=("float32",),
    channels_first=False,
    takes_raw=False,
    write=_write,
    open=_open,
)
