"""TFLite for phones, converted from StableHLO by litert-converter and run by ai-edge-litert.

Their pins clash with those of tensorflow-datasets, so they have an environment of their own in the user's cache folder.
It is made once, by the first export; where this Python has both packages, it is used. A file takes one example at a
time: phones see one face at a time, and a fixed size lets the converter plan all memory.
"""

import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import uuid
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import export
from jaxtyping import Float

from emokd.errors import InputError
from emokd.exporting.formats import litert_worker
from emokd.exporting.formats.format import Batch, Format, Request, Written
from emokd.exporting.student import Student, create_function
from emokd.models.convolution import plain_convolutions

PINS = ("litert-converter==0.5.0", "ai-edge-litert==2.3.0", "immutabledict==4.2.1")
_MODULES = ("litert_converter", "ai_edge_litert")
_SHOWN = 5  # last lines of a failed program's output that a message quotes


def environment() -> pathlib.Path:
    """The Python that has the converter; makes its environment where there is none.

    Raises:
      InputError: it cannot be made.
    """
    if all(importlib.util.find_spec(name) for name in _MODULES):
        return pathlib.Path(sys.executable)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "emokd"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join((version, *PINS)).encode()).hexdigest()[:12]
    folder = cache / f"tflite-{digest}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    logging.info("Making an environment of its own for the TFLite converter (%s): %s", ", ".join(PINS), folder)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    cache.mkdir(parents=True, exist_ok=True)
    try:
        for arguments in (
            [sys.executable, "-m", "venv", temporary],
            [temporary / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input", *PINS],
        ):
            made = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
            if made.returncode:
                raise InputError(
                    f"The environment of the TFLite converter cannot be made in {folder}: "
                    f"{_last(made)} Connect to a package index, or install {' '.join(PINS)} where emokd is installed."
                )
        if not python.exists():  # another process may have been faster
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return python


def _last(finished: subprocess.CompletedProcess) -> str:
    lines = (finished.stderr or finished.stdout or "it said nothing").strip().splitlines()
    return " ".join(lines[-_SHOWN:])


def _save(file: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    np.savez(file, **arrays)


def _call(python: pathlib.Path, arguments: Sequence[str | pathlib.Path], doing: str) -> str:
    """Runs the worker and returns what it printed."""
    command = [str(python), "-I", str(litert_worker.__file__), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"{doing} failed, and nothing was written: {_last(done)} The format onnx has every operation of emokd's "
            "networks: --format=onnx."
        )
    return done.stdout


def _write(request: Request) -> Written:
    student = request.student
    inputs = {name: jax.ShapeDtypeStruct((1, *seen.shape), np.float32) for name, seen in student.inputs.items()}
    function = create_function(student)
    with plain_convolutions():
        exported = export.export(jax.jit(function), platforms=("cpu",))(inputs)
    outputs = sorted(jax.eval_shape(function, inputs))
    with tempfile.TemporaryDirectory() as folder:
        program, file = pathlib.Path(folder, "program.mlir"), pathlib.Path(folder, "model.tflite")
        program.write_text(exported.mlir_module())
        # JAX flattens dicts in the order of their keys.
        names = (",".join(sorted(inputs)), ",".join(outputs))
        _call(environment(), ["convert", program, file, *names], "The conversion to TFLite")
        return Written(file.read_bytes(), {"converter": PINS[0], "signature": "serving_default", "batch": 1})


class Interpreter:
    """A file in ai-edge-litert, in the converter's environment.

    Args:
      content: of the file.
    """

    runtime = "ai-edge-litert"

    def __init__(self, content: bytes):
        self._folder = pathlib.Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._model = self._folder / "model.tflite"
        self._model.write_bytes(content)
        self._python = environment()

    def __call__(self, arrays: Batch) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """As `Runner`; one example after the other."""
        given, found = (self._folder / name for name in ("given.npz", "found.npz"))
        _save(given, arrays)
        _call(self._python, ["run", self._model, given, found], "Running the TFLite file")
        with np.load(found) as answers:
            return dict(answers)

    def measure(self, arrays: Batch, rounds: int) -> list[float]:
        """Milliseconds of each of several runs on the first example."""
        given = self._folder / "given.npz"
        _save(given, arrays)
        printed = _call(self._python, ["time", self._model, given, str(rounds)], "Running the TFLite file")
        return [float(line) for line in printed.split()]


def _open(student: Student, content: bytes, suffix: str) -> Interpreter:
    del student, suffix
    return Interpreter(content)


FORMAT = Format(
    name="tflite",
    file="model.tflite",
    suffixes=(".tflite",),
    library="tflite",
    precisions=("float32",),
    channels_first=False,
    takes_raw=False,
    batches=(1,),
    write=_write,
    open=_open,
)
