"""Using a trained model on pictures."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emokd.data.augment import centre_views, render
from emokd.data.decode import DecodeError, read_file, to_canvas
from emokd.errors import InputError
from emokd.models.network import TrainedModel, functional

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class Predictor:
    """A model ready for uint8 pictures: decoding, canvas, normalisation and network as in its evaluation."""

    def __init__(self, model: TrainedModel, *, canvas: int, fit: str, batch_size: int):
        self.model, self.canvas, self.fit, self.batch_size = model, canvas, fit, batch_size
        network, preprocessing = functional(model.spec), model.spec.preprocessing

        def outputs(params, stats, images):
            view = centre_views(images.shape[0])
            signals, _ = network(params, stats, preprocessing(render(images, view, preprocessing.size)))
            found = {}
            if signals.logits is not None:
                found["expression"] = jax.nn.softmax(signals.logits)
            for head in model.spec.heads:
                if head not in ("expression", "valence_arousal"):
                    found[head] = jax.nn.softmax(signals.intermediates[head])
            if signals.valence_arousal is not None:
                found["valence_arousal"] = jnp.clip(signals.valence_arousal, -1, 1)
            return found

        self._outputs = jax.jit(outputs)
        self._weights = jax.device_put((model.params, model.stats))

    def predict(self, files: Iterable[pathlib.Path]) -> Iterator[dict[str, Any]]:
        """One record per file, in order: class and probabilities of each head, or `error` for an unreadable file."""
        waiting: list[dict[str, Any]] = []
        canvases: list[np.ndarray] = []
        for file in files:
            record: dict[str, Any] = {"file": str(file)}
            try:
                canvases.append(to_canvas(read_file(str(file), self.canvas), self.canvas, self.fit))
            except DecodeError as error:
                record["error"] = str(error)
            waiting.append(record)
            if len(canvases) == self.batch_size:
                yield from self._answer(waiting, canvases)
                waiting, canvases = [], []
        yield from self._answer(waiting, canvases)

    def _answer(self, records: list[dict[str, Any]], canvases: list[np.ndarray]) -> Iterator[dict[str, Any]]:
        outputs: dict[str, np.ndarray] = {}
        if canvases:
            # A short last batch is padded, so that there is one compiled program.
            padding = [np.zeros_like(canvases[0])] * (self.batch_size - len(canvases))
            outputs = jax.device_get(self._outputs(*self._weights, np.stack(canvases + padding)))
        row = 0
        for record in records:
            if "error" not in record:
                record |= self._describe({name: values[row] for name, values in outputs.items()})
                row += 1
            yield record

    def _describe(self, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
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
    """The files named, and every picture under the folders named, sorted.

    Raises:
      InputError: a path does not exist, or there is no picture at all.
    """
    found: list[pathlib.Path] = []
    for text in paths:
        path = pathlib.Path(text)
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"There is no file or folder {text}.")
    if not found:
        raise InputError(f"There is no picture ({', '.join(PICTURES)}) to predict; name files or folders.")
    return found
