"""Using a trained model on pictures."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from emokd.data.decode import read_file, to_canvas
from emokd.data.files.listing import by_suffix, is_picture
from emokd.data.files.store import Folder
from emokd.errors import InputError
from emokd.inference.faces import FaceCropper
from emokd.inference.forward import IMAGE, answers, create_forward
from emokd.models.network import TrainedModel


class Predictor:
    """A model ready for uint8 pictures: decoding, canvas, normalisation and network as in its evaluation.

    Args:
      model: the network and its weights.
      canvas: side of the squares that pictures are made into, pixels.
      fit: how they become squares: "crop", "squash" or "pad".
      batch_size: pictures per step.
      precision: a name in `models.network.PRECISIONS`.
      mirror: whether valence and arousal are averaged with the mirrored picture's.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        canvas: int,
        fit: str,
        batch_size: int,
        precision: str = "float32",
        mirror: bool = False,
    ):
        self.model, self.canvas, self.fit, self.batch_size = model, canvas, fit, batch_size
        forward = create_forward(model.spec, precision=precision, mirror=mirror)

        def outputs(params, stats, images):
            return answers(model.spec, forward(params, stats, {IMAGE: images}))

        self._outputs = jax.jit(outputs)
        self._weights = jax.device_put((model.params, model.stats))

    def predict(self, files: Iterable[pathlib.Path], cropper: FaceCropper | None = None) -> Iterator[dict[str, Any]]:
        """One record per file, in order: class and probabilities of each head, valence and arousal.

        Args:
          files: the pictures.
          cropper: when given, faces are looked for: a record has `size` (width and height of the upright picture)
            and `faces`, the largest first, each with `box` (left, top, right, bottom in pixels), `score` and
            its own answers. A picture without a face has an empty list, and a warning is logged.

        Returns:
          The records; one has `error` in place of answers when its file could not be read.
        """
        records: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        canvases: list[np.ndarray] = []
        for file in files:
            records.append({"file": str(file)})
            try:
                if cropper is None:
                    canvases.append(self.to_canvas(read_file(file, self.canvas)))
                    answers.append(records[-1])
                else:
                    # At its full size: boxes are in the picture's own pixels, and faces may be small.
                    picture = read_file(file)
                    found = cropper.find(picture)
                    canvases += [self.to_canvas(crop) for _, crop in found]
                    faces = [{"box": [round(v, 1) for v in f.box], "score": round(f.score, 4)} for f, _ in found]
                    records[-1] |= {"size": [picture.shape[1], picture.shape[0]], "faces": faces}
                    answers += faces
                    if not faces:
                        logging.warning("%s: no face was found.", file)
            except InputError as error:
                records[-1]["error"] = str(error)
            if len(canvases) >= self.batch_size or not canvases:
                yield from self._answer(records, answers, canvases)
                records, answers, canvases = [], [], []
        yield from self._answer(records, answers, canvases)

    def to_canvas(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """A picture as the square that the network is shown."""
        return to_canvas(picture, self.canvas, self.fit)

    def outputs(self, canvases: Sequence[UInt8[np.ndarray, "S S 3"]]) -> dict[str, Float[np.ndarray, "B N"]]:
        """The network's answers: probabilities of each classifying head, and `valence_arousal` in [-1, 1].

        Args:
          canvases: at least one, from `to_canvas`.
        """
        batches = []
        for start in range(0, len(canvases), self.batch_size):
            batch = list(canvases[start : start + self.batch_size])
            # A short last batch is padded, so that there is one compiled program.
            padding = [np.zeros_like(batch[0])] * (self.batch_size - len(batch))
            batches.append(jax.device_get(self._outputs(*self._weights, np.stack(batch + padding))))
        return {name: np.concatenate([b[name] for b in batches])[: len(canvases)] for name in batches[0]}

    def _answer(
        self, records: list[dict[str, Any]], answers: list[dict[str, Any]], canvases: list[np.ndarray]
    ) -> Iterator[dict[str, Any]]:
        """Fills each answer with what the network says of its canvas, and gives the records, which hold the answers."""
        if canvases:
            outputs = self.outputs(canvases)
            for row, answer in enumerate(answers):
                answer |= self.describe({name: values[row] for name, values in outputs.items()})
        yield from records

    def describe(self, outputs: Mapping[str, Float[np.ndarray, " N"]]) -> dict[str, Any]:
        """One row of `outputs` as JSON values: class and probabilities of each head, `valence`, `arousal`."""
        record: dict[str, Any] = {}
        for name, values in outputs.items():
            if name == "valence_arousal":
                record["valence"], record["arousal"] = (round(float(v), 6) for v in values)
                continue
            classes = self.model.spec.classes.get(name) or [str(i) for i in range(len(values))]
            record[name] = classes[int(values.argmax())]
            record[f"{name}_probabilities"] = {c: round(float(p), 6) for c, p in zip(classes, values, strict=True)}
        return record


def find_pictures(paths: Iterable[str]) -> list[pathlib.Path]:
    """The files named, and every picture under the folders named, sorted by its path.

    Folders are listed as those of training are (`data.files.Folder`): the same suffixes in any letter case, links
    followed, what is hidden and what is no file left out. What is left out by its suffix is counted in the log. A file
    that is named itself counts whatever its name.

    Raises:
      InputError: a path does not exist, or there is no picture at all.
    """
    found: list[pathlib.Path] = []
    others: list[str] = []
    for text in paths:
        path = pathlib.Path(text)
        if os.path.isdir(text):  # pathlib's questions fail at names that are too long or hold a NUL
            names = Folder(text).names
            found += [path / name for name in names if is_picture(name)]
            ignored = [name for name in names if not is_picture(name)]
            if ignored:
                logging.warning(
                    "%s: %d files are no pictures by their suffix: %s.", text, len(ignored), by_suffix(ignored)
                )
            others += ignored
        elif os.path.exists(text):
            found.append(path)
        else:
            gone = " It is a link to nothing." if os.path.islink(text) else ""
            raise InputError(f"There is no file or folder {text[:200]}.{gone}")
    if not found:
        also = f", only {by_suffix(others)}" if others else ""
        raise InputError(f"There is no picture to predict{also}; name files, or folders that hold some.")
    return found
