"""DINOv2 ViT-S/14 (Oquab et al. 2023, arXiv:2304.07193), with or without registers (Darcet et al. 2023, 2309.16588)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError, nearest
from emokd.models.convolution import widen
from emokd.models.layers import LayerNorm
from emokd.models.position_embeddings import resample
from emokd.models.preprocessing import Preprocessing
from emokd.models.transformer import Block, Dimensions, Patches, exact_gelu, prepend
from emokd.signals import Signals

SMALL = Dimensions(width=384, depth=12, heads=6, patch=14, grid=37)
EPSILON = 1e-6
FEATURES = ("class", "class_and_patches")


class DINOv2(nnx.Module):
    """A DINOv2 without its classifier.

    Gives features and, among the intermediates, the normalised patch tokens as "map" [B, H / patch, W / patch, width].
    Other grids than the trained one get interpolated position embeddings, as in transformers 4.57.1: with antialiasing
    where there are registers, without it otherwise. The authors' own code takes the latter's new grid for a
    tenth of a patch larger than it is, which transformers does not.

    Args:
      dimensions: of the transformer.
      registers: number of register tokens; the published networks have none or 4.
      features: "class" for the normalised class token, [B, width]; "class_and_patches" for it and the mean of the
        normalised patch tokens, one after the other, [B, 2 * width], on which the published classifiers are.
      size: side of the pictures that the network is given unless its section says otherwise, a multiple of the patch.
      rngs: source of the fresh parameters.

    Raises:
      InputError: there are no such features, fewer than 0 registers, or the size is no multiple of the patch.
    """

    def __init__(
        self, dimensions: Dimensions, registers: int = 0, features: str = "class", size: int = 224, *, rngs: nnx.Rngs
    ):
        if features not in FEATURES:
            raise InputError(
                f"DINOv2 has no features {features!r}.{nearest(features, FEATURES)} Known: {', '.join(FEATURES)}."
            )
        if not isinstance(registers, int) or registers < 0:
            raise InputError(f"DINOv2 has 0 or more registers, not {registers!r}; the published networks have 0 or 4.")
        width, grid = dimensions.width, dimensions.grid
        _check_size(size, size, dimensions.patch)
        self.preprocessing = Preprocessing(size)
        self.feature_size = width * (1 if features == "class" else 2)
        self.dimensions = dimensions
        self.registers = registers
        self.with_patches = features != "class"
        normal = nnx.initializers.normal(0.02)
        self.patches = Patches(dimensions.patch, width, rngs=rngs)
        self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, width)))
        if registers:
            self.register_tokens = nnx.Param(normal(rngs.params(), (1, registers, width)))
        self.position_embeddings = nnx.Param(normal(rngs.params(), (1, 1 + grid * grid, width)))
        self.blocks = nnx.List(
            [
                Block(width, dimensions.heads, exact_gelu, EPSILON, layer_scale=True, rngs=rngs)
                for _ in range(dimensions.depth)
            ]
        )
        self.norm = LayerNorm(width, epsilon=EPSILON, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the features of normalised pictures.

        Raises:
          InputError: a side of the pictures is no multiple of the patch.
        """
        batch, height, width, _ = images.shape
        patch, grid = self.dimensions.patch, self.dimensions.grid
        _check_size(height, width, patch)
        rows, columns = height // patch, width // patch
        embeddings = self.position_embeddings[...]
        first, others = embeddings[:, :1], embeddings[0, 1:].reshape(grid, grid, -1)
        others = resample(others, rows, columns, antialias=self.registers > 0)
        tokens = self.patches(images)
        tokens = tokens + others.reshape(1, rows * columns, -1).astype(tokens.dtype)
        if self.registers:
            tokens = prepend(self.register_tokens[...], tokens)
        tokens = prepend(self.cls_token[...] + first, tokens)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        patches = tokens[:, 1 + self.registers :]
        features = widen(tokens[:, 0])
        if self.with_patches:
            features = jnp.concatenate([features, widen(patches).mean(1)], -1)
        return Signals(features=features, intermediates={"map": patches.reshape(batch, rows, columns, -1)})


def dinov2_small(
    *, registers: int = 0, features: str = "class", size: int = SMALL.patch * 16, rngs: nnx.Rngs
) -> DINOv2:
    """DINOv2 ViT-S/14: features [B, 384], or [B, 768] with the mean of the patches. The options are `DINOv2`'s."""
    return DINOv2(SMALL, registers, features, size, rngs=rngs)


def _check_size(height: int, width: int, patch: int) -> None:
    if height % patch or width % patch or min(height, width) < patch:
        down, up = max(1, height // patch) * patch, (height // patch + 1) * patch
        raise InputError(
            f"DINOv2 takes pictures whose sides are multiples of {patch} pixels, the side of a patch; it was given "
            f"{height} x {width}. Set the network's size to {down} or {up}."
        )
