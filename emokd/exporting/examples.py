"""Chooses the examples that an export is checked on: from the model's run, from a folder, or random ones."""

import dataclasses
import pathlib

import numpy as np
from absl import logging
from jaxtyping import Shaped

from emokd.data import reference
from emokd.data.decode import read_file, to_canvas
from emokd.data.files.listing import is_picture
from emokd.data.files.store import Folder
from emokd.data.pipeline import evaluation_batches
from emokd.errors import InputError
from emokd.exporting.student import Student
from emokd.jobs.datasets import load_data
from emokd.jobs.workdir import read_config

Batch = dict[str, Shaped[np.ndarray, "B ..."]]

EXAMPLES = 64
"""How many random values or pictures of a folder are compared."""
MOST = 2000
"""How many examples of a split are compared at most. [ours]"""
CALIBRATION = 512
"""How many examples of the training split calibrate integer networks. [ours]"""
_EDGE = 512  # largest side of random pictures, pixels, and the side where the model's canvas is not recorded
_ROWS = 64  # examples read at once


@dataclasses.dataclass(frozen=True)
class Sample:
    """Examples, as `inference.forward.create_forward` takes them.

    Attributes:
      batch: arrays by input.
      labels: targets by head, where they are known.
      source: where they are from, in words.
    """

    batch: Batch
    labels: Batch
    source: str

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(next(iter(self.batch.values())))


def workdir_of(model: pathlib.Path) -> pathlib.Path | None:
    """The workdir of the run whose student this model folder is, or None."""
    return model.parent if model.name == "student" and (model.parent / "config.json").is_file() else None


def choose(student: Student, model: pathlib.Path, folder: str) -> Sample:
    """Chooses the examples to compare on.

    Args:
      student: the model to export.
      model: its folder.
      folder: of pictures; empty for the run's validation split, or random values where there is none.

    Raises:
      InputError: `folder` holds no picture, one cannot be read, or the model does not take a single picture.
    """
    if folder:
        return Sample(of_folder(student, pathlib.Path(folder)), {}, f"pictures of {pathlib.Path(folder).name}")
    workdir = workdir_of(model)
    if workdir is not None:
        try:
            return of_run(student, workdir, "validation", MOST)
        except InputError as error:
            logging.warning("The run's validation split cannot be read: %s The export is checked on noise.", error)
    return Sample(random(student), {}, "random values")


def calibration(student: Student, model: pathlib.Path) -> Batch:
    """Examples of the training split of the model's run, which integer networks are calibrated on.

    Raises:
      InputError: the model folder lies in no run, or its data cannot be read.
    """
    workdir = workdir_of(model)
    if workdir is None:
        raise InputError(
            f"{model} lies in no run's folder, so there are no training pictures to calibrate on: --precision=int8 "
            "needs the `student` folder of a run, where it was written, and the run's data."
        )
    return of_run(student, workdir, "train", CALIBRATION).batch


def of_run(student: Student, workdir: pathlib.Path, split: str, most: int) -> Sample:
    """Examples of a run's split, with their labels: all of them, or `most` drawn at random.

    Raises:
      InputError: the run's data cannot be read.
    """
    config = read_config(workdir / "config.json")
    part = reference.refer(load_data(config)[0][split], student.references)
    total, source = len(part), f"the run's {split} split"
    if total > most:
        part = part.select(np.sort(np.random.default_rng(0).permutation(total)[:most]))
        source = f"{most} of {total} examples of {source}"
    read = list(
        evaluation_batches(
            part,
            batch_size=min(_ROWS, len(part)),
            canvas=config.data.canvas,
            fit=config.data.fit,
            max_bad_fraction=config.data.max_bad_fraction,
        )
    )
    inputs = [seen.reads for seen in student.inputs.values()]
    voted = "votes" in read[0]
    classes = student.model.spec.classes
    others = [head for head in classes if head in part.classes and tuple(part.classes[head]) != tuple(classes[head])]
    if others:
        logging.warning("The model is not scored on %s: the run's data has other classes.", ", ".join(others))
    heads = [head for head in student.model.spec.heads if head not in others]
    labels = {"votes" if voted and head == "expression" else head: head for head in heads}

    def gather(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(batch[name])[batch["mask"]] for batch in read])

    batch = {name: gather(name) for name in inputs}
    return Sample(batch, {head: gather(name) for name, head in labels.items() if name in read[0]}, source)


def of_folder(student: Student, folder: pathlib.Path) -> Batch:
    """The first pictures of a folder, by name.

    Raises:
      InputError: the folder holds no picture, one cannot be read, or the model does not take a single picture.
    """
    others = [name for name, seen in student.inputs.items() if not seen.is_picture]
    if others:
        raise InputError(f"--check takes pictures, and this model also takes {', '.join(others)}. Leave it out.")
    if not folder.is_dir():
        raise InputError(f"--check={folder} is no folder. Name one with pictures.")
    names = [name for name in Folder(str(folder)).names if is_picture(name)][:EXAMPLES]
    if not names:
        raise InputError(f"--check={folder} holds no picture. Name a folder with some.")
    canvas, fit = student.seen_as.canvas, student.seen_as.fit
    pictures = np.stack([to_canvas(read_file(folder / name, canvas), canvas, fit) for name in names])
    return {seen.reads: pictures for seen in student.inputs.values()}


def random(student: Student) -> Batch:
    """Random examples; where there are several inputs, each array is absent (NaN throughout) from one example."""
    generator = np.random.default_rng(0)
    found: Batch = {}
    for index, seen in enumerate(student.inputs.values()):
        if seen.preprocessing is None:
            values = generator.normal(size=(EXAMPLES, *seen.shape)).astype(np.float32)
            if seen.reads in student.references:
                values *= student.references[seen.reads].unit > 0  # columns that were constant in training become 0
            if len(student.inputs) > 1:
                values[index] = np.nan
            found[seen.reads] = values
        else:
            side = min(student.seen_as.canvas or _EDGE, _EDGE)
            shape = (EXAMPLES, *seen.shape[:-3], side, side, 3)
            found[seen.reads] = generator.integers(0, 256, shape, dtype=np.uint8)
    return found
