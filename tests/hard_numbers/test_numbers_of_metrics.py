"""Every score at hard numbers, against exact fractions."""

import fractions
import math
import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numbers_setup import masks, matrices

from emokd import metrics

Fraction = fractions.Fraction
NAMES = ("a", "b", "c")


def moments(p, t):
    p, t = ([Fraction(float(v)) for v in x] for x in (p, t))
    mean_p, mean_t = sum(p) / len(p), sum(t) / len(t)
    covariance = sum((a - mean_p) * (b - mean_t) for a, b in zip(p, t, strict=True)) / len(p)
    variances = [sum((v - mean) ** 2 for v in x) / len(x) for x, mean in ((p, mean_p), (t, mean_t))]
    return covariance, *variances, mean_p - mean_t


def ratio(numerator, denominator):
    return float(numerator / denominator) if denominator else 0.0


def pearson(p, t):
    covariance, var_p, var_t, _ = moments(p, t)
    square = ratio(covariance**2, var_p * var_t)
    return math.copysign(math.sqrt(square), covariance)


@given(st.data(), st.sampled_from((1, 2, 6)))
def test_affect_scores(data, rows):
    p, t = (data.draw(matrices((rows, 2))).astype(np.float32) for _ in "pt")
    mask, known = data.draw(masks(rows)), data.draw(masks(rows))
    t[:, 1] = np.where(known, t[:, 1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = metrics.affect_scores(p, t, mask=mask)
    assert scores["count"] == (mask & known).sum()
    for column, (name, counted) in enumerate({"valence": mask, "arousal": mask & known}.items()):
        if not counted.any():
            assert name not in scores
            continue
        x, y = p[counted, column], t[counted, column]
        covariance, var_p, var_t, apart = moments(x, y)
        varied = var_p > 0 and var_t > 0
        expected = {
            "ccc": ratio(2 * covariance, var_p + var_t + apart**2) if varied else 0.0,
            "pcc": pearson(x, y) if varied else 0.0,
            "icc": ratio(2 * covariance, var_p + var_t) if varied else 0.0,
            "sagr": float(np.mean([np.sign(a) == np.sign(b) for a, b in zip(x, y, strict=True)])),
        }
        for key, value in expected.items():
            assert abs(scores[name][key] - value) < 1e-6, (key, x, y)
        square = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, y, strict=True)) / len(x)
        assert math.isclose(scores[name]["rmse"], math.sqrt(square), rel_tol=1e-6, abs_tol=1e-44)


@st.composite
def answers(draw):
    rows = draw(st.sampled_from((1, 4)))
    hard = st.lists(st.sampled_from((0.0, 1e-45, 1e-30, 1e-7, 0.5, 1.0, 3.0)), min_size=3, max_size=3)
    raw = np.array(draw(st.lists(hard, min_size=rows, max_size=rows)), np.float64)
    raw[raw.sum(1) < 1e-20] = 1.0
    labels = draw(st.lists(st.integers(-1, 2), min_size=rows, max_size=rows))
    return (raw / raw.sum(1, keepdims=True)).astype(np.float32), np.array(labels), draw(masks(rows))


@given(answers(), st.booleans())
def test_classification_scores(drawn, votes):
    p, labels, mask = drawn
    given_labels = np.where((labels >= 0)[:, None], np.eye(3)[labels], 0.0) if votes else labels
    scores = metrics.classification_scores(p, given_labels, NAMES, mask=mask)
    rows = [(list(map(float, p[i])), int(labels[i])) for i in np.flatnonzero(mask & (labels >= 0))]
    assert scores["count"] == len(rows)
    if not rows:
        assert list(scores) == ["count"]
        return
    guesses = [q.index(max(q)) for q, _ in rows]
    pairs = [(label, guess) for (_, label), guess in zip(rows, guesses, strict=True)]
    assert scores["accuracy"] == sum(a == b for a, b in pairs) / len(rows)
    recalls, f1 = [], []
    for c in range(3):
        hit, there, said = ((c, c), [a for a, _ in pairs].count(c), [b for _, b in pairs].count(c))
        hits = pairs.count(hit)
        recalls += [hits / there] if there else []
        f1.append(2 * hits / (there + said) if there + said else 0.0)
        assert scores["per_class"][NAMES[c]]["count"] == there
    assert math.isclose(scores["balanced_accuracy"], sum(recalls) / len(recalls), abs_tol=1e-12)
    assert math.isclose(scores["macro_f1"], sum(f1) / 3, abs_tol=1e-12)
    nll = -sum(math.log(max(q[label], 2.0**-52)) for q, label in rows) / len(rows)
    assert math.isclose(scores["nll"], nll, abs_tol=1e-9)
    bins: dict[int, list[float]] = {}
    for (q, label), guess in zip(rows, guesses, strict=True):
        bins.setdefault(max(math.ceil(max(q) * 15 - 1e-12), 1), []).append((guess == label) - max(q))
    assert math.isclose(scores["ece"], sum(abs(sum(gaps)) for gaps in bins.values()) / len(rows), abs_tol=1e-6)
    if votes:
        assert math.isclose(scores["vote_cross_entropy"], nll, abs_tol=1e-9)
