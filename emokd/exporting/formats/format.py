"""What a format is: how a file of it is written, and how it is run for the check."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Shaped

from emokd.errors import InputError, nearest
from emokd.exporting.student import Student

Batch = Mapping[str, Shaped[np.ndarray, "B ..."]]


class Runner(Protocol):
    """A written model in its runtime.

    A runner in another process also has `measure(arrays, rounds)`: the milliseconds that each run took there.

    Attributes:
      runtime: what computes the outputs, in words.
    """

    runtime: str

    def __call__(self, arrays: Batch, /) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """The outputs by name, see `inference.forward.answers`, from the file's inputs by name."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
      student: the model.
      precision: one of the format's.
      suffix: of the file's name, such as ".onnx".
      calibration: examples of the run's training split, as `inference.forward.create_forward` takes them, read when
        it is called; raises an InputError where there are none.
    """

    student: Student
    precision: str
    suffix: str
    calibration: Callable[[], Batch]


@dataclasses.dataclass(frozen=True)
class Written:
    """A model as a file's content.

    Attributes:
      content: the file.
      notes: what `student.json` says beside that: JSON values.
    """

    content: bytes
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
      name: as `--format` has it.
      file: the usual name of such a file.
      suffixes: of file names, the usual one first; others mean another container.
      library: the `library_name` of the model card.
      precisions: those that the format exists in.
      channels_first: whether pictures are [B, C, H, W] rather than [B, H, W, C].
      takes_raw: whether the file itself prepares inputs: pictures with `--preprocess`, arrays from their own units.
      write: makes the file; raises an InputError where a package is missing or the model does not fit the format.
      open: makes the runner of a file's content.
      batches: the sizes of the batches to time; 1 alone where the file takes no others.
    """

    name: str
    file: str
    suffixes: tuple[str, ...]
    library: str
    precisions: tuple[str, ...]
    channels_first: bool
    takes_raw: bool
    write: Callable[[Request], Written]
    open: Callable[[Student, bytes, str], Runner]
    batches: tuple[int, ...] = (1, 32)

    def check_request(self, precision: str, output: pathlib.Path, preprocess: bool) -> None:
        """Refuses what the format does not have.

        Raises:
          InputError: the precision, the file's suffix, or preprocessing does not exist in this format.
        """
        if precision not in self.precisions:
            raise InputError(
                f"There is no precision {precision!r} for the format {self.name}.{nearest(precision, self.precisions)} "
                f"Known: {', '.join(self.precisions)}."
            )
        if len(self.suffixes) > 1 and output.suffix not in self.suffixes:
            raise InputError(f"--output={output}: a file of the format {self.name} ends in {', '.join(self.suffixes)}.")
        if preprocess and not self.takes_raw:
            raise InputError(
                f"--preprocess is for the format onnx; files of the format {self.name} take normalised pictures. "
                "Leave it out: student.json says how pictures are normalised."
            )


def missing(package: str, error: ImportError, extra: str) -> InputError:
    """The error for a package that is not installed.

    Args:
      package: what is missing, and for what.
      error: of the import.
      extra: the extra of emokd that installs it.
    """
    return InputError(f"{package} is not installed ({error}). Install it: pip install emokd[{extra}].")
