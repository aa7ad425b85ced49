"""Scores over a whole split, in float64 on the host: exact for any batch size and any number of devices.

Pure functions of gathered arrays. Padding rows (False in `mask`) and unlabelled rows enter no score. The definitions
are the usual ones (Toisoul et al., 2021; the ABAW challenges). Where one is undefined, such as a correlation with a
constant, the docstring says what is returned instead.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from emokd.errors import InputError
from emokd.labels import class_ids, has_class, has_value

Values = Float[np.ndarray, " N"]
Labels = Int[np.ndarray, " N"] | Float[np.ndarray, "N C"]

_SMALLEST_PROBABILITY = np.finfo(np.float64).eps


def classification_scores(
    probabilities: Float[np.ndarray, "N C"],
    labels: Labels,
    classes: Sequence[str],
    *,
    mask: Bool[np.ndarray, " N"] | None = None,
) -> dict:
    """How well class probabilities agree with labels.

    Args:
      probabilities: rows sum to 1. The predicted class is the most probable one, the first of equals.
      labels: class ids, negative where there is none; or vote distributions, all zero where there is none.
        Votes are scored by the majority rule: the label is the most voted class, the lowest id of equals.
      classes: names of the C classes.
      mask: False on padding.

    Returns:
      `count`, the number of labelled rows; where it is 0, nothing else. Otherwise also `accuracy`;
      `balanced_accuracy` (mean recall of the classes that occur); `macro_f1` (mean over all C classes; one that does
      not occur counts as 0, predicted or not); `ece` (15 bins); `nll` (of the label, for votes the majority's;
      probabilities below 2.2e-16 are raised to it); for votes `vote_cross_entropy`; `per_class` (precision, recall,
      f1 and count by class name; 0 where undefined); `confusion` (rows: labels, columns: predictions); and `classes`.

    Raises:
      InputError: the shapes do not fit, a labelled row is no distribution, or a class id is C or more.

    Examples:
      >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
      >>> scores = classification_scores(probabilities, np.array([0, 0, 1, 1]), ("happy", "sad"))
      >>> scores["accuracy"], scores["confusion"]
      (0.75, [[2, 0], [1, 1]])
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise InputError(f"There are {len(classes)} classes, but the probabilities are {list(probabilities.shape)}.")
    count, size = probabilities.shape
    voted = labels.ndim == 2
    wanted = (count, size) if voted else (count,)
    if labels.shape != wanted or not np.issubdtype(labels.dtype, np.floating if voted else np.integer):
        raise InputError(
            f"Labels for probabilities {[count, size]} are integer [{count}] or floating {[count, size]}, "
            f"not {labels.dtype} {list(labels.shape)}."
        )
    rows = np.flatnonzero(has_class(labels) & _checked_mask(mask, count))
    if not rows.size:
        return {"count": 0}
    p, given = probabilities[rows].astype(np.float64), labels[rows]
    wrong = ~(np.isfinite(p).all(1) & (p >= 0).all(1) & (np.abs(p.sum(1) - 1) < 1e-3))
    if wrong.any():
        row = rows[wrong][0]
        raise InputError(f"Row {row} holds no class probabilities: {probabilities[row]}. Has the training diverged?")
    ids = class_ids(given).astype(np.int64)
    if (ids >= size).any():
        raise InputError(f"Row {rows[ids >= size][0]} has the class id {ids.max()}, but there are {size} classes.")

    matrix = confusion_matrix(ids, p.argmax(1), size)
    right, occurs, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    recall, precision = right / np.maximum(occurs, 1), right / np.maximum(predicted, 1)
    f1 = 2 * right / np.maximum(occurs + predicted, 1)
    log_p = np.log(np.maximum(p, _SMALLEST_PROBABILITY))
    scores = {
        "count": int(rows.size),
        "accuracy": float(right.sum() / rows.size),
        "balanced_accuracy": float(recall[occurs > 0].mean()),
        "macro_f1": float(f1.mean()),
        "ece": expected_calibration_error(p, ids),
        "nll": float(-log_p[np.arange(rows.size), ids].mean()),
        "per_class": {
            name: {
                "precision": float(precision[c]),
                "recall": float(recall[c]),
                "f1": float(f1[c]),
                "count": int(occurs[c]),
            }
            for c, name in enumerate(classes)
        },
        "confusion": matrix.tolist(),
        "classes": list(classes),
    }
    if voted:
        scores["vote_cross_entropy"] = float(-(given.astype(np.float64) * log_p).sum(1).mean())
    return scores


def affect_scores(
    predictions: Float[np.ndarray, "N 2"],
    targets: Float[np.ndarray, "N 2"],
    *,
    mask: Bool[np.ndarray, " N"] | None = None,
) -> dict:
    """How well valence (column 0) and arousal (column 1) agree with their targets.

    Args:
      predictions: scored as they are, without clipping.
      targets: NaN where there is no label.
      mask: False on padding.

    Returns:
      `valence` and `arousal`, each with `ccc`, `pcc`, `rmse`, `sagr`, `icc` and `count`, the number of its labelled
      rows; a column without labels is left out. `count` is the number of rows labelled in both columns, and `mean_ccc`
      the mean of the two CCCs over those rows, ABAW's P_VA; it is left out where there are none.

    Raises:
      InputError: the shapes do not fit, or the prediction of a labelled row is not finite.

    Examples:
      >>> said, true = np.array([[0.5, 0.0], [-0.5, 0.2]]), np.array([[0.5, np.nan], [-0.5, np.nan]])
      >>> scores = affect_scores(said, true)
      >>> round(scores["valence"]["ccc"], 4), "arousal" in scores
      (1.0, False)
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.ndim != 2 or predictions.shape[1] != 2 or predictions.shape != targets.shape:
        raise InputError(
            f"Predictions and targets must both be [N, 2], not {list(predictions.shape)} and {list(targets.shape)}."
        )
    labelled = has_value(targets) & _checked_mask(mask, len(targets))[:, None]
    bad = np.argwhere(labelled & ~np.isfinite(predictions))
    if len(bad):
        row = bad[0][0]
        raise InputError(f"The prediction of row {row} is {predictions[row]}. Has the training diverged?")
    both = labelled.all(1)
    scores: dict = {"count": int(both.sum())}
    for column, name in enumerate(("valence", "arousal")):
        rows = labelled[:, column]
        if rows.any():
            p, t = predictions[rows, column], targets[rows, column]
            scores[name] = {
                "ccc": concordance(p, t),
                "pcc": pearson(p, t),
                "rmse": root_mean_squared_error(p, t),
                "sagr": sign_agreement(p, t),
                "icc": intraclass_correlation(p, t),
                "count": int(rows.sum()),
            }
    if both.any():
        scores["mean_ccc"] = float(np.mean([concordance(predictions[both, c], targets[both, c]) for c in (0, 1)]))
    return scores


def confusion_matrix(
    labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "C C"]:
    """Counts the pairs of label (row) and prediction (column).

    Examples:
      >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
      [[1, 1], [0, 1]]
    """
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def expected_calibration_error(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], *, bins: int = 15
) -> float:
    """ECE: the mean over examples of |accuracy - mean confidence| of their bin (Guo et al., 2017).

    Examples are binned by their largest probability. The bins divide [0, 1] equally; each includes its upper end.

    Examples:
      Always sure by 0.75 and right every second time.

      >>> expected_calibration_error(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))
      0.25
    """
    confidence = probabilities.astype(np.float64).max(1)
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    gaps = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def concordance(p: Values, t: Values) -> float:
    """CCC: 2 cov / (var_p + var_t + (mean_p - mean_t)^2), population moments; 0 where either is constant.

    Examples:
      >>> t = np.array([-1.0, 1.0])
      >>> concordance(t, t), concordance(2 * t, t), concordance(np.zeros(2), t)
      (1.0, 0.8, 0.0)
    """
    p, t, covariance = _moments(p, t)
    if not covariance:
        return 0.0
    return float(2 * covariance / (p.var() + t.var() + (p.mean() - t.mean()) ** 2))


def pearson(p: Values, t: Values) -> float:
    """PCC: cov / (sd_p sd_t); 0 where either is constant.

    Examples:
      >>> t = np.array([-1.0, 1.0])
      >>> pearson(2 * t, t), pearson(-t, t), pearson(np.zeros(2), t)
      (1.0, -1.0, 0.0)
    """
    p, t, covariance = _moments(p, t)
    if not covariance:
        return 0.0
    return float(np.clip(covariance / (p.std() * t.std()), -1, 1))


def intraclass_correlation(p: Values, t: Values) -> float:
    """ICC(3,1) with prediction and target as two raters: (BMS - EMS) / (BMS + EMS); 0 where either is constant.

    For two raters this is 2 cov / (var_p + var_t).

    Examples:
      A constant offset does not matter, a factor does.

      >>> t = np.array([-1.0, 1.0])
      >>> intraclass_correlation(t + 3, t), intraclass_correlation(2 * t, t)
      (1.0, 0.8)
    """
    p, t, covariance = _moments(p, t)
    if not covariance:
        return 0.0
    return float(2 * covariance / (p.var() + t.var()))


def root_mean_squared_error(p: Values, t: Values) -> float:
    """RMSE.

    Examples:
      >>> root_mean_squared_error(np.array([3.0, 0.0]), np.array([0.0, 0.0])) == (9 / 2) ** 0.5
      True
    """
    return float(np.sqrt(np.mean((p.astype(np.float64) - t.astype(np.float64)) ** 2)))


def sign_agreement(p: Values, t: Values) -> float:
    """SAGR: the share of examples whose prediction and target have the same sign; 0 agrees only with 0.

    Examples:
      >>> sign_agreement(np.array([0.1, -0.2, 0.0, 0.4]), np.array([0.9, 0.2, 0.0, 0.0]))
      0.5
    """
    return float(np.mean(np.sign(p) == np.sign(t)))


def _moments(p: Values, t: Values) -> tuple[Values, Values, float]:
    """Both arrays in float64, and their covariance, which is exactly 0 where either is constant."""
    p, t = p.astype(np.float64), t.astype(np.float64)
    varied = np.ptp(p) > 0 and np.ptp(t) > 0
    return p, t, float(np.mean((p - p.mean()) * (t - t.mean()))) if varied else 0.0


def _checked_mask(mask: np.ndarray | None, count: int) -> Bool[np.ndarray, " N"]:
    if mask is None:
        return np.ones(count, bool)
    mask = np.asarray(mask)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise InputError(f"The mask must be bool [{count}], not {mask.dtype} {list(mask.shape)}.")
    return mask
