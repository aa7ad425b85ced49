"""Reads, checks and looks up a teacher's answers from a file that the user's own script has written.

An .npz file (`numpy.savez`) of these arrays:

    names             [N] texts: the examples' keys, such as a picture's path inside the data set
    features          [N, D] or [N, V, D]
    logits            [N, C] or [N, V, C], with
    classes           [C] texts, the names of the logits
    valence_arousal   [N, 2] or [N, V, 2]
    views             [V] whole numbers, where there is a second axis: 0, 1, ... and -1, the evaluation view
    settings          a text, where there is a second axis: how the views were drawn (`view_settings`)

Refused are: pictures without an answer; views that the run draws and the file lacks, or that were drawn with other
settings; class lists that do not match the logits; answers that are NaN or infinite.
"""

import hashlib
import json
import pathlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Float, UInt64

from emokd.data.arrays import read_npz
from emokd.data.cache.reader import CENTRE, long_ids
from emokd.data.examples import Examples, stable_hash
from emokd.data.tables.class_list import check_classes
from emokd.errors import InputError, excerpt, nearest
from emokd.names import normal, normal_path

_SCALE = 2.0
"""Networks may answer valence or arousal somewhat beyond 1; from this magnitude on, with AffectNet's mark -2 of what is
missing, a warning asks for the scale. [ours]
"""

_COARSE = 0.1
"""Columns that rounding to float32 moves by more than this share of their standard deviation are reported. [ours]"""

OUTPUTS = ("features", "logits", "valence_arousal")
_BESIDES = ("classes", "views", "settings")


class AnswersFile:
    """The answers of one teacher.

    Attributes:
      path: the file.
      widths: the number of columns of each of `OUTPUTS` that the file holds.
      classes: the names of the logits.
      views: the numbers of the views, or None where a picture has one answer for all of them.
      settings: how the views were drawn, as JSON; empty without views.
      origin: the file's name and hash, for the log.
    """

    def __init__(self, path: pathlib.Path):
        """Reads a file.

        Raises:
          InputError: it is missing or damaged, or its arrays do not fit each other.
        """
        self.path = path
        arrays = read_npz(str(path), ["names"], optional=[*OUTPUTS, *_BESIDES])
        self._names = _texts(arrays["names"], f"{path}, array 'names'")
        outputs = {name: arrays[name] for name in OUTPUTS if name in arrays}
        if not outputs:
            raise InputError(f"{path} holds no answers: save at least one of the arrays {', '.join(OUTPUTS)}.")
        self.views = _views(arrays["views"], path) if "views" in arrays else None
        self.settings = _settings(arrays["settings"], path) if "settings" in arrays else ""
        if self.views is not None and not self.settings:
            raise InputError(
                f"{path} has views but does not say how they were drawn (array 'settings'): write it by "
                "emokd.answers.Writer."
            )
        values = {name: _answers(array, name, path, self._names, self.views) for name, array in outputs.items()}
        rounded = [text for name, array in outputs.items() if (text := _rounding(array, values[name], name, path))]
        self.widths = {name: array.shape[-1] for name, array in values.items()}
        self.classes = _classes(arrays.get("classes"), self.widths.get("logits"), path)
        if self.widths.get("valence_arousal", 2) != 2:
            raise InputError(
                f"{path}: valence_arousal has {self.widths['valence_arousal']} columns; give two, valence and arousal."
            )
        self._rows = np.concatenate(list(values.values()), axis=-1)  # [N, V, W]
        self._places = _spellings(self._names, f"{path}, array 'names'")
        ids = _ids(list(self._places))
        order = np.argsort(ids)
        self._index, self._row_of = ids[order], np.array(list(self._places.values()))[order]
        self._doubts = [*_doubts(values), *rounded, *_unread(path)]
        self.origin = f"{path.name} (sha256 {_file_hash(path)[:16]})"

    def check(self, teacher: str, sets: Iterable[Examples], data: ml_collections.ConfigDict) -> None:
        """Checks that the file has an answer for every picture and view of a run. Warns of what looks unintended.

        Args:
          teacher: its name in the configuration.
          sets: all examples of the run.
          data: the run's `config.data`.

        Raises:
          InputError: a picture or a view has no answer, the views were drawn with other settings, or pictures of two
            sets have the same name.
        """
        sets = list(sets)
        owners = {key: examples.name for examples in sets for key in examples.keys}
        keys = set(owners)
        shared = sorted({key for examples in sets for key in examples.keys if owners[key] != examples.name})
        if shared:
            raise InputError(
                f"config.teachers.{teacher}.answers: {' and '.join(dict.fromkeys(e.name for e in sets))} have "
                f"{len(shared)} pictures of the same names, which one answer cannot tell apart: {excerpt(shared)}. "
                "Rename the files of one of them."
            )
        missing = sorted(key for key in keys if key not in self._places)
        if missing:
            raise InputError(
                f"config.teachers.{teacher}.answers: {self.path} has no answer for {len(missing)} of {len(keys)} "
                f"pictures of {', '.join(dict.fromkeys(e.name for e in sets))}: {excerpt(missing)}. It has "
                f"{len(self._names)} names, such as {excerpt(self._names, 2)}. Names are paths inside the data set."
            )
        if unused := len(self._names) - len({self._places[key] for key in keys}):
            logging.info(
                "%s: %d of its %d answers are of pictures that this run does not have.",
                *(self.path, unused, len(self._names)),
            )
        for doubt in self._doubts:
            logging.warning("Teacher %s: %s", teacher, doubt)
        if self.views is None:
            logging.warning(
                "Teacher %s: one answer for each picture stands for all of its views; crops and flips are answered as "
                "the picture itself. docs/answers.md says how to answer views.",
                teacher,
            )
            return
        self._check_views(teacher, self.views, data)

    def _check_views(self, teacher: str, views: Sequence[int], data: ml_collections.ConfigDict) -> None:
        where = f"config.teachers.{teacher}.answers: {self.path}"
        if not data.views:
            raise InputError(
                f"{where} answers {len(views) - 1} views, but with config.data.views=0 every epoch has new ones. "
                f"Set --config.data.views={len(views) - 1}."
            )
        lacking = sorted({*range(data.views), CENTRE} - set(views))
        if lacking:
            raise InputError(
                f"{where} lacks the views {excerpt(lacking)} of 0 to {data.views - 1} and {CENTRE}, the evaluation "
                "view. Lower config.data.views, or answer them too."
            )
        was, now = json.loads(self.settings), json.loads(view_settings(data))
        changed = [f"{key} (was {was.get(key)}, now {now[key]})" for key in now if was.get(key) != now[key]]
        if changed:
            raise InputError(
                f"{where} answers views that were drawn otherwise: {excerpt(changed)}. Answer this configuration's."
            )

    def lookup(self, batch: Mapping[str, np.ndarray]) -> Float[np.ndarray, "B W"]:
        """The answers for a host batch's ids and views: features, logits, valence and arousal, concatenated.

        Raises:
          InputError: a picture of the batch has no answer.
        """
        wanted = long_ids(batch["id"], batch["check"])
        places = np.minimum(np.searchsorted(self._index, wanted), len(self._index) - 1)
        # Padding rows have no id: what the search returns for them is not used.
        if (batch["mask"] & (self._index[places] != wanted)).any():
            raise InputError(f"{self.path} lacks answers for pictures of this run. Write it for the same config.data.")
        rows = self._row_of[places]
        if self.views is None:
            return self._rows[rows, 0]
        place = {view: i for i, view in enumerate(self.views)}
        return self._rows[rows, [place[view] for view in batch["view"].tolist()]]


def view_settings(data: ml_collections.ConfigDict) -> str:
    """The settings that, together with the picture, determine a view's pixels, as JSON."""
    settings = {
        "canvas": data.canvas,
        "fit": data.fit,
        "augment": data.augment.to_dict(),
        "view_seed": data.view_seed,
    }
    return json.dumps(settings, sort_keys=True)


def _ids(names: Sequence[str]) -> UInt64[np.ndarray, " N"]:
    """The long ids that examples with these keys have."""
    ids = np.array([stable_hash(name) for name in names], np.uint32)
    return long_ids(ids, np.array([stable_hash(name, salt="check") for name in names], np.uint32))


def _texts(array: np.ndarray, where: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US" or not len(array):
        raise InputError(f"{where} has the shape {list(array.shape)} and type {array.dtype}. Give a list of texts.")
    try:
        decoded = [each.decode() if isinstance(each, bytes) else each for each in array.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text ({error.object!r}). Save texts (dtype=str).") from error
    texts = [unicodedata.normalize("NFC", text) for text in decoded]
    twice = sorted(text for text, count in Counter(texts).items() if count > 1)
    if twice:
        raise InputError(f"{where}: {len(twice)} are there more than once: {excerpt(twice)}. Keep one of each.")
    return texts


def _spellings(names: Sequence[str], where: str) -> dict[str, int]:
    """The row of each name, also under its spelling in keys: a path without backslashes, `./` and outer spaces."""
    rows = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(names):
        for spelling in (normal(name), normal_path(normal(name))):
            other = rows.setdefault(spelling, i)
            if other != i and names[other] != spelling:
                raise InputError(f"{where}: {names[other]!r} and {name!r} are one path. Keep one of each.")
    return rows


def _doubts(values: Mapping[str, Float[np.ndarray, "N V D"]]) -> list[str]:
    """Warnings of answers that look unintended: probabilities as logits, valence or arousal on another scale."""
    doubts = []
    logits, affect = values.get("logits"), values.get("valence_arousal")
    if logits is not None and logits.shape[-1] > 1 and logits.min() >= 0 and (abs(logits.sum(-1) - 1) < 1e-3).all():
        doubts.append("its logits are numbers from 0 to 1 that sum to 1, as probabilities do. Save their logarithms.")
    if affect is not None and np.abs(affect).max() >= _SCALE:
        doubts.append(
            f"its valence or arousal reaches {np.abs(affect).max():.3g}, but the data's are from -1 to 1. Rescale "
            "them, or leave out the names without an answer, if that marks them."
        )
    return doubts


def _unread(path: pathlib.Path) -> list[str]:
    """A warning of arrays that are not read, whose names may be misspelt; empty where there are none."""
    known = ("names", *OUTPUTS, *_BESIDES)
    with np.load(path, allow_pickle=False) as archive:
        unread = [f"{name!r}.{nearest(name, known)}" for name in archive.files if name not in known]
    return [f"its file {path.name} has arrays that are not read: {' '.join(unread)}"] if unread else []


def _rounding(array: np.ndarray, values: Float[np.ndarray, "N V D"], name: str, path: pathlib.Path) -> str:
    """Says which columns float32 rounds by more than `_COARSE` of their standard deviation; empty where none.

    Raises:
      InputError: it does so with most of the columns that vary.
    """
    exact = array.astype(np.float64).reshape(-1, array.shape[-1])
    varied = exact.max(0) > exact.min(0)
    error = np.sqrt(((values.reshape(exact.shape) - exact) ** 2).mean(0))
    lost = np.flatnonzero(varied & (error > _COARSE * exact.std(0))).tolist()
    if not lost:
        return ""
    text = (
        f"{len(lost)} of {len(varied)} columns of {name!r} vary so little beside their size that float32, in which "
        f"they are read, moves them by more than {_COARSE:g} of their deviation: {excerpt(lost)} (from 0)."
    )
    if len(lost) > varied.sum() / 2:
        raise InputError(f"{path}: {text} Subtract each column's mean before you save them.")
    return f"{text} Saved without their columns' means they keep it."


def _settings(array: np.ndarray, path: pathlib.Path) -> str:
    text = array.reshape(-1)[0] if array.size == 1 else ""
    try:
        text = text.decode() if isinstance(text, bytes) else str(text)
        if isinstance(json.loads(text), dict):
            return text
    except ValueError:
        pass
    raise InputError(f"{path}: 'settings' does not say how views were drawn. Write the file by emokd.answers.Writer.")


def _views(array: np.ndarray, path: pathlib.Path) -> tuple[int, ...]:
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(set(array.tolist())) < len(array):
        raise InputError(f"{path}: 'views' must be different whole numbers, such as [0, 1, 2, -1].")
    return tuple(array.tolist())


def _answers(
    array: np.ndarray, name: str, path: pathlib.Path, names: Sequence[str], views: Sequence[int] | None
) -> Float[np.ndarray, "N V D"]:
    """One of the outputs as float32, with the axis of views."""
    lead = (len(names),) if views is None else (len(names), len(views))
    meaning = "[names, numbers]" if views is None else "[names, views, numbers]"
    if array.dtype.kind not in "fiu" or array.shape[:-1] != lead or not array.size:
        raise InputError(
            f"{path}: {name!r} has the shape {list(array.shape)} and type {array.dtype}; expected numbers "
            f"{meaning}: {[*lead, '...']}."
        )
    with np.errstate(over="ignore"):
        values = array.astype(np.float32).reshape(len(names), -1, array.shape[-1])
    wrong = ~np.isfinite(values).all((1, 2))
    if wrong.any():
        bad = [names[i] for i in np.flatnonzero(wrong).tolist()]
        raise InputError(f"{path}: {name!r} is infinite or no number for {len(bad)} names: {excerpt(bad)}. Correct it.")
    return values


def _classes(array: np.ndarray | None, logits: int | None, path: pathlib.Path) -> tuple[str, ...]:
    if logits is None:
        return ()
    if array is None:
        raise InputError(f"{path} has logits but no array 'classes' with their names, in their order. Save it too.")
    classes = tuple(_texts(array, f"{path}, array 'classes'"))
    check_classes(classes, what=f"{path}, array 'classes'")
    if len(classes) != logits:
        raise InputError(f"{path} has {logits} logits but {len(classes)} classes: {excerpt(classes)}. Correct one.")
    return classes


def _file_hash(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
