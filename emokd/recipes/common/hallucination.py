"""How far hallucinated tokens are from the true ones, by the losses that `config.hallucination.loss` names."""

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from emokd.losses import mmd
from emokd.recipes.common import relations
from emokd.recipes.common.distances import DISTANCES

LOSSES = ("mmd", *DISTANCES)

Tokens = Mapping[str, Float[Array, "B D"]]
TrueTokens = Mapping[str, tuple[Float[Array, "B D"], Bool[Array, " B"]]]
"""For each modality its tokens, and the rows that have the modality."""


def relational(loss: str) -> str:
    """What in this loss compares the examples of a batch, for `create_phase`."""
    return "config.hallucination.loss=mmd" if loss == "mmd" else ""


def token_distances(loss: str, tokens: Tokens, true: TrueTokens) -> dict[str, Float[Array, " B"]]:
    """How far the tokens are from the true ones, [B] by modality.

    Args:
      loss: a name in `LOSSES`. The discrepancy "mmd" is one value of the whole batch, which every row gets.
      tokens: the hallucinated tokens.
      true: what they should be. Rows without the modality count in nothing.
    """
    if loss != "mmd":
        return {name: DISTANCES[loss](token, true[name][0]) for name, token in tokens.items()}

    def compare(tokens: Tokens, true: TrueTokens) -> dict[str, Float[Array, " B"]]:
        return {
            name: mmd.gaussian_mmd(tokens[name], true_tokens, mask=rows) for name, (true_tokens, rows) in true.items()
        }

    return relations.of_the_batch(compare)(tokens, true)  # all modalities at once: one gather of each side
