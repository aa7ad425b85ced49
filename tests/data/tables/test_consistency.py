"""What labels must not contradict: their own valence, the class list, each other's names."""

import dataclasses

import numpy as np
import pytest

from emokd.data import sources
from emokd.data.affect_cleaning import select
from emokd.data.examples import Examples
from emokd.data.tables import classes as class_lists
from emokd.data.tables import consistency
from emokd.errors import InputError

AFFECTNET = class_lists.AFFECTNET
TRUE = dict(zip(AFFECTNET, (0.0, 0.7, -0.6, 0.15, -0.3, -0.6, -0.4, -0.5), strict=True))
"""A mean valence of each class, roughly AffectNet's."""


def faces(order, per_class=40, spread=0.15, seed=0):
    """Codes of a copy that counts the classes in `order`, and valence and arousal of the true classes."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(order)), per_class)
    valence = np.array([TRUE[order[code]] for code in codes]) + rng.normal(0, spread, len(codes))
    arousal = rng.uniform(0.25, 0.5, len(codes))
    return codes, np.clip(np.stack([valence, arousal], 1), -1, 1)


def warned(order, names=AFFECTNET, **options):
    codes, affect = faces(order, **options)
    return consistency.warn_of_contradictions("set", codes, affect, names)


def test_the_right_order_is_not_warned_of(caplog):
    for seed in range(20):
        assert warned(AFFECTNET, seed=seed) == []
    assert not caplog.text


def test_an_alphabetical_copy_is_warned_of_with_the_cause(caplog):
    wrong = warned(sorted(AFFECTNET))
    codes, affect = faces(sorted(AFFECTNET))
    mean = affect[codes == 1, 0].mean()  # "happy" by the list, contempt in truth
    assert "happy" in wrong
    assert f"'happy' has a mean valence of {mean:+.2f} (40 examples)" in caplog.text
    assert f"alphabetical: {', '.join(sorted(AFFECTNET))} would fit" in caplog.text


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        ([*AFFECTNET[-1:], *AFFECTNET[:-1]], "codes one too high"),
        ([*AFFECTNET[1:], *AFFECTNET[:1]], "codes one too low"),
        (AFFECTNET[::-1], "reversed"),
    ],
)
def test_shifted_and_reversed_codes(order, cause, caplog):
    assert warned(order)
    assert f"({cause}: {', '.join(order)} would fit)" in caplog.text


def test_few_examples_and_weak_means_are_no_evidence():
    assert warned(sorted(AFFECTNET), per_class=consistency.LEAST - 1) == []
    codes = np.zeros(400, int)
    affect = np.full((400, 2), -0.05)
    assert consistency.warn_of_contradictions("set", codes, affect, ("happy", "sad")) == []
    affect[::2, 0] = np.nan
    affect[1::2, 0] = -0.5
    assert consistency.warn_of_contradictions("set", codes, affect, ("happy", "sad")) == ["happy"]


def test_arousal_contradicts_too():
    codes = np.repeat([0, 1], 50)
    affect = np.stack([np.full(100, np.nan), np.repeat([-0.6, 0.8], 50)], 1)
    assert consistency.warn_of_contradictions("set", codes, affect, ("excited", "calm")) == ["excited", "calm"]
    assert consistency.warn_of_contradictions("set", 1 - codes, affect, ("excited", "calm")) == []


@pytest.mark.parametrize(
    "name", [*class_lists.MIKELS, *class_lists.EMOTION6, *class_lists.FERPLUS, *class_lists.FER2013]
)
def test_the_words_of_the_known_class_lists(name):
    sign = consistency.polarity(name)
    good = ("amusement", "awe", "contentment", "excitement", "joy", "happiness", "happy")
    assert sign == (1 if name in good else 0 if name in ("neutral", "surprise") else -1)


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("Happy", 1),
        ("very_sad", -1),
        ("Cole\u0300re", -1),
        ("positive_high_arousal", 1),
        ("not happy", 0),
        ("happy-sad", 0),
        ("x", 0),
    ],
)
def test_words_in_other_spellings(name, sign):
    assert consistency.polarity(name) == sign


def test_cleaning_that_takes_whole_classes_is_a_warning(caplog):
    codes, affect = faces(sorted(AFFECTNET))
    with caplog.at_level("WARNING"):
        kept = select("affectnet", codes.astype(float), affect, {"cleaning": "emonet"}, lambda i, c: str(i)).kept
    left = np.bincount(codes[kept], minlength=8)
    lost = [f"{name} {40 - left[i]} of 40" for i, name in enumerate(AFFECTNET) if left[i] <= 4]
    assert len(lost) >= 3
    assert "lose all or nearly all of their examples" in caplog.text
    assert all(text in caplog.text for text in lost)
    assert "'happy' has a mean valence of -0." in caplog.text
    caplog.clear()
    codes, affect = faces(AFFECTNET)
    affect[codes == 0] *= 0.1
    with caplog.at_level("WARNING"):
        select("affectnet", codes.astype(float), affect, {"cleaning": "emonet"}, lambda i, c: str(i))
    assert not caplog.text


def examples(labels, classes, groups=None, **columns):
    return Examples(
        "set", [str(i) for i in range(len(labels))], {"expression": np.array(labels, np.int32), **columns},
        {"expression": tuple(classes)}, {}, str, groups=None if groups is None else np.array(groups),
    )  # fmt: skip


def test_codes_that_never_use_the_first_class(caplog):
    consistency.check(examples([1, 2, 3, 1], ("neutral", "happy", "sad", "fear")))
    assert "no example has the first class 'neutral' (code 0)" in caplog.text and "off by one" in caplog.text
    caplog.clear()
    consistency.check(examples([0, 1, 3], ("neutral", "happy", "sad", "fear")))
    assert "no example has the class 'sad'" in caplog.text
    caplog.clear()
    consistency.check(examples([0, 1, -1], ("neutral", "happy")))
    assert not caplog.text


def test_labels_that_teach_nothing(caplog):
    consistency.check(examples([1, -1, 1], ("sad", "happy")))
    assert "all labelled examples are of the class 'happy'" in caplog.text
    caplog.clear()
    consistency.check(examples([-1, -1], ("sad", "happy")))
    assert "no example has a label (expression)" in caplog.text


def test_look_alike_subjects_are_told_and_look_alike_classes_refused(caplog):
    consistency.check(examples([0, 1, 0, 1], ("a", "b"), groups=["s1", "S 01", "s2", "s10"]))
    assert "'S 01', 's1' count as different" in caplog.text and "s10" not in caplog.text
    with pytest.raises(InputError, match=r"set, expression: the classes 'A' and 'a' differ"):
        consistency.check(examples([0, 1], ("A", "a")))


def test_every_source_is_looked_at(tmp_path, monkeypatch, caplog):
    codes, affect = faces(sorted(AFFECTNET))
    given = examples(codes, AFFECTNET, valence_arousal=affect.astype(np.float32))
    votes = dataclasses.replace(given, columns={"votes": np.eye(8, dtype=np.float32)[codes], "valence_arousal": affect})
    for each in (given, votes):
        caplog.clear()
        monkeypatch.setattr("emokd.data.sources.manifest.load", lambda directory, options, each=each: each)
        assert sources.load("manifest", str(tmp_path), {}) is each
        assert "'happy' has a mean valence of -0." in caplog.text
