"""Converts and runs TFLite files. The isolated environment's Python runs this file by its path: it imports no emokd.

python litert_worker.py convert PROGRAM.mlir MODEL.tflite INPUTS OUTPUTS      names, separated by commas
python litert_worker.py run MODEL.tflite ARRAYS.npz ANSWERS.npz
python litert_worker.py time MODEL.tflite ARRAYS.npz ROUNDS                   prints milliseconds, one a line
"""

import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def convert(program: str, output: str, inputs: str, outputs: str) -> None:
    """Converts a StableHLO program with a function `main` of fixed shapes.

    Args:
      program: its text, a file.
      output: the file to write.
      inputs: names of the function's arguments.
      outputs: names of its results.
    """
    from litert_converter import converter_api_ext as converter
    from litert_converter.mlir import ir, passmanager

    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(pathlib.Path(program).read_text())
        converter.set_signature(module.operation, "serving_default", inputs.split(","), outputs.split(","))
        converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), converter.ConvertToTFLConfig())
        pathlib.Path(output).write_bytes(converter.export_flatbuffer_to_bytes(module.operation))


def _signature(model: str):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=model).get_signature_runner("serving_default")


def run(model: str, arrays: str, answers: str) -> None:
    """Runs a file on each example of `arrays` by itself, and writes the outputs of all."""
    signature, given = _signature(model), dict(np.load(arrays))
    count = len(next(iter(given.values())))
    rows = [signature(**{name: v[i : i + 1] for name, v in given.items()}) for i in range(count)]
    found: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    np.savez(answers, **found)


def measure(model: str, arrays: str, rounds: str) -> None:
    """Prints how long each of some runs on the first example takes; one before them is not counted."""
    signature, given = _signature(model), dict(np.load(arrays))
    first = {name: values[:1] for name, values in given.items()}
    for count in range(int(rounds) + 1):
        begun = time.perf_counter()
        signature(**first)
        if count:
            print(1000 * (time.perf_counter() - begun))


COMMANDS: dict[str, Callable[..., None]] = {"convert": convert, "run": run, "time": measure}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
