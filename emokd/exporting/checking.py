"""Compares the exported model in ONNX Runtime with the network in JAX: outputs and time."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from emokd.data.augment import centre_views
from emokd.errors import InputError
from emokd.exporting.student import Student, create_function
from emokd.inference.forward import answers, create_forward
from emokd.inference.onnx_engine import Session
from emokd.inference.signature import IMAGE
from emokd.recipes.common.views import see

BOUND = 1e-4
"""Largest difference allowed, as a share of the output's largest value. [ours]"""

Arrays = Mapping[str, Shaped[np.ndarray, "B ..."]]
Batch = dict[str, Shaped[np.ndarray, "B ..."]]


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of a comparison.

    Attributes:
      examples: the number of examples compared.
      source: where the examples are from, in words.
      differences: by output, the largest difference as a share of the largest value.
      same_class: by classifying output, the share of examples whose most probable class is the same.
      milliseconds: medians by batch size, of JAX and of ONNX Runtime.
    """

    examples: int
    source: str
    differences: Mapping[str, float]
    same_class: Mapping[str, float]
    milliseconds: Mapping[int, Mapping[str, float]]


def check(
    student: Student,
    model: bytes,
    batch: Arrays,
    source: str,
    *,
    sizes: tuple[int, ...] = (1, 32),
    rounds: int = 10,
) -> Check:
    """Compares the exported model with the network.

    Args:
      student: the exported model.
      model: the file's content.
      batch: examples as `inference.forward.create_forward` takes them: uint8 canvases, arrays in the network's units.
      source: where they are from, in words.
      sizes: batch sizes to time; empty to time nothing.
      rounds: how often each size is timed; JAX and ONNX Runtime take turns.

    Raises:
      InputError: an output differs by more than `BOUND`, or is not finite.
    """
    session = Session(model)
    wanted, found = jax.device_get(compiled(student)(dict(batch))), session(feeds(student, batch))
    differences: dict[str, float] = {}
    same: dict[str, float] = {}
    for name, expected in wanted.items():
        largest = float(np.abs(expected).max()) or 1.0
        differences[name] = float(np.abs(found[name] - expected).max()) / largest
        if name != "valence_arousal":
            same[name] = float((found[name].argmax(-1) == expected.argmax(-1)).mean())
        if not differences[name] <= BOUND:
            raise InputError(
                f"The exported model does not say what the network says: of {len(expected)} examples ({source}) "
                f"{name!r} differs by up to {differences[name]:.1e} of its largest value; {BOUND:.0e} is allowed. "
                "Nothing was written. This is a fault of the export: please report it with the model's model.json."
            )
    times = {size: _time(student, session, batch, size, rounds) for size in sizes}
    return Check(len(next(iter(batch.values()))), source, differences, same, times)


def compiled(student: Student) -> Callable[[Any], Any]:
    """The network's outputs as a jitted function of a batch of canvases and arrays, in float32."""
    model = student.model
    forward = create_forward(model.spec, mirror=student.seen_as.mirror)
    return jax.jit(lambda arrays: answers(model.spec, forward(model.params, model.stats, arrays)))


def feeds(student: Student, batch: Arrays) -> Batch:
    """Turns a batch into the inputs of the exported graph, by name."""
    spec, inputs = student.model.spec, student.inputs
    view = centre_views(len(next(iter(batch.values()))))
    arrays: Any = dict(batch)
    seen: Any = jax.device_get(see(spec, arrays, view))
    seen = seen if isinstance(seen, dict) else {IMAGE: seen}
    found: Batch = {}
    for name, wanted in inputs.items():
        values = np.asarray(seen[name])
        if student.preprocess and wanted.is_picture:
            values = np.asarray(batch[wanted.reads])
        elif name in student.pictures:
            values = values.transpose(0, 3, 1, 2)
        elif wanted.preprocessing is None and wanted.reads in student.references:
            reference = student.references[wanted.reads]
            values = values.astype(np.float64) * reference.unit + reference.centre
        found[name] = np.ascontiguousarray(values)
    return found


def _time(student: Student, session: Session, batch: Arrays, size: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of JAX and ONNX Runtime on the same batch of `size` examples, taking turns."""
    rows = np.arange(size) % len(next(iter(batch.values())))
    chosen: Any = {name: values[rows] for name, values in batch.items()}
    fed = feeds(student, chosen)
    run: Callable[[Any], Any]
    arrays: Any
    if student.preprocess:
        run, arrays = compiled(student), jax.device_put(chosen)
    else:
        seen = see(student.model.spec, chosen, centre_views(size))
        run, arrays = jax.jit(create_function(student)), seen if isinstance(seen, dict) else {IMAGE: seen}
    return in_turns({"jax": lambda: jax.block_until_ready(run(arrays)), "onnxruntime": lambda: session(fed)}, rounds)


def in_turns(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of programs that take turns; the first round is a warm-up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in programs.items():
            begun = time.perf_counter()
            program()
            found[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(times[1:]) for name, times in found.items()}
