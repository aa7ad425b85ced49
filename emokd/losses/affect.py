"""Losses against labels: expression classes or votes, and valence and arousal.

A row without a label, and a row that the mask excludes, has loss 0 and no gradient. An expression is
unlabelled where its class id is negative or its vote distribution is all zero; valence and arousal are unlabelled
where they are NaN. A class id of C or more gives a loss of NaN, so that it cannot pass unnoticed.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emokd.errors import InputError
from emokd.labels import has_class, has_value
from emokd.losses.shapes import as_floats, check_range, check_rows, check_same_shape

_ROUNDING = 1e-10  # share of the mean square; a smaller variance is only float32's rounding error of a constant
_LEAST_VARIANCE = 1e-30  # below it squares lose their digits, and gradients grow beyond use


def cross_entropy(
    logits: Float[Array, "B C"],
    labels: Int[Array, " B"] | Float[Array, "B C"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Array, " C"] | Sequence[float] | None = None,
) -> Float[Array, " B"]:
    """Cross-entropy -sum_c w_c q_c log softmax(z)_c, with z the logits and q the smoothed target.

    The definition is that of PyTorch's `cross_entropy` with `reduction="none"`: class weights multiply each term, and
    are not normalised.

    Args:
      logits: z, unnormalised scores.
      labels: class ids, or distributions of votes.
      label_smoothing: e in q = (1 - e) target + e / C.
      class_weights: w; None for 1 everywhere.

    Raises:
      InputError: labels or weights do not fit the logits, or the smoothing is outside [0, 1].

    Examples:
      Four equal logits cost log 4, whatever the label; an unlabelled row costs nothing.

      >>> loss = cross_entropy(jnp.zeros((2, 4)), jnp.array([2, -1]))
      >>> [round(abs(float(value)), 4) for value in loss]
      [1.3863, 0.0]
    """
    check_range("label_smoothing", label_smoothing, 0, 1)
    if logits.ndim != 2:
        raise InputError(f"Logits must be [batch, classes], not {list(logits.shape)}.")
    classes = logits.shape[1]
    ids = labels.shape == logits.shape[:1] and jnp.issubdtype(labels.dtype, jnp.integer)
    votes = labels.shape == logits.shape and jnp.issubdtype(labels.dtype, jnp.floating)
    if not ids and not votes:
        raise InputError(
            f"Labels for logits {list(logits.shape)} are integer [{logits.shape[0]}] or floating "
            f"{list(logits.shape)}, not {labels.dtype} {list(labels.shape)}."
        )
    (logits,) = as_floats(logits)
    if ids:
        impossible = labels >= classes
        targets = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
    else:
        targets = labels.astype(logits.dtype)
        impossible = jnp.zeros(labels.shape[0], bool)
    targets = (1 - label_smoothing) * targets + label_smoothing / classes
    if class_weights is not None:
        weights = jnp.asarray(class_weights, logits.dtype)
        if weights.shape != (classes,):
            raise InputError(f"There are {classes} classes, but class_weights has the shape {list(weights.shape)}.")
        targets = targets * weights[None]
    targets = jnp.where(has_class(labels)[:, None], targets, 0.0)
    values = -(targets * jnp.where(targets == 0, 0.0, jax.nn.log_softmax(logits))).sum(-1)
    return jnp.where(impossible, jnp.nan, values)


def smooth_l1(
    prediction: Float[Array, "B H"],
    target: Float[Array, "B H"],
    *,
    mask: Bool[Array, " B"] | None = None,
    beta: float = 1.0,
) -> Float[Array, " B"]:
    """The sum over heads of smoothL1: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.

    Raises:
      InputError: the shapes differ, or beta is not positive.

    Examples:
      0.5^2 / 2 + (2 - 1 / 2), and a row whose valence has no label.

      >>> smooth_l1(jnp.array([[0.5, 2.0], [0.5, 2.0]]), jnp.array([[0.0, 0.0], [jnp.nan, 0.0]])).tolist()
      [1.625, 1.5]
    """
    check_range("beta", beta, 0, above=True)
    difference, _ = _difference(prediction, target, mask)
    size = jnp.abs(difference)
    # The square's own gradient is not finite for large differences, also where the square is not taken.
    small = jnp.where(size < beta, difference, 0.0)
    return jnp.where(size < beta, small**2 / (2 * beta), size - beta / 2).sum(-1)


def mean_squared_error(
    prediction: Float[Array, "B H"], target: Float[Array, "B H"], *, mask: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """The sum over heads of the squared error; for valence and arousal its mean over the batch is MSE_v + MSE_a.

    Raises:
      InputError: the shapes differ.

    Examples:
      >>> mean_squared_error(jnp.array([[0.5, -1.0]]), jnp.array([[0.0, 1.0]])).tolist()
      [4.25]
    """
    difference, _ = _difference(prediction, target, mask)
    return (difference**2).sum(-1)


def ccc_loss(
    prediction: Float[Array, "B H"], target: Float[Array, "B H"], *, mask: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """1 - the mean over heads of the batch's concordance correlation (CCC), repeated on every labelled row.

    This is a loss of the whole batch: its value, and its gradient, are the mean of these values over the labelled rows.
    A head that is labelled on some rows only is correlated over those rows, and contributes to them alone. Where all
    predictions and targets are the same number, or differ by less than 1e-15, the correlation counts as 0 and has no
    gradient. Where the square of a prediction or target is not finite, it is NaN.

    Raises:
      InputError: the shapes differ.

    Examples:
      Predictions twice too far from 0: 2 cov / (var + var) = 4 / (4 + 1).

      >>> target = jnp.array([[-1.0], [1.0]])
      >>> [round(float(value), 4) for value in ccc_loss(2 * target, target)]
      [0.2, 0.2]
    """
    return _correlation_loss(prediction, target, mask, concordance=True)


def pcc_loss(
    prediction: Float[Array, "B H"], target: Float[Array, "B H"], *, mask: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """1 - the mean over heads of the batch's Pearson correlation (PCC), repeated on every labelled row.

    As `ccc_loss`, but the correlation already counts as 0 where either the predictions or the targets are constant.

    Raises:
      InputError: the shapes differ.

    Examples:
      The scale does not matter, the sign does.

      >>> target = jnp.array([[-1.0], [1.0]])
      >>> [round(float(pcc_loss(scale * target, target).mean()), 4) for scale in (2, -2)]
      [0.0, 2.0]
    """
    return _correlation_loss(prediction, target, mask, concordance=False)


def emonet_mixture(
    prediction: Float[Array, "B 2"],
    target: Float[Array, "B 2"],
    key: Array,
    *,
    mask: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """EmoNet's loss of valence and arousal, a random mixture of three losses (Toisoul et al., 2021; bounded.md).

    a (MSE_v + MSE_a) + b [1 - (PCC_v + PCC_a) / 2] + c [1 - (CCC_v + CCC_a) / 2], with a, b, c drawn from U[0, 1]
    by `key` and divided by their sum, so a new key each step gives a new mixture. The squared errors are per example;
    the correlations are those of the batch, as in `ccc_loss`. EmoNet adds the `cross_entropy` of the expressions with
    factor 1.

    Raises:
      InputError: the shapes differ.

    Examples:
      Perfect predictions cost nothing, whatever is drawn.

      >>> target = jnp.array([[-1.0, 0.5], [1.0, -0.5]])
      >>> [round(abs(float(value)), 4) for value in emonet_mixture(target, target, jax.random.key(0))]
      [0.0, 0.0]
    """
    shares = jax.random.uniform(key, (3,), jnp.float32, minval=jnp.finfo(jnp.float32).tiny)
    shares = shares / shares.sum()
    squared = mean_squared_error(prediction, target, mask=mask)
    a, b, c = shares.astype(squared.dtype)
    return a * squared + b * pcc_loss(prediction, target, mask=mask) + c * ccc_loss(prediction, target, mask=mask)


AFFECT_LOSSES: Mapping[str, Callable[..., Float[Array, " B"]]] = {
    "ccc": ccc_loss,
    "mse": mean_squared_error,
    "pcc": pcc_loss,
    "smooth_l1": smooth_l1,
}
"""Losses of valence and arousal by name: (prediction [B, H], target [B, H], *, mask) -> [B]."""

CORRELATIONS = ("ccc", "pcc", "emonet")
"""Names of the losses that correlate over the batch; "emonet" is `emonet_mixture`."""


def _difference(prediction: Array, target: Array, mask: Array | None) -> tuple[Array, Bool[Array, "B H"]]:
    """(prediction - target, labelled): the difference is exactly 0, without gradient, where `labelled` is False."""
    check_same_shape(2, prediction=prediction, target=target)
    prediction, target = as_floats(prediction, target)
    labelled = has_value(target) & check_rows(mask, prediction.shape[0])[:, None]
    # Both sides are replaced before the subtraction: a NaN behind a `where` would still reach the gradient.
    return jnp.where(labelled, prediction, 0.0) - jnp.where(labelled, target, 0.0), labelled


def _correlation_loss(prediction: Array, target: Array, mask: Array | None, *, concordance: bool) -> Array:
    _, labelled = _difference(prediction, target, mask)
    prediction, target = (jnp.where(labelled, x, 0.0) for x in as_floats(prediction, target))
    count = jnp.maximum(labelled.sum(0), 1).astype(prediction.dtype)[None]

    def mean(values):
        return values.sum(0, keepdims=True) / count

    mean_p, mean_t = mean(prediction), mean(target)
    centred_p = jnp.where(labelled, prediction - mean_p, 0.0)
    centred_t = jnp.where(labelled, target - mean_t, 0.0)
    covariance, variance_p, variance_t = mean(centred_p * centred_t), mean(centred_p**2), mean(centred_t**2)
    square_p, square_t = mean(prediction**2), mean(target**2)
    if concordance:
        numerator, scale = 2 * covariance, variance_p + variance_t + (mean_p - mean_t) ** 2
        varied = scale > jnp.maximum(_ROUNDING * (square_p + square_t), _LEAST_VARIANCE)
        scale = jnp.where(varied, scale, 1.0)
    else:
        numerator = covariance
        varied_p = variance_p > jnp.maximum(_ROUNDING * square_p, _LEAST_VARIANCE)
        varied = varied_p & (variance_t > jnp.maximum(_ROUNDING * square_t, _LEAST_VARIANCE))
        scale = jnp.sqrt(jnp.where(varied, variance_p, 1.0)) * jnp.sqrt(jnp.where(varied, variance_t, 1.0))
    # Predictions that are infinite or NaN, or whose squares are, must not be taken for constant ones.
    finite = jnp.isfinite(square_p + square_t)
    correlation = jnp.where(finite, jnp.where(varied, numerator, 0.0) / scale, jnp.nan)
    heads = prediction.shape[1]
    return jnp.where(labelled, (1 - correlation) / heads, 0.0).sum(-1)
