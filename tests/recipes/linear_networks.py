"""Students and teachers that are linear in a picture's mean colour: NumPy knows their answers, and they compile fast.

They stand in for `Student` and `Teacher`, whose networks have tests of their own, so that a test of a recipe is one of
what the recipe says.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from emokd.models.network import NetworkSpec, TrainedModel, attach_heads
from emokd.recipes.common.linear import create_linear, linear
from emokd.signals import Signals


def colours(batch):
    """The mean colour of each picture, [B, 3], from 0 to 1."""
    return np.asarray(batch["image"], np.float64).mean((1, 2)) / 255


@dataclasses.dataclass(frozen=True, eq=False)
class LinearNetwork:
    """features = (colour - mean) W + b, heads on the features.

    The mean is that of the statistics, in training that of the batch, to which the statistics move half of the way.

    Attributes:
      name: a teacher's.
      feature_size: width of the features.
      heads: the size of each head.
      classes: their names, by head.
      model: weights as from a file, or None.
      learns: a teacher's.
    """

    name: str
    feature_size: int
    heads: dict
    classes: dict = dataclasses.field(default_factory=dict)
    model: TrainedModel | None = None
    learns: bool = False

    @property
    def spec(self):
        """Of no network: for what a recipe says about its own."""
        return NetworkSpec("basic_cnn", {"width": 1}, self.heads, self.classes)

    @property
    def network(self):
        """That there is one, and not just a file of answers."""
        return self

    def init(self, key):
        if self.model is not None:
            return self.model.params, self.model.stats
        first, *keys = jax.random.split(key, 1 + len(self.heads))
        heads = {
            n: create_linear(k, self.feature_size, size) for k, (n, size) in zip(keys, self.heads.items(), strict=True)
        }
        params = {"backbone": {"layer": create_linear(first, 3, self.feature_size)}, "heads": heads}
        return params, {"backbone": {"mean": jnp.zeros(3)}}

    prepare = None

    def last_phase(self, multiplier):
        return {"train": multiplier > 0}

    def answers(self, params, stats, batch, view):
        return self.signals(params, stats, batch, view)[0]

    def signals(self, params, stats, batch, view, *, train=False, key=None, integers=False):
        del view, key, integers
        colour = (batch["image"].astype(jnp.float32) / 255).mean((1, 2))
        kept, own = stats["backbone"]["mean"], colour.mean(0)
        mean = own if train else kept
        features = linear(params["backbone"]["layer"], colour - mean[None])
        outputs = {name: linear(head, features) for name, head in params["heads"].items()}
        signals = attach_heads(Signals(features=features), outputs)
        return signals, {"backbone": {"mean": (kept + own) / 2}} if train else stats


def answers(params, stats, batch, train=False):
    """(features, outputs by head) in NumPy and float64."""
    params, stats = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, stats))
    colour, layer = colours(batch), params["backbone"]["layer"]
    features = (colour - (colour.mean(0) if train else stats["backbone"]["mean"])) @ layer["kernel"] + layer["bias"]
    return features, {name: features @ head["kernel"] + head["bias"] for name, head in params["heads"].items()}


def trained(network, seed):
    """The network with weights of its own, as read from a file."""
    params, stats = network.init(jax.random.key(seed))
    stats = jax.tree.map(lambda x: x + 0.3, stats)
    return dataclasses.replace(network, model=TrainedModel(network.spec, params, stats, f"random {seed}"))


def cross_entropy(logits, labels):
    """-log softmax(logits) of the labels, in NumPy and float64; 0 for a label below 0."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    values = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), np.maximum(labels, 0)]
    return np.where(labels < 0, 0.0, values)
