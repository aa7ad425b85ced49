"""Compares an exported model in its own runtime with the network in JAX: outputs, scores and time."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from emokd.data.augment import centre_views
from emokd.errors import InputError
from emokd.exporting.examples import Sample
from emokd.exporting.feeding import Batch, feeds
from emokd.exporting.formats.format import Format, Runner
from emokd.exporting.student import Student, create_function
from emokd.inference.forward import answers, create_forward
from emokd.inference.signature import AFFECT, IMAGE
from emokd.metrics import affect_scores, classification_scores, concordance
from emokd.recipes.common.views import see

BOUNDS: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-2}
"""By precision, the largest difference allowed, as a share of the output's largest value; int8 has none. [ours]"""
AGREEMENT: Mapping[str, float] = {"int8": 0.98}
"""By precision, the smallest share of examples whose first class has to be the network's, and the smallest concordance
of valence and of arousal with the network's. [ours]"""
_BATCH = 64

Outputs = dict[str, Float[np.ndarray, "B _"]]


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of a comparison.

    Attributes:
      examples: the number of examples compared.
      source: where the examples are from, in words.
      runtime: what computed the file's outputs, in words.
      bound: the difference that was allowed; None for a precision without a bound.
      differences: by output, the largest difference as a share of the largest value.
      same_class: by classifying output, the share of examples whose most probable class is the same.
      concordance: CCC of valence and of arousal with the network's, where it has these outputs.
      scores: by output, score and side ("network", "file"), where the examples have labels.
      milliseconds: medians by batch size, of "jax" and of the "file" in its runtime.
    """

    examples: int
    source: str
    runtime: str
    bound: float | None
    differences: Mapping[str, float]
    same_class: Mapping[str, float]
    concordance: Mapping[str, float]
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    milliseconds: Mapping[int, Mapping[str, float]]


def check(
    student: Student,
    runner: Runner,
    examples: Sample,
    *,
    format: Format,
    precision: str = "float32",
    accept: bool = False,
    sizes: tuple[int, ...] = (1, 32),
    rounds: int = 10,
) -> Check:
    """Compares the exported model with the network.

    Args:
      student: the exported model.
      runner: the file in its runtime.
      examples: what to compare on.
      format: of the file.
      precision: of the file.
      accept: whether a file of fewer equal first classes than `AGREEMENT` is accepted.
      sizes: batch sizes to time; empty to time nothing.
      rounds: how often each size is timed; JAX and the runtime take turns.

    Raises:
      InputError: an output differs by more than the precision's bound, or is not finite; or the first class is the
        network's for too few examples.
    """
    network = compiled(student)
    inputs = (format.channels_first, format.takes_raw)
    wanted, found = _outputs(student, network, runner, examples.batch, inputs)
    differences: dict[str, float] = {}
    same: dict[str, float] = {}
    for name, expected in wanted.items():
        largest = float(np.abs(expected).max()) or 1.0
        differences[name] = float(np.abs(found[name] - expected).max()) / largest
        if name != AFFECT:
            same[name] = float((found[name].argmax(-1) == expected.argmax(-1)).mean())
    bound = BOUNDS.get(precision)
    _refuse_differences(differences, bound, examples)
    concordances = _concordances(wanted, found)
    told = {f"the first class of {name!r} is the network's": share for name, share in same.items()}
    told |= {f"{name} agrees with the network's (CCC)": value for name, value in concordances.items()}
    _refuse_disagreement(told, precision, examples, accept)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for side, outputs in (("network", wanted), ("file", found)):
        for name, values in _scores(student, outputs, examples.labels).items():
            for key, value in values.items():
                scores.setdefault(name, {}).setdefault(key, {})[side] = value
    times = {size: _time(student, runner, examples.batch, size, rounds, inputs) for size in sizes}
    return Check(examples.count, examples.source, runner.runtime, bound, differences, same, concordances, scores, times)


def _refuse_differences(differences: Mapping[str, float], bound: float | None, examples: Sample) -> None:
    for name, difference in differences.items():
        if not difference <= (np.inf if bound is None else bound):  # NaN is refused as well
            allowed = "a finite one" if bound is None else f"{bound:.0e}"
            raise InputError(
                f"The exported model does not say what the network says: of {examples.count} examples "
                f"({examples.source}) {name!r} differs by up to {difference:.1e} of its largest value; {allowed} is "
                "allowed. Nothing was written. This is a fault of the export: please report it with the model's "
                "model.json."
            )


def _concordances(wanted: Outputs, found: Outputs) -> dict[str, float]:
    """CCC of valence and arousal with the network's; without those outputs, or for a single example, nothing."""
    if AFFECT not in wanted or len(wanted[AFFECT]) < 2:
        return {}
    pairs = zip(("valence", "arousal"), found[AFFECT].T, wanted[AFFECT].T, strict=True)
    return {name: concordance(ours, theirs) for name, ours, theirs in pairs}


def _refuse_disagreement(told: Mapping[str, float], precision: str, examples: Sample, accept: bool) -> None:
    """Refuses, or says, what agrees too little; `told` is in words."""
    wanted = AGREEMENT.get(precision, 0.0)
    for what, share in told.items():
        if share < wanted:
            message = (
                f"in {precision} {what} to {share:.1%} on {examples.count} examples ({examples.source}); "
                f"{wanted:.0%} are wanted"
            )
            if not accept:
                raise InputError(
                    f"Nothing was written: {message}. Export it with --precision=float32, or take it as it is with "
                    "--accept."
                )
            logging.warning("Accepted, as --accept asks: %s.", message)


def _outputs(
    student: Student, network: Callable[[Any], Any], runner: Runner, batch: Batch, inputs: tuple[bool, bool]
) -> tuple[Outputs, Outputs]:
    """The outputs of the network and of the file for all examples."""
    wanted, found = [], []
    for part in parts(batch, _BATCH):
        wanted.append(jax.device_get(network(dict(part))))
        found.append(dict(runner(feeds(student, part, channels_first=inputs[0], raw=inputs[1]))))
    return _joined(wanted), _joined(found)


def parts(batch: Batch, size: int) -> Iterator[Batch]:
    """The rows of a batch in batches of at most `size`."""
    count = len(next(iter(batch.values())))
    for start in range(0, count, size):
        yield {name: values[start : start + size] for name, values in batch.items()}


def _joined(outputs: list[Outputs]) -> Outputs:
    return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}


def _scores(student: Student, outputs: Outputs, labels: Batch) -> dict[str, dict[str, float]]:
    """Accuracies and concordances, for the outputs that the examples have labels for."""
    found: dict[str, dict[str, float]] = {}
    classes = student.model.spec.classes
    for name, values in outputs.items():
        if name not in labels:
            continue
        if name == AFFECT:
            scores = affect_scores(values, labels[name])
            found[name] = {f"{key}_ccc": scores[key]["ccc"] for key in ("valence", "arousal") if key in scores}
        elif name in classes:
            scores = classification_scores(values, labels[name], classes[name])
            found[name] = {key: scores[key] for key in ("accuracy", "balanced_accuracy") if key in scores}
    return {name: values for name, values in found.items() if values}


def compiled(student: Student) -> Callable[[Any], Any]:
    """The network's outputs as a jitted function of a batch of canvases and arrays, in float32."""
    model = student.model
    forward = create_forward(model.spec, mirror=student.seen_as.mirror)
    return jax.jit(lambda arrays: answers(model.spec, forward(model.params, model.stats, arrays)))


def _time(
    student: Student, runner: Runner, batch: Batch, size: int, rounds: int, inputs: tuple[bool, bool]
) -> dict[str, float]:
    """Median milliseconds of JAX and of the file on the same batch of `size` examples, taking turns."""
    rows = np.arange(size) % len(next(iter(batch.values())))
    chosen: Any = {name: values[rows] for name, values in batch.items()}
    fed = feeds(student, chosen, channels_first=inputs[0], raw=inputs[1])
    run: Callable[[Any], Any]
    arrays: Any
    if student.preprocess:
        run, arrays = compiled(student), jax.device_put(chosen)
    else:
        seen = see(student.model.spec, chosen, centre_views(size))
        run, arrays = jax.jit(create_function(student)), seen if isinstance(seen, dict) else {IMAGE: seen}
    network = {"jax": lambda: jax.block_until_ready(run(arrays))}
    if hasattr(runner, "measure"):  # in another process
        return in_turns(network, rounds) | {"file": statistics.median(runner.measure(fed, rounds))}
    return in_turns({**network, "file": lambda: runner(fed)}, rounds)


def in_turns(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of programs that take turns; the first round is a warm-up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in programs.items():
            begun = time.perf_counter()
            program()
            found[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(times[1:]) for name, times in found.items()}
