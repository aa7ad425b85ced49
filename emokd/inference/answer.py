"""A model's answer for one example, with the names of its classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emokd.inference.faces import Face
from emokd.inference.signature import AFFECT, COMMON, Signature

_DIGITS = 6  # digits that numbers are written with; float32 holds no more


@dataclasses.dataclass(frozen=True)
class Classified:
    """The answer of one classifying head.

    Attributes:
      label: the most probable class.
      probabilities: of every class by name, in the order of the head's outputs.
    """

    label: str
    probabilities: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Answer:
    """A model's answer for one picture, face or row. A field whose head the model lacks is None.

    Attributes:
      expression: the most probable expression.
      probabilities: of every expression, by its name.
      valence: in [-1, 1].
      arousal: in [-1, 1].
      heads: further classifying heads, by name.
      face: the face that the answer is for, where faces were searched for.
    """

    expression: str | None = None
    probabilities: Mapping[str, float] | None = None
    valence: float | None = None
    arousal: float | None = None
    heads: Mapping[str, Classified] = dataclasses.field(default_factory=dict)
    face: Face | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values, without the face; fields that are None are left out.

        A further head NAME gives `NAME`, its most probable class, and `NAME_probabilities`.
        """
        record: dict[str, Any] = {}
        classified = dict(self.heads)
        if self.expression is not None and self.probabilities is not None:
            classified = {"expression": Classified(self.expression, self.probabilities), **classified}
        for name, head in classified.items():
            record[name] = head.label
            record[f"{name}_probabilities"] = {c: round(p, _DIGITS) for c, p in head.probabilities.items()}
        if self.valence is not None and self.arousal is not None:
            record["valence"], record["arousal"] = round(self.valence, _DIGITS), round(self.arousal, _DIGITS)
        return record

    def to_cells(self) -> dict[str, Any]:
        """As `to_json`, flattened to one value per column: the probability of fear is in `expression_fear`."""
        cells: dict[str, Any] = {}
        for name, value in self.to_json().items():
            if isinstance(value, Mapping):
                cells |= {f"{name.removesuffix('_probabilities')}_{c}": p for c, p in value.items()}
            else:
                cells[name] = value
        return cells


def read_answers(signature: Signature, outputs: Mapping[str, Float[np.ndarray, "B _"]]) -> list[Answer]:
    """Reads the answers of B examples from a model's outputs.

    Args:
      signature: the model's heads with their class names.
      outputs: by head, as `Engine` gives them.
    """
    rows = len(next(iter(outputs.values()))) if outputs else 0
    return [_read(signature, {name: values[row] for name, values in outputs.items()}) for row in range(rows)]


def _read(signature: Signature, outputs: Mapping[str, np.ndarray]) -> Answer:
    heads = {name: _classify(signature.heads[name], values) for name, values in outputs.items() if name != AFFECT}
    expression = heads.get("expression")
    affect = outputs.get(AFFECT)
    return Answer(
        expression=None if expression is None else expression.label,
        probabilities=None if expression is None else expression.probabilities,
        valence=None if affect is None else float(affect[0]),
        arousal=None if affect is None else float(affect[1]),
        heads={name: head for name, head in heads.items() if name not in COMMON},
    )


def _classify(classes: Sequence[str], values: Float[np.ndarray, " C"]) -> Classified:
    return Classified(classes[int(values.argmax())], dict(zip(classes, values.tolist(), strict=True)))
