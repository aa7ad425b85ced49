"""Each modality as a teacher by itself: heads on its token, or on the output of an adapter that aligns it."""

from collections.abc import Mapping, Sequence

import jax
from jaxtyping import Array, Float

from emokd.losses import features
from emokd.phase import Tree
from emokd.recipes.common.linear import create_linear, linear
from emokd.signals import Signals


def create_modality_teachers(
    keys: Sequence[Array],
    names: Sequence[str],
    heads: Mapping[str, int],
    *,
    token_width: int,
    adapter_width: int,
    joint_width: int,
) -> dict[str, Tree]:
    """Fresh heads on tokens, adapters from a token to the joint features' width, and heads on adapted tokens.

    Args:
      keys: four for each modality.
      names: of the modalities.
      heads: the size of each head.
      token_width: of a modality's token.
      adapter_width: between an adapter's two linear maps.
      joint_width: of the joint features.

    Returns:
      {"modality_heads", "adapters", "aligned_heads"}, each by modality.
    """
    tree: dict[str, Tree] = {"modality_heads": {}, "adapters": {}, "aligned_heads": {}}
    for m, name in enumerate(names):
        first, down, up, last = keys[4 * m : 4 * m + 4]
        tree["modality_heads"][name] = _create_heads(first, token_width, heads)
        tree["adapters"][name] = {
            "down": create_linear(down, token_width, adapter_width),
            "up": create_linear(up, adapter_width, joint_width),
        }
        tree["aligned_heads"][name] = _create_heads(last, joint_width, heads)
    return tree


def modality_signals(params: Tree, tokens: Mapping[str, Float[Array, "B D"]], *, aligned: bool) -> dict[str, Signals]:
    """Each modality's signals from its token; where `aligned`, through its adapter."""
    signals = {}
    for name, token in tokens.items():
        if aligned:
            adapter = params["adapters"][name]
            token = linear(adapter["up"], linear(adapter["down"], token))
        signals[name] = _head_signals(params["aligned_heads" if aligned else "modality_heads"][name], token)
    return signals


def alignment_distances(
    adapted: Float[Array, "B D"], joint: Float[Array, "B D"], *, detach: bool
) -> Float[Array, " B"]:
    """Cosine distances [B] of a modality's adapted tokens from the joint features.

    Unless `detach`, the joint features get gradients too, as in the authors' release; the values are the same.
    """
    distances = features.cosine(adapted, joint)
    if detach:
        return distances
    back = features.cosine(joint, adapted)
    return distances + back - jax.lax.stop_gradient(back)


def _create_heads(key: Array, inputs: int, heads: Mapping[str, int]) -> Tree:
    keys = jax.random.split(key, len(heads))
    return {name: create_linear(k, inputs, size) for k, (name, size) in zip(keys, heads.items(), strict=True)}


def _head_signals(heads: Tree, features: Float[Array, "B D"]) -> Signals:
    outputs = {name: linear(head, features) for name, head in heads.items()}
    return Signals(features, outputs.get("expression"), outputs.get("valence_arousal"))
