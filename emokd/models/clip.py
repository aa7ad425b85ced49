"""The image tower of CLIP ViT-B/32 (Radford et al. 2021, arXiv:2103.00020)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.convolution import widen
from emokd.models.layers import LayerNorm, Linear
from emokd.models.preprocessing import Preprocessing
from emokd.models.transformer import Block, Dimensions, Patches, prepend, quick_gelu
from emokd.signals import Signals

B32 = Dimensions(width=768, depth=12, heads=12, patch=32, grid=7)
EMBEDDING = 512
EPSILON = 1e-5
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipVision(nnx.Module):
    """CLIP's image tower: the projected embedding that is compared with those of texts, not normalised to length 1.

    Gives features [B, embedding] and, among the intermediates, the last block's patch tokens as "map"
    [B, grid, grid, width].

    Args:
      dimensions: of the transformer; pictures have `grid * patch` pixels on either side.
      embedding: size of the features.
      rngs: source of the fresh parameters.
    """

    def __init__(self, dimensions: Dimensions, embedding: int, *, rngs: nnx.Rngs):
        width = dimensions.width
        self.side = dimensions.grid * dimensions.patch
        self.grid = dimensions.grid
        self.preprocessing = Preprocessing(self.side, MEAN, STD)
        self.feature_size = embedding
        self.patches = Patches(dimensions.patch, width, use_bias=False, rngs=rngs)
        self.class_embedding = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (width,)))
        self.positions = nnx.Embed(
            1 + dimensions.grid**2, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs
        )
        self.norm_before = LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.blocks = nnx.List(
            [Block(width, dimensions.heads, quick_gelu, EPSILON, rngs=rngs) for _ in range(dimensions.depth)]
        )
        self.norm_after = LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.project = Linear(width, embedding, use_bias=False, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the features of normalised pictures.

        Raises:
          InputError: the pictures are of another size than the tower was trained for.
        """
        if images.shape[1:] != (self.side, self.side, 3):
            height, width, channels = images.shape[1:]
            raise InputError(
                f"CLIP's image tower takes RGB pictures of {self.side} x {self.side} pixels only, because it knows "
                f"{self.grid} x {self.grid} positions; it was given {height} x {width} x {channels}. "
                f"Set the network's size to {self.side}, or choose another model for other sizes."
            )
        tokens = prepend(self.class_embedding[...][None, None], self.patches(images))
        tokens = self.norm_before(tokens + self.positions.embedding[...].astype(tokens.dtype)[None])
        for block in self.blocks:
            tokens = block(tokens)
        features = widen(self.project(self.norm_after(tokens[:, 0])))
        maps = jnp.reshape(tokens[:, 1:], (tokens.shape[0], self.grid, self.grid, -1))
        return Signals(features=features, intermediates={"map": maps})


def clip_vit_b32(*, rngs: nnx.Rngs) -> ClipVision:
    """CLIP ViT-B/32's image tower: features [B, 512]."""
    return ClipVision(B32, EMBEDDING, rngs=rngs)
