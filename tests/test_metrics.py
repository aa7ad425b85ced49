"""Scores against scikit-learn, scipy, textbook sums, and the known answers of the field."""

import json

import numpy as np
import pytest
from lazily import Lazily
from scipy import stats

from emokd import metrics
from emokd.errors import InputError

sklearn_metrics = Lazily("sklearn.metrics")

NAMES = ("neutral", "happy", "sad", "surprise", "contempt")


def random_classification(rows=301, seed=0):
    """Five classes, of which the last neither occurs nor is predicted, and one is never predicted."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows).astype(np.int32)
    logits = rng.normal(size=(rows, 5)) + 1.5 * np.eye(5)[labels]
    logits[:, 3:] -= 20
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).astype(np.float32), labels


# Classification


def test_agrees_with_scikit_learn():
    p, labels = random_classification()
    scores = metrics.classification_scores(p, labels, NAMES)
    exact = p.astype(np.float64) / p.astype(np.float64).sum(1, keepdims=True)
    predicted, ids = p.argmax(1), list(range(5))
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, labels=ids, average="macro", zero_division=0),
        "nll": sklearn_metrics.log_loss(labels, exact, labels=ids),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(scores["confusion"], sklearn_metrics.confusion_matrix(labels, predicted, labels=ids))
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=ids, zero_division=0
    )
    for c, name in enumerate(NAMES):
        own = scores["per_class"][name]
        np.testing.assert_allclose([own["precision"], own["recall"], own["f1"]], [precision[c], recall[c], f1[c]])
        assert own["count"] == support[c]
    assert scores["per_class"]["contempt"]["f1"] == scores["per_class"]["surprise"]["precision"] == 0
    assert scores["count"] == 301 and scores["classes"] == list(NAMES)
    json.dumps(scores, allow_nan=False)


def test_calibration_error_by_hand():
    # Bin (.6, .667]: confidence .65 and .61, one right; bin (.933, 1]: .95 right, 1 wrong.
    p = np.array([[0.65, 0.35], [0.39, 0.61], [0.95, 0.05], [1.0, 0.0]])
    value = metrics.expected_calibration_error(p, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(value, (abs(1 - 0.65 - 0.61) + abs(1 - 0.95 - 1.0)) / 4)


def test_calibration_error_against_a_loop_over_bins():
    p, labels = random_classification()
    p = p.astype(np.float64)
    confidence, right, expected = p.max(1), p.argmax(1) == labels, 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    np.testing.assert_allclose(metrics.expected_calibration_error(p, labels), expected)
    assert expected > 0.02
    assert metrics.classification_scores(p, labels, NAMES)["ece"] == pytest.approx(expected)


def test_perfect_predictions_over_all_classes():
    scores = metrics.classification_scores(np.eye(5), np.arange(5), NAMES)
    assert (scores["accuracy"], scores["macro_f1"], scores["balanced_accuracy"]) == (1, 1, 1)
    assert scores["ece"] == 0 and scores["nll"] == 0
    missing = metrics.classification_scores(np.eye(5)[:4], np.arange(4), NAMES)
    assert missing["macro_f1"] == pytest.approx(0.8) and missing["balanced_accuracy"] == 1


def test_padding_and_unlabelled_rows_count_in_nothing():
    p, labels = random_classification(rows=20)
    alone = metrics.classification_scores(p[:17], labels[:17], NAMES)
    padded, mask = labels.copy(), np.arange(20) < 18
    padded[17] = -1
    p[18:] = np.nan
    assert metrics.classification_scores(p, padded, NAMES, mask=mask) == alone
    assert metrics.classification_scores(p, np.full(20, -1), NAMES) == {"count": 0}


def test_votes_are_scored_by_their_majority_and_ties_go_to_the_lowest_id():
    p, _ = random_classification(rows=4)
    votes = np.array([[0.1, 0.7, 0.2, 0, 0], [0, 0.4, 0.2, 0.4, 0], [0.0] * 5, [0, 0, 0, 0.1, 0.9]], np.float32)
    scores = metrics.classification_scores(p, votes, NAMES)
    same = metrics.classification_scores(p, np.array([1, 1, -1, 4]), NAMES)
    cross_entropy = scores.pop("vote_cross_entropy")
    assert scores == same and scores["count"] == 3
    keep = [0, 1, 3]
    expected = -(votes[keep].astype(np.float64) * np.log(p[keep].astype(np.float64))).sum(1).mean()
    np.testing.assert_allclose(cross_entropy, expected, rtol=1e-6)


def test_certain_and_wrong_is_finite():
    scores = metrics.classification_scores(np.array([[0.0, 1.0]]), np.array([0]), ("a", "b"))
    np.testing.assert_allclose(scores["nll"], -np.log(np.finfo(np.float64).eps))


def test_wrong_classification_input_is_refused():
    p, labels = random_classification(rows=4)
    unsure, diverged = p.copy(), p.copy()
    unsure[2] *= 2
    diverged[1] = np.nan
    for values, given, names, message in [
        (p, labels, NAMES[:4], "There are 4 classes"),
        (p, labels[:3], NAMES, "Labels for probabilities"),
        (p, labels.astype(float), NAMES, "Labels for probabilities"),
        (unsure, labels, NAMES, "Row 2 holds no class probabilities"),
        (diverged, labels, NAMES, "Row 1 holds no class probabilities"),
        (p, np.array([0, -1, 7, 1]), NAMES, "Row 2 has the class id 7"),
    ]:
        with pytest.raises(InputError, match=message):
            metrics.classification_scores(values, given, names)
    with pytest.raises(InputError, match="mask must be bool"):
        metrics.classification_scores(p, labels, NAMES, mask=np.ones(4))


# Valence and arousal


def random_affect(rows=211):
    rng = np.random.default_rng(1)
    targets = rng.uniform(-1, 1, (rows, 2))
    return (0.6 * targets + 0.1 + 0.3 * rng.normal(size=(rows, 2))).astype(np.float32), targets.astype(np.float32)


def test_known_answers():
    g = np.array([1.0, 2.0, 3.0])
    assert metrics.pearson(g + 1, g) == pytest.approx(1)
    assert metrics.root_mean_squared_error(g + 1, g) == pytest.approx(1)
    assert metrics.concordance(g + 1, g) == pytest.approx(0.5714286, abs=1e-7)
    for constant in (0.0, 0.1, 1e9):
        p = np.full(3, constant)
        assert metrics.concordance(p, g) == metrics.pearson(p, g) == metrics.intraclass_correlation(p, g) == 0
    assert metrics.concordance(np.full(3, 0.1), np.full(3, 0.1)) == 0
    centred = g - 2
    assert metrics.concordance(-centred, centred) == pytest.approx(-1)
    assert metrics.concordance(g, g) == metrics.pearson(g, g) == metrics.intraclass_correlation(g, g) == 1
    assert metrics.sign_agreement(np.array([0.0, 0.1, -0.2, 0.0]), np.array([0.0, 0.3, 0.1, 0.5])) == 0.5


def anova_icc(*raters):
    """ICC(3,1) from the mean squares of a two-way analysis of variance (Shrout and Fleiss, 1979)."""
    ratings = np.stack(raters, 1).astype(np.float64)
    n, k = ratings.shape
    grand = ratings.mean()
    between = k * ((ratings.mean(1) - grand) ** 2).sum()
    effect = n * ((ratings.mean(0) - grand) ** 2).sum()
    residual = ((ratings - grand) ** 2).sum() - between - effect
    bms, ems = between / (n - 1), residual / ((n - 1) * (k - 1))
    return (bms - ems) / (bms + (k - 1) * ems)


def test_icc_of_shrout_and_fleiss():
    judges = np.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]], np.float64)
    assert anova_icc(*judges) == pytest.approx(0.71, abs=0.005)  # their published value for all four
    for p, t in ((judges[0], judges[1]), (judges[1], judges[2]), (judges[3], judges[1])):
        assert metrics.intraclass_correlation(p, t) == pytest.approx(anova_icc(p, t))
        assert metrics.intraclass_correlation(p + 3, t) == pytest.approx(anova_icc(p, t))


def test_affect_scores_agree_with_scipy_and_definitions():
    p, t = random_affect()
    scores = metrics.affect_scores(p, t)
    for column, name in enumerate(("valence", "arousal")):
        x, y = p[:, column].astype(np.float64), t[:, column].astype(np.float64)
        own = scores[name]
        r = stats.pearsonr(x, y).statistic
        np.testing.assert_allclose(own["pcc"], r)
        ccc = 2 * r * np.std(x) * np.std(y) / (np.var(x) + np.var(y) + (np.mean(x) - np.mean(y)) ** 2)
        np.testing.assert_allclose(own["ccc"], ccc)
        np.testing.assert_allclose(own["rmse"], sklearn_metrics.root_mean_squared_error(y, x))
        np.testing.assert_allclose(own["sagr"], sklearn_metrics.accuracy_score(np.sign(y), np.sign(x)))
        np.testing.assert_allclose(own["icc"], anova_icc(x, y))
        assert own["count"] == 211
    np.testing.assert_allclose(scores["mean_ccc"], (scores["valence"]["ccc"] + scores["arousal"]["ccc"]) / 2)
    json.dumps(scores, allow_nan=False)


def test_missing_labels_and_padding():
    p, t = random_affect(rows=30)
    t[20:25, 1], t[25:28] = np.nan, np.nan
    p[26], p[28:] = np.nan, np.nan
    scores = metrics.affect_scores(p, t, mask=np.arange(30) < 28)
    assert (scores["count"], scores["valence"]["count"], scores["arousal"]["count"]) == (20, 25, 20)
    assert scores["valence"]["ccc"] == metrics.concordance(p[:25, 0], t[:25, 0])
    both = metrics.affect_scores(p[:20], t[:20])
    assert scores["arousal"] == both["arousal"] and scores["mean_ccc"] == both["mean_ccc"]
    t[:, 1] = np.nan
    one = metrics.affect_scores(p, t, mask=np.arange(30) < 28)
    assert set(one) == {"count", "valence"} and one["count"] == 0
    assert metrics.affect_scores(p, np.full((30, 2), np.nan)) == {"count": 0}


def test_a_whole_split_is_not_a_mean_of_batches():
    p, t = random_affect(rows=64)
    batches = np.mean([metrics.concordance(p[i : i + 8, 0], t[i : i + 8, 0]) for i in range(0, 64, 8)])
    assert abs(metrics.affect_scores(p, t)["valence"]["ccc"] - batches) > 1e-3


def test_float32_values_far_from_zero_are_scored_in_float64():
    rng = np.random.default_rng(0)
    t = (1000 + rng.normal(size=(50, 2))).astype(np.float32)
    p = (t + 0.5 * rng.normal(size=(50, 2))).astype(np.float32)
    expected = stats.pearsonr(p[:, 0].astype(np.float64), t[:, 0].astype(np.float64)).statistic
    np.testing.assert_allclose(metrics.affect_scores(p, t)["valence"]["pcc"], expected, rtol=1e-10)


def test_wrong_affect_input_is_refused():
    p, t = random_affect(rows=4)
    with pytest.raises(InputError, match=r"must both be \[N, 2\]"):
        metrics.affect_scores(p[:3], t)
    with pytest.raises(InputError, match="mask must be bool"):
        metrics.affect_scores(p, t, mask=np.ones(3, bool))
    p[2, 1] = np.inf
    with pytest.raises(InputError, match="prediction of row 2"):
        metrics.affect_scores(p, t)
