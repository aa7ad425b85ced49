"""The forward pass of a stored model: one pure function for scoring, prediction and export."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emokd.data.augment import centre_views
from emokd.inference.signature import COMMON, IMAGE
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import NetworkSpec, Tree, functional
from emokd.phase import Batch
from emokd.recipes.common.views import average_affect, see
from emokd.signals import Signals

Spec = NetworkSpec | MultimodalSpec

Forward = Callable[[Tree, Tree, Batch], Signals]
"""(params, stats, arrays by input) -> the network's signals; pure."""


def inputs_of(spec: Spec) -> tuple[str, ...]:
    """The inputs that a model takes, each once: `image` for a NetworkSpec, the modalities' for a MultimodalSpec."""
    if isinstance(spec, NetworkSpec):
        return (IMAGE,)
    return tuple(dict.fromkeys(modality.input for modality in spec.modalities.values()))


def create_forward(spec: Spec, *, precision: str = "float32", mirror: bool = False) -> Forward:
    """Creates the model's forward pass in evaluation mode, on the evaluation view.

    The evaluation view is the whole canvas, at the network's size and normalisation.

    Args:
      spec: the architecture.
      precision: a name in `models.network.PRECISIONS`.
      mirror: whether valence and arousal are averaged with those of the mirrored picture.

    Returns:
      A function of (params, stats, arrays). Arrays are by input (see `inputs_of`): pictures uint8 [B, H, W, 3], videos
      uint8 [B, T, H, W, 3], others floating [B, ...]. Further entries are ignored.
    """
    network = functional(spec, precision=precision)
    first = inputs_of(spec)[0]

    def look(params: Tree, stats: Tree, arrays: Batch, mirrored: bool) -> Signals:
        view = centre_views(arrays[first].shape[0], mirrored)
        return network(params, stats, see(spec, arrays, view))[0]

    def forward(params: Tree, stats: Tree, arrays: Batch) -> Signals:
        signals = look(params, stats, arrays, False)
        return average_affect(signals, look(params, stats, arrays, True)) if mirror else signals

    return forward


def answers(spec: Spec, signals: Signals) -> dict[str, Float[Array, "B _"]]:
    """A model's outputs in use, by head: probabilities of each classifying head, `valence_arousal` in [-1, 1]."""
    found = {}
    if signals.logits is not None:
        found["expression"] = jax.nn.softmax(signals.logits)
    for head in spec.heads:
        if head not in COMMON:
            found[head] = jax.nn.softmax(signals.intermediates[head])
    if signals.valence_arousal is not None:
        found["valence_arousal"] = jnp.clip(signals.valence_arousal, -1, 1)
    return found
