"""Chooses the examples that an export is checked on: from the model's run, from a folder, or random ones."""

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
_EDGE = 512  # largest side of random pictures, pixels, and the side where the model's canvas is not recorded


def workdir_of(model: pathlib.Path) -> pathlib.Path | None:
    """The workdir of the run whose student this model folder is, or None."""
    return model.parent if model.name == "student" and (model.parent / "config.json").is_file() else None


def choose(student: Student, model: pathlib.Path, folder: str) -> tuple[Batch, str]:
    """Chooses examples, as `inference.forward.create_forward` takes them, and says in words where they are from.

    Args:
      student: the model to export.
      model: its folder.
      folder: of pictures; empty for the run's validation split, or random values where there is none.

    Raises:
      InputError: `folder` holds no picture, one cannot be read, or the model does not take a single picture.
    """
    if folder:
        return of_folder(student, pathlib.Path(folder)), f"pictures of {pathlib.Path(folder).name}"
    workdir = workdir_of(model)
    if workdir is not None:
        try:
            batch = of_run(student, workdir)
        except InputError as error:
            logging.warning("The run's validation split cannot be read: %s The export is checked on noise.", error)
        else:
            return batch, "the first of the run's validation split"
    return random(student), "random values"


def of_run(student: Student, workdir: pathlib.Path) -> Batch:
    """The first examples of a run's validation split.

    Raises:
      InputError: the run's data cannot be read.
    """
    config = read_config(workdir / "config.json")
    part = reference.refer(load_data(config)[0]["validation"], student.references)
    batches = evaluation_batches(
        part,
        batch_size=min(EXAMPLES, len(part)),
        canvas=config.data.canvas,
        fit=config.data.fit,
        max_bad_fraction=config.data.max_bad_fraction,
    )
    batch = next(iter(batches))
    return {seen.reads: np.asarray(batch[seen.reads])[batch["mask"]] for seen in student.inputs.values()}


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
