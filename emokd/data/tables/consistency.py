"""Warns of likely mistakes in labels: classes that contradict their valence, that vanish, look-alike subjects."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from emokd.data.examples import Examples
from emokd.data.tables import classes as class_lists
from emokd.data.tables.class_list import check_classes
from emokd.data.tables.expressions import expression_ids
from emokd.errors import excerpt
from emokd.names import essence, look_alikes, number_essence

_POSITIVE = """
    happy happiness happily hap joy joyful joyous enjoyment amusement amused amusing contentment content contented
    excitement excited exc awe delight delighted love loving pleasure pleased pleasant satisfaction satisfied gratitude
    cheerful glad smile smiling laughter laughing positive serenity serene hope hopeful pride proud relief
    joie heureux freude freudig glücklich alegría alegre felicidad feliz gioia felice alegria felicidade
"""
_NEGATIVE = """
    sad sadness unhappy anger angry ang rage disgust disgusted dis fear fearful fea afraid scared contempt
    contemptuous anxiety anxious depressed depression grief hate hatred horror terror terrified pain suffering shame
    guilt disappointment disappointed frustration frustrated fru annoyance annoyed misery miserable negative unpleasant
    despair lonely loneliness worry worried
    tristesse triste colère peur dégoût trauer traurig wut wütend ärger angst ekel tristeza ira enojo miedo asco rabbia
    paura disgusto raiva medo nojo
"""
_NEUTRAL = "neutral neutre neu neutrale"
_AROUSED = "excitement excited exc rage anger angry ang fear fearful terror panic surprise surprised alarmed"
_CALM = "calm calmness relaxed relaxation serene serenity sleepy tired bored boredom contentment drowsy"

MARGIN, NEUTRAL_MARGIN, LEAST = 0.1, 0.35, 10
"""How far on the wrong side of 0 a mean valence contradicts a class's name, the same for neutral classes, and the least
number of examples. [ours]"""

LOST = 0.9
"""A class that loses this share of its examples to one rule is reported. [ours]"""


def _words(text: str) -> frozenset[str]:
    return frozenset(map(essence, text.split()))


_VALENCE = {**dict.fromkeys(_words(_POSITIVE), 1), **dict.fromkeys(_words(_NEGATIVE), -1)}
_NEUTRALS = _words(_NEUTRAL)
_AROUSAL = {**dict.fromkeys(_words(_AROUSED), 1), **dict.fromkeys(_words(_CALM), -1)}
_NEGATIONS = _words("not no non without less")
_ORDERS = {
    "AffectNet's order": class_lists.AFFECTNET,
    "FER+'s order": class_lists.FERPLUS,
    "FER2013's order": class_lists.FER2013,
    "Mikels' order": class_lists.MIKELS,
    "EmoSet's order": class_lists.EMOSET,
    "Emotion6's order": class_lists.EMOTION6,
}


def check(examples: Examples) -> None:
    """Warns of likely mistakes in the labels of a whole data set; logs the numbers of unlabelled examples.

    Raises:
      InputError: two classes differ in letter case or spaces alone.
    """
    for column, names in examples.classes.items():
        check_classes(names, what=f"{examples.name}, {column}")
    _count_unlabelled(examples)
    if (labels := expression_ids(examples)) is not None:
        names = examples.classes["expression"]
        warn_of_unused(examples.name, labels, names)
        if "valence_arousal" in examples.columns:
            warn_of_contradictions(examples.name, labels, examples.columns["valence_arousal"], names)
    if examples.groups is not None:
        for same in look_alikes(map(str, examples.groups), by=number_essence):
            logging.warning(
                "%s: the groups (subjects) %s count as different, though they differ in letter case, spaces or leading "
                "zeros alone. If they are one person, write one name: else that person may be trained and tested on.",
                examples.name,
                ", ".join(map(repr, same)),
            )


def warn_of_unused(name: str, labels: Int[np.ndarray, " N"], classes: Sequence[str]) -> None:
    """Warns of classes without an example, and of examples that are all of one class.

    Where the first class alone has no example, the warning says that the codes may count from 1.
    """
    count = np.bincount(labels[labels >= 0], minlength=len(classes))
    if np.count_nonzero(count) == 1:
        logging.warning(
            "%s: all labelled examples are of the class %r, so there is nothing to tell apart.",
            name,
            classes[int(count.argmax())],
        )
    unused = [label for label, n in zip(classes, count, strict=True) if not n]
    if unused == [classes[0]] and len(classes) > 2:
        logging.warning(
            "%s: no example has the first class %r (code 0), while all others occur: if the codes count from 1, every "
            "label is off by one class. Take 1 off every code, or leave the class out of the class list.",
            name,
            classes[0],
        )
    elif unused and count.any():
        logging.warning("%s: no example has the class %s.", name, excerpt(map(repr, unused)))


def warn_of_contradictions(
    name: str, labels: Int[np.ndarray, " N"], affect: Float[np.ndarray, "N 2"], classes: Sequence[str]
) -> list[str]:
    """Warns of classes whose mean valence (or arousal) contradicts their name, see `find_contradictions`.

    Returns:
      The classes.
    """
    wrong, sentence = find_contradictions(labels, affect, classes)
    if wrong:
        logging.warning("%s: %s", name, sentence)
    return wrong


def find_contradictions(
    labels: Int[np.ndarray, " N"], affect: Float[np.ndarray, "N 2"], classes: Sequence[str]
) -> tuple[list[str], str]:
    """Classes whose mean valence (or arousal) contradicts their name. [ours]

    A class contradicts its name when it has at least `LEAST` examples with a value, its mean lies beyond the margin on
    the wrong side of 0, and it stays on that side when two standard errors are added.

    Returns:
      The classes, and what to say of them with the likely cause.
    """
    wrong, described = [], []
    means = np.full((len(classes), 2), np.nan)
    for i, label in enumerate(classes):
        for side, word in enumerate(("valence", "arousal")):
            values = affect[labels == i, side].astype(np.float64)
            values = values[np.isfinite(values)]
            if len(values) < LEAST:
                continue
            means[i, side] = values.mean()
            if _contradicts(label, side, means[i, side], 2 * values.std() / len(values) ** 0.5):
                wrong.append(label)
                described.append(f"{label!r} has a mean {word} of {means[i, side]:+.2f} ({len(values)} examples)")
    return list(dict.fromkeys(wrong)), (
        f"classes contradict their valence or arousal: {'; '.join(described)}. Are the codes shifted, permuted or in "
        f"another order{_likely_cause(classes, means)}? Check the class list against the set's own description."
    )


def report_losses(
    name: str, before: Int[np.ndarray, " N"], after: Int[np.ndarray, " M"], classes: Sequence[str], why: str
) -> None:
    """Warns of classes that lose all or nearly all of their examples to a rule.

    Args:
      name: the data set's name.
      before: class ids before the rule; UNLABELLED ones are ignored.
      after: class ids of the examples that are left.
      classes: the classes' names.
      why: the rule, for the message.
    """
    had, left = (np.bincount(ids[ids >= 0], minlength=len(classes)) for ids in (before, after))
    lost = [
        f"{label} {had[i] - left[i]} of {had[i]}"
        for i, label in enumerate(classes)
        if had[i] and (not left[i] or (had[i] >= LEAST and left[i] <= (1 - LOST) * had[i]))
    ]
    if lost:
        logging.warning(
            "%s: classes lose all or nearly all of their examples (%s): %s. Are the codes in another order than the "
            "class list?",
            name,
            why,
            ", ".join(lost),
        )


def polarity(label: str, words: Mapping[str, int] = _VALENCE) -> int:
    """The sign of valence (or another measure) that a class's name implies by `words`: 1, -1, or 0 for none."""
    whole = essence(label)
    if whole in words:
        return words[whole]
    parts = [essence(part) for part in re.split(r"[\s_\-/.,&+]+", label)]
    signs = {words[part] for part in parts if part in words}
    return signs.pop() if len(signs) == 1 and not _NEGATIONS.intersection(parts) else 0


def _contradicts(label: str, side: int, mean: float, error: float) -> bool:
    if side == 0 and essence(label) in _NEUTRALS:
        return abs(mean) - error > NEUTRAL_MARGIN
    sign = polarity(label, (_VALENCE, _AROUSAL)[side])
    # Arousal is rarely rated below the middle of its scale, so only a clearly high mean contradicts a calm class.
    margin = MARGIN if side == 0 else 3 * MARGIN
    return bool(sign) and -sign * mean > margin and -sign * mean - error > 0


def _likely_cause(classes: Sequence[str], means: Float[np.ndarray, "C 2"]) -> str:
    """Says which other order of the classes would contradict no class's name; empty where none is found."""
    candidates = {
        "alphabetical": sorted(classes),
        "codes one too high": [classes[-1], *classes[:-1]],
        "codes one too low": [*classes[1:], classes[0]],
        "reversed": list(reversed(classes)),
        **{order: list(names) for order, names in _ORDERS.items() if len(names) == len(classes)},
    }
    for cause, names in candidates.items():
        pairs = [(names[i], means[i, 0]) for i in range(len(classes)) if np.isfinite(means[i, 0])]
        if list(names) != list(classes) and not any(_contradicts(label, 0, mean, 0.0) for label, mean in pairs):
            return f" ({cause}: {', '.join(names)} would fit)"
    return ""


def _count_unlabelled(examples: Examples) -> None:
    counts = []
    for column, values in examples.columns.items():
        if column == "votes":
            missing = ~(values != 0).any(axis=1)
        elif np.issubdtype(values.dtype, np.integer):
            missing = values < 0
        else:
            missing = np.isnan(values).reshape(len(values), -1).any(axis=1)
        if missing.all():
            logging.warning("%s: no example has a label (%s); nothing can be learnt from it.", examples.name, column)
        elif missing.any():
            counts.append(f"{column} {np.count_nonzero(missing)}")
    if counts:
        logging.info("%s: of %d examples, unlabelled: %s.", examples.name, len(examples), ", ".join(counts))
