"""How far hallucinated tokens are from the true ones, by the losses that `config.hallucination.loss` names."""

from collections.abc import Mapping

import jax
from jaxtyping import Array, Bool, Float

from emokd.losses import mmd
from emokd.losses.group import Group
from emokd.recipes.common import relations
from emokd.recipes.common.distances import DISTANCES

LOSSES = ("mmd", *DISTANCES)

Tokens = Mapping[str, Float[Array, "B D"]]
TrueTokens = Mapping[str, tuple[Float[Array, "B D"], Bool[Array, " B"]]]
"""For each modality its tokens, and the rows that have the modality."""


def relational(loss: str) -> str:
    """What in this loss compares the examples of a batch, for `create_phase`."""
    return "config.hallucination.loss=mmd" if loss == "mmd" else ""


def token_distances(loss: str, tokens: Tokens, true: TrueTokens, *, rows: int = 0) -> dict[str, Float[Array, " B"]]:
    """How far the tokens are from the true ones, [B] by modality.

    Args:
      loss: a name in `LOSSES`. The discrepancy "mmd" is one value of a group of rows, which each of them gets.
      tokens: the hallucinated tokens.
      true: what they should be. Rows without the modality count in nothing.
      rows: of a group; 0: the whole batch.
    """
    if loss != "mmd":
        return {name: DISTANCES[loss](token, true[name][0]) for name, token in tokens.items()}

    def compare(tokens: Tokens, true: TrueTokens, group: Group) -> dict[str, Float[Array, "G R"]]:
        discrepancy = jax.vmap(lambda token, target, has: mmd.gaussian_mmd(token, target, mask=has, group=group))
        return {name: discrepancy(tokens[name], target, has) for name, (target, has) in true.items()}

    return relations.in_groups(compare, rows)(tokens, true)  # all modalities at once: one gather of each side
