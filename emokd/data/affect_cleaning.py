"""Selects AffectNet's faces: with an expression, of the requested classes, and consistent by EmoNet's rules."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int

from emokd.data.options import choice
from emokd.data.tables.classes import AFFECTNET
from emokd.data.tables.consistency import report_losses, warn_of_contradictions
from emokd.errors import InputError

OPTIONS = ("classes", "cleaning", "no_expression")
"""The options that `select` reads."""

CLASSES: Mapping[str, tuple[str, ...]] = {
    "8": AFFECTNET,
    "7": AFFECTNET[:7],
    "5": ("neutral", "happy", "sad", "surprise", "anger"),
}
"""Class lists by their length: all eight; without contempt; the five of EmoNet's smaller model, in its order."""

CLEANINGS = ("none", "emonet")
NO_EXPRESSION = ("none", "uncertain", "no face")
"""Meanings of the codes 8, 9 and 10, which follow the eight expressions."""

MISSING = -2.0
"""The value with which AffectNet marks missing valence or arousal."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """The selected faces.

    Attributes:
      name: the data set's name; it mentions the cleaning, since scores on the cleaned list and on the raw one differ.
      kept: int64 [M], the indices of the selected faces.
      columns: `expression` int32 [M] and `valence_arousal` float32 [M, 2], NaN where there is none.
      classes: names of the expressions by id.
    """

    name: str
    kept: np.ndarray
    columns: Mapping[str, np.ndarray]
    classes: tuple[str, ...]


def emonet_keeps(
    expression: Int[np.ndarray, " N"], valence: Float[np.ndarray, " N"], arousal: Float[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Whether each face's valence and arousal agree with its expression, by the rules of EmoNet's authors.

    With r = sqrt(valence^2 + arousal^2), these are kept: neutral with r < .2; happy with valence > 0; sad, disgust
    and contempt with valence < 0; surprise and anger with arousal > 0; fear with valence <= 0 and arousal >= 0; and
    all but neutral only with r > .2, disgust with r > .3. (Toisoul et al. 2021.)

    Args:
      expression: AffectNet's codes, 0 to 7.
      valence: in [-1, 1], in float64 as the files have it: float32 would move faces across the limits.
      arousal: likewise.

    Returns:
      bool [N]; False where valence or arousal is NaN, because agreement cannot be judged. [ours]
    """
    intensity = np.sqrt(valence**2 + arousal**2)
    strong = intensity > 0.2
    keeps = {
        "neutral": intensity < 0.2,
        "happy": (valence > 0) & strong,
        "sad": (valence < 0) & strong,
        "surprise": (arousal > 0) & strong,
        "fear": (arousal >= 0) & (valence <= 0) & strong,
        "disgust": (valence < 0) & (intensity > 0.3),
        "anger": (arousal > 0) & strong,
        "contempt": (valence < 0) & strong,
    }
    return np.stack([keeps[name] for name in AFFECTNET])[expression, np.arange(len(expression))]


def select(
    name: str,
    expression: Float[np.ndarray, " N"],
    valence_arousal: Float[np.ndarray, "N 2"],
    options: Mapping,
    where: Callable[[int, str], str],
) -> Selection:
    """Checks AffectNet's labels and selects faces by the options. Logs how many faces of each class are left out.

    Args:
      name: the data set's name.
      expression: codes as they are in the files: 0 to 7, and 8 none, 9 uncertain, 10 no face.
      valence_arousal: in [-1, 1], or -2 where there is none; float64.
      options: `classes`: 8 (default), 7 (without contempt) or 5 (neutral, happy, sad, surprise, anger: EmoNet's
        order), faces of other classes are left out; `cleaning`: `none` (default) or `emonet`, see `emonet_keeps`, for
        all splits alike; `no_expression`: what to do with codes 8 to 10: `drop` (default) or `refuse`.
      where: `where(i, field)` gives file and line of face i's "expression", "valence" or "arousal", for messages.

    Raises:
      InputError: an unknown option value; an unknown expression code; valence or arousal is outside [-1, 1] and not
        -2; a face has no expression and `no_expression` is `refuse`; no face is left.
    """
    classes = CLASSES[choice("classes", str(options.get("classes") or 8), tuple(CLASSES))]
    cleaning = choice("cleaning", options.get("cleaning") or "none", CLEANINGS)
    policy = choice("no_expression", options.get("no_expression") or "drop", ("drop", "refuse"))
    codebook = [*AFFECTNET, *NO_EXPRESSION]
    wrong = ~np.isin(expression, np.arange(len(codebook)))
    if wrong.any():
        i = int(wrong.argmax())
        raise InputError(
            f"{where(i, 'expression')}: there is no expression code {expression[i]:g}. The codes are "
            f"{', '.join(f'{code} {label}' for code, label in enumerate(codebook))}."
        )
    codes = expression.astype(np.int64)
    alive = codes < len(AFFECTNET)
    if policy == "refuse" and not alive.all():
        i = int(alive.argmin())
        raise InputError(
            f"{where(i, 'expression')}: the face has no expression (code {codes[i]}, {codebook[codes[i]]}); there are "
            f"{np.count_nonzero(~alive)} such faces. Remove them, or set config.data.options.no_expression to 'drop'."
        )
    affect = _affect(valence_arousal, where)

    _report(name, "no expression", codes, alive, ~alive, codebook)
    wanted = np.isin(codes, [AFFECTNET.index(label) for label in classes])
    _report(name, f"not among the {len(classes)} classes", codes, alive, alive & ~wanted, codebook)
    alive &= wanted
    if cleaning == "emonet":
        warn_of_contradictions(name, codes[alive], affect[alive], AFFECTNET)
        agrees = np.zeros(len(codes), bool)
        agrees[alive] = emonet_keeps(codes[alive], *affect[alive].T)
        why = "valence and arousal that disagree with the expression"
        _report(name, why, codes, alive, alive & ~agrees, codebook)
        report_losses(name, codes[alive], codes[alive & agrees], AFFECTNET, why)
        alive &= agrees
        name = f"{name} (cleaned as EmoNet's)"
    if not alive.any():
        raise InputError(f"{name}: none of the {len(codes)} faces is left. Check config.data.options and the labels.")
    kept = np.flatnonzero(alive)
    missing = np.isnan(affect[kept]).any(axis=1).sum()
    logging.info(
        "%s: %d of %d faces are used; %d of them lack valence or arousal.", name, len(kept), len(codes), missing
    )
    ids = np.array([classes.index(label) if label in classes else -1 for label in AFFECTNET], np.int32)
    columns = {"expression": ids[codes[kept]], "valence_arousal": affect[kept].astype(np.float32)}
    return Selection(name, kept, columns, classes)


def _affect(valence_arousal: np.ndarray, where: Callable[[int, str], str]) -> np.ndarray:
    """Valence and arousal with NaN for what is missing."""
    wrong = ~((np.abs(valence_arousal) <= 1) | (valence_arousal == MISSING))
    if wrong.any():
        i, side = (int(v) for v in np.argwhere(wrong)[0])
        column = ("valence", "arousal")[side]
        raise InputError(
            f"{where(i, column)}: {column} is {valence_arousal[i, side]:g}, outside [-1, 1] "
            f"(only {MISSING:g} means that it is missing). Correct or remove the face."
        )
    return np.where(valence_arousal == MISSING, np.nan, valence_arousal)


def _report(
    name: str, why: str, codes: np.ndarray, before: np.ndarray, dropped: np.ndarray, codebook: Sequence[str]
) -> None:
    """Logs how many faces of each class are left out."""
    if dropped.any():
        total = np.bincount(codes[before | dropped], minlength=len(codebook))
        count = np.bincount(codes[dropped], minlength=len(codebook))
        shown = ", ".join(f"{label} {count[i]} of {total[i]}" for i, label in enumerate(codebook) if count[i])
        logging.info("%s: %d faces left out (%s): %s.", name, np.count_nonzero(dropped), why, shown)
