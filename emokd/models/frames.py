"""A video encoder that runs a picture backbone on each frame and pools its features over time."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError, nearest
from emokd.models.registry import create_backbone
from emokd.signals import Signals

POOLINGS = ("mean", "max")


class FrameEncoder(nnx.Module):
    """The mean or maximum over frames of a picture backbone's features. [ours]

    The order of frames does not matter. `preprocessing` is the inner backbone's; its intermediates are dropped.

    Args:
      backbone: name in `registry.BACKBONES` of a network for pictures.
      options: its keyword arguments.
      pooling: "mean" or "max".
      rngs: source of the fresh parameters.

    Raises:
      InputError: the backbone is unknown or takes no pictures, or `pooling` is unknown.
    """

    takes_videos = True

    def __init__(
        self, backbone: str, options: Mapping[str, Any] | None = None, pooling: str = "mean", *, rngs: nnx.Rngs
    ):
        if pooling not in POOLINGS:
            raise InputError(
                f"There is no pooling {pooling!r} of frames.{nearest(pooling, POOLINGS)} Known: {', '.join(POOLINGS)}."
            )
        self.encoder = create_backbone(backbone, rngs=rngs, **(options or {}))
        if getattr(self.encoder, "takes_videos", False) or not hasattr(self.encoder, "preprocessing"):
            raise InputError(
                f"The frames of a video cannot go through {backbone!r}, which does not take pictures. "
                "Choose a backbone for pictures, such as resnet18."
            )
        self.pooling = pooling
        self.feature_size = self.encoder.feature_size
        self.preprocessing = self.encoder.preprocessing

    def __call__(self, video: Float[Array, "B T H W C"]) -> Signals:
        """Gives the features of normalised clips of T >= 1 frames."""
        frames = video.reshape(-1, *video.shape[2:])
        features = self.encoder(frames).features.reshape(*video.shape[:2], self.feature_size)
        return Signals(features=features.max(1) if self.pooling == "max" else features.mean(1))
