"""Linear maps: probes, adapters and heads that belong to no network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emokd.phase import Tree


def create_linear(key: Array, inputs: int, outputs: int) -> Tree:
    """A linear map's fresh parameters: LeCun-normal kernel, zero bias."""
    kernel = jax.nn.initializers.lecun_normal()(key, (inputs, outputs), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros((outputs,), jnp.float32)}


def linear(params: Tree, features: Float[Array, "B D"]) -> Float[Array, "B E"]:
    """Applies a linear map."""
    return features @ params["kernel"] + params["bias"][None]
