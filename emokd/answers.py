"""Outputs of a teacher that emokd does not have: the pictures to run it on, and the file that stores its answers.

    from emokd import answers
    from emokd.configuration import config as configuration

    run = configuration.load("configs/smkd/folder.py")
    with answers.Writer("mine.npz", run) as file:
        for seen in answers.pictures(run, size=224):
            file.add(seen, features=my_network(seen.images))

Then `--config.teachers.mine.answers=mine.npz`. docs/answers.md says more.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from types import TracebackType

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, UInt8

from emokd.data.augment import Augmentation, centre_views, render, sample_views
from emokd.data.cache.answers import OUTPUTS, view_settings
from emokd.data.cache.reader import CENTRE
from emokd.data.canvases import BadImages
from emokd.data.examples import Examples
from emokd.data.pipeline import evaluation_batches
from emokd.errors import InputError, excerpt
from emokd.files import written_whole
from emokd.jobs import datasets


@dataclasses.dataclass(frozen=True)
class Seen:
    """A batch of pictures, as the student sees them in one view.

    Attributes:
      names: the examples' keys, [b].
      view: the view's number, or -1 for the evaluation view: the whole canvas as it is.
      images: RGB, [b, size, size, 3].
    """

    names: list[str]
    view: int
    images: UInt8[np.ndarray, "b S S 3"]


def pictures(config: ml_collections.ConfigDict, size: int, batch_size: int = 64) -> Iterator[Seen]:
    """Yields every picture of a run, those without labels included, in every view that the student's training uses.

    The views are 0 to `config.data.views` - 1 and -1. Where `config.data.views` is 0 the training's views never repeat,
    and -1 is the only one here.

    Args:
      config: the run's configuration; only its section `data` is read.
      size: side of the pictures, pixels.
      batch_size: how many pictures come at once.

    Raises:
      InputError: the data cannot be read, or a picture cannot be decoded.
    """
    data = config.data
    parts, unlabelled = datasets.load_data(config)
    sets = [*parts.values(), *([] if unlabelled is None else [unlabelled])]
    augmentation = Augmentation(**data.augment.to_dict())

    @jax.jit
    def look(batch, view):
        rows = batch["image"].shape[0]
        drawn = sample_views(batch["id"], jnp.full(rows, view, jnp.int32), augmentation, data.view_seed)
        return _to_bytes(render(batch["image"], drawn, size))

    @jax.jit
    def look_straight(batch):
        return _to_bytes(render(batch["image"], centre_views(batch["image"].shape[0]), size))

    for examples in sets:
        for first, batch in enumerate(_canvases(examples, data, batch_size)):
            names = list(examples.keys[first * batch_size : (first + 1) * batch_size])
            for view in (*range(data.views), CENTRE):
                images = look_straight(batch) if view == CENTRE else look(batch, view)
                yield Seen(names, view, np.asarray(images)[: len(names)])


def _to_bytes(pixels: Float[jax.Array, "B S S 3"]) -> UInt8[jax.Array, "B S S 3"]:
    return jnp.round(255 * pixels).astype(jnp.uint8)


def _canvases(examples: Examples, data: ml_collections.ConfigDict, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    bad = BadImages()
    batches = evaluation_batches(
        examples,
        batch_size=batch_size,
        canvas=data.canvas,
        fit=data.fit,
        num_threads=data.num_threads,
        max_bad_fraction=1.0,  # the loop below refuses the first unreadable picture by its name
        bad_images=bad,
    )
    for batch in batches:
        if len(bad):
            name, reason = next(iter(bad.reasons.items()))
            raise InputError(
                f"{name} cannot be read ({reason}). Answers are needed for every picture: remove the file."
            )
        yield {name: batch[name] for name in ("image", "id")}


class Writer:
    """Collects answers in memory and writes them when its `with` block ends without an error, whole or not at all."""

    def __init__(self, path: str | os.PathLike, config: ml_collections.ConfigDict, classes: list[str] | None = None):
        """Checks that the file can be written, because computing the answers may take hours; opens nothing yet.

        Args:
          path: the .npz file to write.
          config: the run's configuration, the same as for `pictures`.
          classes: the class names of the logits, in order; None where there are no logits or they have no names.

        Raises:
          InputError: the folder does not exist, or `path` is a folder.
        """
        parent = pathlib.Path(path).absolute().parent
        if not parent.is_dir() or pathlib.Path(path).is_dir():
            raise InputError(f"{path} cannot be written: give a file in a folder that exists ({parent}).")
        self._path, self._config, self._classes = pathlib.Path(path), config, classes
        self._found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self._widths: dict[str, int] = {}

    def add(self, seen: Seen, **outputs: Float[np.ndarray, "b D"]) -> None:
        """Adds the teacher's outputs for one batch of pictures.

        Args:
          seen: the pictures.
          **outputs: any of `features` [b, D], `logits` [b, C] and `valence_arousal` [b, 2]; the same ones in each call.

        Raises:
          InputError: an output has another name, not one row per picture, another width than before, or values that are
            not finite; or the outputs are not those of earlier calls.
        """
        for name, values in outputs.items():
            if name not in OUTPUTS or np.ndim(values) != 2 or len(values) != len(seen.names):
                raise InputError(
                    f"Answers {name!r} of shape {list(np.shape(values))} for {len(seen.names)} pictures: give "
                    f"{', '.join(OUTPUTS)}, one row for each picture."
                )
        arrays = {name: np.asarray(values, np.float32) for name, values in outputs.items()}
        widths = {name: values.shape[1] for name, values in arrays.items()}
        self._widths = self._widths or widths
        if widths != self._widths or not widths:
            raise InputError(f"Answers of the widths {widths} after {self._widths or 'none'}: give the same each time.")
        wrong = [key for i, key in enumerate(seen.names) if not all(np.isfinite(v[i]).all() for v in arrays.values())]
        if wrong:
            raise InputError(f"The answers for {excerpt(wrong, 3)} (view {seen.view}) are infinite or no numbers.")
        for i, key in enumerate(seen.names):
            self._found[key, seen.view] = {name: values[i] for name, values in arrays.items()}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if kind is None:
            arrays = dict(self._arrays())
            with written_whole(self._path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs take names for `allow_pickle`

    def _arrays(self) -> Mapping[str, np.ndarray]:
        names = sorted({name for name, _ in self._found})
        views = sorted({view for _, view in self._found})
        if not names:
            raise InputError(f"{self._path}: no answer was added, so nothing was written.")
        lacking = [(name, view) for name in names for view in views if (name, view) not in self._found]
        if lacking:
            raise InputError(f"{self._path}: {len(lacking)} answers are missing, such as view {lacking[0][1]} of "
                             f"{lacking[0][0]}. Add every view of every picture.")  # fmt: skip
        outputs = self._found[names[0], views[0]]
        stacked = {o: np.array([[self._found[n, v][o] for v in views] for n in names]) for o in outputs}
        arrays = {"names": np.array(names)}
        if self._classes is not None:
            arrays["classes"] = np.array(self._classes)
        if views == [CENTRE]:
            return {**arrays, **{name: values[:, 0] for name, values in stacked.items()}}
        return {**arrays, **stacked, "views": np.array(views), "settings": np.array(view_settings(self._config.data))}
