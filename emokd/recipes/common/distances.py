"""How far the student's features are from a teacher's: the distances that configurations name."""

from collections.abc import Callable, Mapping

from jaxtyping import Array, Float

from emokd.losses import features

Distance = Callable[[Float[Array, "B D"], Float[Array, "B D"]], Float[Array, " B"]]
"""(the student's features, the teacher's) -> the distance of each example; no gradient flows to the teacher."""

DISTANCES: Mapping[str, Distance] = {"mse": features.mean_squared, "cosine": features.cosine}
