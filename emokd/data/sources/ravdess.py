"""RAVDESS (Livingstone and Russo 2018): 1,440 spoken clips of 24 actors, as features of the face and of the sound."""

import os
from collections.abc import Mapping

import numpy as np

from emokd.data.arrays import array_examples, as_features, check_rows, read_names, read_npz
from emokd.data.examples import Examples
from emokd.data.pictures import check_options
from emokd.errors import InputError, excerpt

TABLE = "features.npz"
CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
SPLIT_OPTIONS = ("fold",)
"""Options that decide the split, which a teacher trained by a run takes from it."""
FEATURES = ("action_units", "mfcc", "wav2vec2_logits")


def load(directory: str, options: Mapping) -> Examples:
    """Loads the clips: inputs `features/action_units`, `features/mfcc`, `features/wav2vec2_logits`; groups: actors.

    `wav2vec2_logits` come from one model per fold: a clip's logits are those of the model that was not trained on its
    actor. In a division of your own, models whose logits a test actor has may have been trained on the labels of other
    test actors. Only in the file's own folds (option `fold`) have they been trained on no test actor.

    Args:
      directory: holds `features.npz` with the three tables and `emotion` (0 to 7), `actor`, `fold`, `name`, row by row.
      options: `fold`: this one of the file's own actor-disjoint folds becomes the test split, the rest train, of
        which the configuration's share is cut off for validation, in whole actors. Without it (the
        default, None), the set prescribes no split.

    Raises:
      InputError: the file or an array is missing, rows do not match, there is no such emotion or fold.
    """
    check_options("ravdess", options, ("fold",))
    path = os.path.join(directory, TABLE)
    arrays = read_npz(path, (*FEATURES, "emotion", "actor", "fold", "name"))
    check_rows(path, arrays)
    for key in ("emotion", "actor", "fold"):
        if arrays[key].ndim != 1:
            raise InputError(f"{path}: `{key}` has the shape {list(arrays[key].shape)}. Save one number for each clip.")
    emotion = arrays["emotion"]
    wrong = np.flatnonzero(~np.isin(emotion, np.arange(len(CLASSES))))
    if len(wrong):
        raise InputError(
            f"{path}: `emotion` is {emotion[wrong[0]]} in row {wrong[0]} (from 0), and wrong in {len(wrong)} rows. "
            f"The codes are {', '.join(f'{i} {name}' for i, name in enumerate(CLASSES))}."
        )
    return array_examples(
        "ravdess",
        read_names(path, arrays["name"]),
        {"expression": emotion.astype(np.int32)},
        {"expression": CLASSES},
        {f"features/{name}": as_features(arrays[name], f"{path}:{name}") for name in FEATURES},
        splits=_splits(arrays["fold"], options.get("fold")),
        groups=[f"actor{actor:02d}" for actor in _actors(path, arrays["actor"])],
    )


def _actors(path: str, actors: np.ndarray) -> list[int]:
    """The actors' numbers, which may be stored as 3.0."""
    values = actors.tolist()
    wrong = [i for i, actor in enumerate(values) if not (isinstance(actor, int | float) and actor % 1 == 0)]
    if wrong:
        raise InputError(
            f"{path}: `actor` is {values[wrong[0]]!r} in row {wrong[0]} (from 0), and wrong in {len(wrong)} rows. "
            "Save the actors' numbers."
        )
    return [int(actor) for actor in values]


def _splits(folds: np.ndarray, fold: int | None) -> list[str] | None:
    if fold is None:
        return None
    if fold not in folds.tolist():
        raise InputError(
            f"config.data.options.fold is {fold!r}; the file's folds are {excerpt(sorted(set(folds.tolist())))}."
        )
    return ["test" if fold_of_row == fold else "train" for fold_of_row in folds.tolist()]
