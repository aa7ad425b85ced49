"""What bounded refuses: teachers that cannot teach the data, and options outside their range."""

import dataclasses
import unicodedata

import pytest
from bounded_setup import build, faces, make_config, make_teacher

from emokd.errors import InputError


@pytest.mark.parametrize(
    ("names", "heads", "message"),
    [
        (
            ("neutral", "happy", "sad", "surprise", "anger"),
            ("expression",),
            "but the data also has fear, disgust, contempt",
        ),
        (
            ("Neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
            ("expression",),
            "the data also has neutral \\(it writes 'Neutral' for 'neutral'\\)",
        ),
        ((), ("gaze",), "has the heads \\['gaze'\\], but the data has targets for"),
    ],
)
def test_a_teacher_that_cannot_teach_this_data_is_refused(examples, names, heads, message):
    with pytest.raises(InputError, match=message):
        build(make_config("one"), {"one": make_teacher(names, heads=heads)}, faces(examples))


def test_a_teachers_class_names_may_be_in_the_other_unicode_form(examples):
    words = ("colère", "joie", "zoë", "peur", "dégoût", "fierté", "gêne", "été")
    data = dataclasses.replace(faces(examples), classes={"expression": words})
    teacher = make_teacher([unicodedata.normalize("NFD", word) for word in reversed(words)])
    assert build(make_config("one"), {"one": teacher}, data).phases


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bound.margin", -0.1, "config.bound.margin must be at least 0"),
        ("bound.nu", -1.0, "config.bound.nu must be at least 0"),
        ("soft_targets.alpha", 1.5, "config.soft_targets.alpha must be at least 0 and at most 1"),
        ("soft_targets.temperature", 0.0, "config.soft_targets.temperature must be above 0"),
        ("affect_loss", "smoothl1", "Did you mean 'smooth_l1'"),
        ("class_weights", "balancd", "Did you mean 'balanced'"),
    ],
)
def test_options_outside_their_range_are_refused(examples, key, value, message):
    config = make_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        build(config, {}, faces(examples))
