"""Parts of vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929): patches, attention, pre-norm blocks."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.models.convolution import widen
from emokd.models.layers import LayerNorm, Linear
from emokd.models.rematerialization import rematerializable

EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """How large a vision transformer is.

    Attributes:
      width: size of a token.
      depth: number of blocks.
      heads: of every attention; they divide the width.
      patch: side of a patch, pixels.
      grid: side of the square grid of patches that the position embeddings were trained for.
    """

    width: int
    depth: int
    heads: int
    patch: int
    grid: int


def quick_gelu(x: Array) -> Array:
    """CLIP's approximation of GELU: x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Array) -> Array:
    """GELU by the error function."""
    return jax.nn.gelu(x, approximate=False)


class Patches(nnx.Module):
    """A token for each square patch of a picture, row by row: a linear layer on the patch's pixels.

    It is the published networks' convolution whose stride is its kernel's side; as a matrix product it is fast on every
    device.

    Args:
      patch: side of a patch, pixels; it divides the pictures' sides.
      width: size of a token.
      use_bias: whether the layer has a bias.
      rngs: source of the fresh parameters.
    """

    def __init__(self, patch: int, width: int, *, use_bias: bool = True, rngs: nnx.Rngs):
        self.patch = patch
        self.project = Linear(patch * patch * 3, width, use_bias=use_bias, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
        batch, height, width, channels = images.shape
        rows, columns = height // self.patch, width // self.patch
        pixels = images.reshape(batch, rows, self.patch, columns, self.patch, channels).transpose(0, 1, 3, 2, 4, 5)
        return self.project(pixels.reshape(batch, rows * columns, self.patch * self.patch * channels))


class Attention(nnx.Module):
    """Multi-head self-attention; its softmax is computed in at least float32."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Linear(width, width, rngs=rngs)
        self.key = Linear(width, width, rngs=rngs)
        self.value = Linear(width, width, rngs=rngs)
        self.out = Linear(width, width, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        batch, count, width = tokens.shape
        shape = (batch, count, self.heads, width // self.heads)
        query, key, value = (layer(tokens).reshape(shape) for layer in (self.query, self.key, self.value))
        scores = widen(jnp.einsum("bqhc,bkhc->bhqk", query, key)) * shape[3] ** -0.5
        mixed = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores).astype(tokens.dtype), value)
        return self.out(mixed.reshape(tokens.shape))


class Mlp(nnx.Module):
    """Two linear layers with an activation between them; the hidden one is four times as wide."""

    def __init__(self, width: int, activation: Callable[[Array], Array], *, rngs: nnx.Rngs):
        self.expand = Linear(width, EXPANSION * width, rngs=rngs)
        self.project = Linear(EXPANSION * width, width, rngs=rngs)
        self.activation = activation

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        return self.project(self.activation(self.expand(tokens)))


class LayerScale(nnx.Module):
    """A learned factor for each channel, at first 1e-5 (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, width: int):
        self.lambda1 = nnx.Param(jnp.full(width, 1e-5))

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        return tokens * self.lambda1[...].astype(tokens.dtype)[None, None]


class Block(nnx.Module):
    """A pre-norm block: attention, then an MLP, each on normalised tokens and added to its input.

    Args:
      width: size of a token.
      heads: of the attention.
      activation: of the MLP.
      epsilon: of the normalisations.
      layer_scale: whether both parts have a LayerScale.
      rngs: source of the fresh parameters.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        activation: Callable[[Array], Array],
        epsilon: float,
        *,
        layer_scale: bool = False,
        rngs: nnx.Rngs,
    ):
        self.norm_1 = LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.attention = Attention(width, heads, rngs=rngs)
        self.norm_2 = LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.mlp = Mlp(width, activation, rngs=rngs)
        self.scaled = layer_scale
        if layer_scale:
            self.scale_1 = LayerScale(width)
            self.scale_2 = LayerScale(width)

    @rematerializable
    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        attended = self.attention(self.norm_1(tokens))
        tokens = tokens + (self.scale_1(attended) if self.scaled else attended)
        changed = self.mlp(self.norm_2(tokens))
        return tokens + (self.scale_2(changed) if self.scaled else changed)


def prepend(token: Float[Array, "1 K D"], tokens: Float[Array, "B N D"]) -> Float[Array, "B K+N D"]:
    """The learned tokens `token`, the same for every example, before each example's own."""
    shape = (tokens.shape[0], *token.shape[1:])
    return jnp.concatenate([jnp.broadcast_to(token.astype(tokens.dtype), shape), tokens], 1)
