"""Scores of a padded split on one and on eight devices: NumPy's, of the answers clipped to the scale."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from lazily import Lazily

from emokd.data.examples import Examples
from emokd.models.network import NetworkSpec, functional
from emokd.training import evaluation
from emokd.training.sharding import create_mesh
from emokd.training.streams import Streams

sklearn_metrics = Lazily("sklearn.metrics")

COUNT, INPUTS = 13, 5
CLASSES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def examples():
    """Thirteen rows; one lacks an expression, one valence and arousal, one arousal alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(COUNT, INPUTS)).astype(np.float32)
    labels, affect = rng.integers(0, 3, COUNT).astype(np.int32), rng.uniform(-1, 1, (COUNT, 2)).astype(np.float32)
    labels[2], affect[5], affect[9, 1], affect[0, 0] = -1, np.nan, np.nan, 0
    return Examples(
        name="rows",
        keys=[str(i) for i in range(COUNT)],
        columns={"expression": labels, "valence_arousal": affect},
        classes={"expression": CLASSES},
        inputs={"x": lambda i: x[i]},
        content=str,
    )


@pytest.fixture(scope="module")
def network():
    """A perceptron with heads whose answers reach beyond the scale."""
    spec = NetworkSpec("mlp", {"shape": (INPUTS,), "widths": (6,)}, {"expression": 4, "valence_arousal": 2})
    params, stats = functional(spec).init(jax.random.key(1))
    return functional(spec), jax.tree.map(lambda leaf: 1.5 * leaf, params), stats


def answers(network, examples):
    """Raw logits, and valence and arousal, in float64: the heads are linear maps of the features and nothing more."""
    call, params, stats = network
    x = np.stack([examples.inputs["x"](i) for i in range(COUNT)])
    signals, _ = call(params, stats, x)
    features, found = np.asarray(signals.features, np.float64), []
    for head, said in (("expression", signals.logits), ("valence_arousal", signals.valence_arousal)):
        kernel, bias = (np.asarray(params["heads"][head][name], np.float64) for name in ("kernel", "bias"))
        found.append(features @ kernel + bias)
        np.testing.assert_allclose(said, found[-1], rtol=1e-4, atol=1e-5)
    return found


def affect_by_hand(p, t):
    """CCC, PCC, RMSE, SAGR, and ICC(3,1) from an analysis of variance with two raters."""
    both = np.stack([p, t], 1)
    subjects, raters, grand = both.mean(1, keepdims=True), both.mean(0, keepdims=True), both.mean()
    between = 2 * ((subjects - grand) ** 2).sum() / (len(p) - 1)
    residual = ((both - subjects - raters + grand) ** 2).sum() / (len(p) - 1)
    covariance = ((p - p.mean()) * (t - t.mean())).mean()
    return {
        "ccc": 2 * covariance / (p.var() + t.var() + (p.mean() - t.mean()) ** 2),
        "pcc": scipy.stats.pearsonr(p, t).statistic,
        "rmse": np.sqrt(((p - t) ** 2).mean()),
        "sagr": np.mean([(a > 0) - (a < 0) == (b > 0) - (b < 0) for a, b in zip(p.tolist(), t.tolist(), strict=True)]),
        "icc": (between - residual) / (between + residual),
        "count": len(p),
    }


def calibration_error(probabilities, labels):
    """Over fifteen bins ((i - 1) / 15, i / 15]: |accuracy - confidence|, weighted by the bin's share."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.ceil(confidence * 15)
    return sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins))


def expression_by_hand(logits, labels):
    """scikit-learn's scores of the labelled rows."""
    p = scipy.special.softmax(logits, axis=1)
    said, present = p.argmax(1), np.unique(labels)
    return {
        "count": len(labels),
        "accuracy": sklearn_metrics.accuracy_score(labels, said),
        "balanced_accuracy": sklearn_metrics.recall_score(labels, said, labels=present, average="macro"),
        "macro_f1": sklearn_metrics.f1_score(labels, said, labels=range(4), average="macro", zero_division=0),
        "nll": sklearn_metrics.log_loss(labels, p, labels=range(4)),
        "ece": calibration_error(p, labels),
    }


def with_cached_features(batch):
    """What a teacher cache adds to a batch."""
    return {**batch, "features/teacher": np.zeros((len(batch["mask"]), 7), np.float32)}


@pytest.mark.parametrize("devices", [1, 8])
def test_every_score_is_that_of_the_clipped_answers(examples, network, config, devices):
    config.batch_size = 8  # so that the second batch holds three rows of padding
    mesh, (call, params, stats) = create_mesh(devices), network
    predict = evaluation.create_predict(
        lambda params, stats, constants, batch: {"student": call(params, stats, batch["x"])[0]},
        ("expression", "valence_arousal"),
        mesh,
    )
    batches = list(Streams(config, mesh, with_cached_features).evaluation(examples))
    assert [int(batch["mask"].sum()) for batch in batches] == [8, 5]
    assert {len(batch["x"].sharding.device_set) for batch in batches} == {devices}
    predictions, columns = evaluation.collect(predict, params, stats, {}, batches)
    # Nothing else leaves the devices.
    assert set(columns) == {"mask", "id", "check", "expression", "valence_arousal"}
    scores = evaluation.score(predictions, columns, examples.classes)["student"]

    logits, affect = answers(network, examples)
    np.testing.assert_allclose(predictions["student"]["valence_arousal"], affect, rtol=1e-4, atol=1e-5)
    assert (affect > 1).any() and (affect < -1).any()
    clipped, target = np.clip(affect, -1, 1), examples.columns["valence_arousal"].astype(np.float64)
    for column, name in enumerate(("valence", "arousal")):
        rows = ~np.isnan(target[:, column])
        wanted = affect_by_hand(clipped[rows, column], target[rows, column])
        assert scores["valence_arousal"][name] == pytest.approx(wanted, abs=2e-6)
        unclipped = affect_by_hand(affect[rows, column], target[rows, column])
        assert abs(unclipped["rmse"] - wanted["rmse"]) > 1e-3
    both = ~np.isnan(target).any(1)
    mean = np.mean([affect_by_hand(clipped[both, c], target[both, c])["ccc"] for c in (0, 1)])
    assert scores["valence_arousal"]["count"] == both.sum() == COUNT - 2
    assert scores["valence_arousal"]["mean_ccc"] == pytest.approx(mean, abs=2e-6)

    labels = examples.columns["expression"]
    wanted = expression_by_hand(logits[labels >= 0], labels[labels >= 0])
    assert {name: scores["expression"][name] for name in wanted} == pytest.approx(wanted, abs=2e-6)
    table = sklearn_metrics.confusion_matrix(labels[labels >= 0], logits[labels >= 0].argmax(1), labels=range(4))
    assert scores["expression"]["confusion"] == table.tolist()
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels[labels >= 0], logits[labels >= 0].argmax(1), labels=range(4), zero_division=0
    )
    for c, name in enumerate(CLASSES):
        expected = {"precision": precision[c], "recall": recall[c], "f1": f1[c], "count": support[c]}
        assert scores["expression"]["per_class"][name] == pytest.approx(expected)
