import logging

import numpy as np
import pytest

from emokd.data.affect_cleaning import emonet_keeps, select
from emokd.errors import InputError

NAMES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

# The published rules as a table: an item is dropped where its line says so.
DROPPED = """
neutral  | r >= .2
happy    | v <= 0 or r <= .2
sad      | v >= 0 or r <= .2
surprise | a <= 0 or r <= .2
fear     | not (a >= 0 and v <= 0) or r <= .2
disgust  | v >= 0 or r <= .3
anger    | a <= 0 or r <= .2
contempt | v >= 0 or r <= .2
"""
RULES = [[cell.strip() for cell in line.split("|")] for line in DROPPED.strip().splitlines()]


def dropped(code, v, a):
    """Python's own evaluation of the table."""
    return bool(eval(RULES[code][1], {}, {"v": v, "a": a, "r": (v * v + a * a) ** 0.5}))


def test_the_table_is_in_the_order_of_the_codes():
    assert tuple(name for name, _ in RULES) == NAMES


def test_all_rules_on_a_grid_with_its_boundaries():
    values = (-1, -0.31, -0.3, -0.25, -0.2, -0.19, -1e-9, 0.0, 1e-9, 0.12, 0.16, 0.18, 0.2, 0.21, 0.24, 0.3, 0.31, 1)
    faces = [(code, float(v), float(a)) for code in range(8) for v in values for a in values]
    codes, valence, arousal = (np.array(column) for column in zip(*faces, strict=True))
    kept = emonet_keeps(codes, valence, arousal)
    assert kept.dtype == bool
    assert kept.tolist() == [not dropped(*face) for face in faces]
    assert all(0 < kept[codes == code].sum() < len(values) ** 2 for code in range(8))


# (code, valence, arousal, kept), by hand: each limit from both sides, r = 0.2 and 0.3 exactly.
@pytest.mark.parametrize(
    ("code", "valence", "arousal", "kept"),
    [
        (0, 0.199, 0, True),
        (0, 0.2, 0, False),
        (1, 0.2, 0, False),
        (1, 0.201, 0, True),
        (1, 0, 0.9, False),
        (2, -0.2, 0, False),
        (2, -0.201, 0, True),
        (2, 0, 0.9, False),
        (3, 0, 0.2, False),
        (3, 0, 0.201, True),
        (3, 0.9, 0, False),
        (4, 0, 0.201, True),
        (4, -0.201, 0, True),
        (4, -0.9, -0.001, False),
        (4, 0.001, 0.9, False),
        (4, -0.2, 0, False),
        (5, -0.3, 0, False),
        (5, -0.301, 0, True),
        (5, 0, 0.9, False),
        (6, 0, 0.2, False),
        (6, 0.5, 0.201, True),
        (6, -0.9, 0, False),
        (7, -0.2, 0, False),
        (7, -0.201, 0.5, True),
        (7, 0, 0.9, False),
    ],
)
def test_limits(code, valence, arousal, kept):
    assert emonet_keeps(np.array([code]), np.array([valence], float), np.array([arousal], float)).tolist() == [kept]
    assert dropped(code, valence, arousal) != kept


def test_without_valence_or_arousal_nothing_can_be_said():
    codes = np.repeat(np.arange(8), 2)
    nan = np.full(16, np.nan)
    one = np.where(np.arange(16) % 2, 0.1, 0.9)
    assert not emonet_keeps(codes, nan, one).any()
    assert not emonet_keeps(codes, -one, nan).any()


def where(i, column):
    return f"faces.csv, line {i + 2} ({column})"


def chosen(codes, affect, **options):
    return select("affectnet", np.array(codes, float), np.array(affect, float), options, where)


FACES = [(0, 0.0, 0.0), (7, -0.5, 0.5), (8, -2, -2), (6, 0.5, 0.5), (4, -0.5, 0.5), (9, 0, 0), (2, 0.5, 0), (1, -2, -2)]
CODES, AFFECT = [face[0] for face in FACES], [face[1:] for face in FACES]


def test_select_drops_and_counts_faces_without_an_expression(caplog):
    with caplog.at_level(logging.INFO):
        selection = chosen(CODES, AFFECT)
    assert selection.kept.tolist() == [0, 1, 3, 4, 6, 7]
    assert selection.classes == NAMES
    assert selection.columns["expression"].tolist() == [0, 7, 6, 4, 2, 1]
    assert selection.columns["expression"].dtype == np.int32
    assert selection.columns["valence_arousal"].dtype == np.float32
    np.testing.assert_array_equal(
        selection.columns["valence_arousal"],
        np.array([[0, 0], [-0.5, 0.5], [0.5, 0.5], [-0.5, 0.5], [0.5, 0], [np.nan, np.nan]], np.float32),
    )
    assert "2 faces left out (no expression): none 1 of 1, uncertain 1 of 1." in caplog.text
    assert "6 of 8 faces are used; 1 of them lack valence or arousal" in caplog.text


@pytest.mark.parametrize(
    ("number", "kept", "names", "ids", "said"),
    [
        (
            7,
            [0, 3, 4, 6, 7],
            NAMES[:7],
            [0, 6, 4, 2, 1],
            "1 faces left out (not among the 7 classes): contempt 1 of 1.",
        ),
        (
            "5",
            [0, 3, 6, 7],
            ("neutral", "happy", "sad", "surprise", "anger"),
            [0, 4, 2, 1],
            "2 faces left out (not among the 5 classes): fear 1 of 1, contempt 1 of 1.",
        ),
    ],
)
def test_select_fewer_classes(caplog, number, kept, names, ids, said):
    with caplog.at_level(logging.INFO):
        selection = chosen(CODES, AFFECT, classes=number)
    assert selection.kept.tolist() == kept
    assert selection.classes == names
    assert selection.columns["expression"].tolist() == ids
    assert said in caplog.text


def test_select_cleans_counts_and_says_so_in_the_name(caplog):
    with caplog.at_level(logging.INFO):
        selection = chosen([*CODES, 2], [*AFFECT, (-0.5, 0)], cleaning="emonet")
    # The first sad face has positive valence, the happy one none at all.
    assert selection.kept.tolist() == [0, 1, 3, 4, 8]
    assert selection.name == "affectnet (cleaned as EmoNet's)"
    assert "2 faces left out (valence and arousal that disagree with the expression): happy 1 of 1, sad 1 of 2." in (
        caplog.text
    )
    assert chosen(CODES, AFFECT).name == "affectnet"


@pytest.mark.parametrize(
    ("face", "options", "message"),
    [
        ((11, 0, 0), {}, r"faces\.csv, line 3 \(expression\): there is no expression code 11\. .*10 no face"),
        ((-1, 0, 0), {}, r"no expression code -1\."),
        ((1.5, 0, 0), {}, r"no expression code 1\.5\."),
        ((1, 1.01, 0), {}, r"faces\.csv, line 3 \(valence\): valence is 1\.01, outside \[-1, 1\]"),
        ((1, 0, -3), {}, r"faces\.csv, line 3 \(arousal\): arousal is -3, outside"),
        ((1, float("nan"), 0), {}, r"valence is nan, outside"),
        ((10, 0, 0), {"no_expression": "refuse"}, r"line 3 \(expression\): .* \(code 10, no face\); there are 1 such"),
        ((1, 0, 0), {"cleaning": "emonett"}, r"options\.cleaning is 'emonett'.*mean 'emonet'"),
        ((1, 0, 0), {"classes": 6}, r"options\.classes is '6'.*8, 7, 5"),
        ((1, 0, 0), {"no_expression": "keep"}, r"options\.no_expression is 'keep'.*drop, refuse"),
    ],
)
def test_select_refusals(face, options, message):
    with pytest.raises(InputError, match=message):
        chosen([0, face[0]], [(0, 0), face[1:]], **options)


def test_select_says_when_nothing_is_left():
    with pytest.raises(InputError, match="none of the 2 faces is left"):
        chosen([8, 1], [(-2, -2), (-0.5, 0)], cleaning="emonet")
