"""Painted faces: the embedded synthetic data set. Nothing is downloaded, nothing is read from disk.

SYNTHETIC: results on it show that the software works, never that a method does.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from emokd.data.examples import Examples
from emokd.data.painter import paint as painter
from emokd.data.painter import signals as painter_signals
from emokd.data.painter.state import EXPRESSIONS, IDENTITIES, SCENES, sample_state
from emokd.errors import InputError, nearest

NAME = "painted_faces (synthetic)"
INPUTS = ("image", "physiology", "audio")

_DEFAULTS = {"size": 64, "train": 2048, "validation": 512, "test": 512, "seed": 0, "inputs": ("image",)}
_MINIMUM = {"size": 16, "train": 1, "validation": 0, "test": 0, "seed": 0}
_MAXIMUM = {"size": 1024, "train": 2**32, "validation": 2**32, "test": 2**32, "seed": 2**63}
# Each split has its own range of painter indices: enlarging one changes no example of another.
_FIRST_INDEX = {"train": 0, "validation": 2**32, "test": 2**33}


def load(directory: str | None, options: Mapping) -> Examples:
    """Makes the synthetic data set; examples are painted when they are read.

    Columns: `expression` (AffectNet's eight, in its order), `valence_arousal`, and two further tasks, `identity`
    (16 people) and `scene` (8 backgrounds). Splits are prescribed; groups are the identities, of which every
    split has all: for subject-disjoint folds set `data.split.use_prescribed` to False.

    Args:
      directory: not used, there are no files.
      options: `size` of the pictures in pixels (64); how many examples in `train` (2048), `validation` (512) and
        `test` (512); `seed` (0): another seed gives other pictures of the same people; `inputs`: which of `image`
        (uint8 [size, size, 3]), `physiology` (float32 [1024, 3]) and `audio` (float32 [40, 64]) to give, only
        `image` by default. The same seed and example give the same values whatever else is asked for.

    Raises:
      InputError: an option is unknown or out of range.
    """
    del directory
    chosen = _check(options)
    seed, size = chosen["seed"], chosen["size"]
    splits = [name for name in _FIRST_INDEX for _ in range(chosen[name])]
    indices = [_FIRST_INDEX[name] + i for name in _FIRST_INDEX for i in range(chosen[name])]
    keys = [f"seed{seed}/{name}/{i - _FIRST_INDEX[name]:06d}" for name, i in zip(splits, indices, strict=True)]
    states = [sample_state(seed, i) for i in indices]

    def content(i: int) -> str:
        # These four determine the picture: their hash finds the same duplicates as the pixels', without painting.
        return hashlib.sha256(f"{painter.VERSION}/{seed}/{indices[i]}/{size}".encode()).hexdigest()

    identity = np.array([state.identity for state in states], np.int32)
    return Examples(
        name=NAME,
        keys=keys,
        columns={
            "expression": np.array([state.expression for state in states], np.int32),
            "valence_arousal": np.array([(state.valence, state.arousal) for state in states], np.float32),
            "identity": identity,
            "scene": np.array([state.scene for state in states], np.int32),
        },
        classes={"expression": EXPRESSIONS, "identity": IDENTITIES, "scene": SCENES},
        inputs={name: functools.partial(_read, _reader(name, size), seed, indices) for name in chosen["inputs"]},
        content=content,
        splits=np.array(splits),
        groups=np.array(IDENTITIES)[identity],
    )


def _reader(name: str, size: int) -> Callable[[int, int], np.ndarray]:
    if name == "image":
        return functools.partial(painter.paint_image, size=size)
    return {"physiology": painter_signals.physiology, "audio": painter_signals.sound}[name]


def _read(reader: Callable[[int, int], np.ndarray], seed: int, indices: list[int], i: int) -> np.ndarray:
    return reader(seed, indices[i])


def _check(options: Mapping) -> dict:
    for key in options:
        if key not in _DEFAULTS:
            raise InputError(
                f"data.options has no key {key!r} for the source 'painter'.{nearest(str(key), _DEFAULTS)} "
                f"Known: {', '.join(_DEFAULTS)}."
            )
    chosen = {**_DEFAULTS, **dict(options)}
    for key, minimum in _MINIMUM.items():
        value = chosen[key]
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < _MAXIMUM[key]:
            raise InputError(
                f"data.options.{key} is {value!r} for the source 'painter'; "
                f"give a whole number from {minimum} to {_MAXIMUM[key] - 1}."
            )
    inputs = (chosen["inputs"],) if isinstance(chosen["inputs"], str) else tuple(chosen["inputs"])
    for name in inputs:
        if name not in INPUTS:
            raise InputError(
                f"data.options.inputs names {name!r}.{nearest(str(name), INPUTS)} Choose among {', '.join(INPUTS)}."
            )
    if not inputs:
        raise InputError(f"data.options.inputs is empty. Choose among {', '.join(INPUTS)}.")
    return {**chosen, "inputs": inputs}
