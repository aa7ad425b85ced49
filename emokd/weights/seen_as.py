"""How a model's training turned pictures into squares; imports no JAX, because exported models have it too."""

import dataclasses

FITS, CROPS = ("crop", "squash", "pad"), ("landmarks", "box")


@dataclasses.dataclass(frozen=True)
class SeenAs:
    """How pictures became squares in a model's training, and in what precision the model computed.

    Attributes:
      canvas: side of the stored square, pixels.
      fit: "crop", "squash" or "pad".
      face_crop: how faces were cut out, "landmarks" or "box".
      precision: a name in `models.precision.PRECISION_NAMES`; of an exported file, what its numbers are.
      mirror: whether it was scored with valence and arousal averaged over the picture and its mirror image.
    """

    canvas: int
    fit: str
    face_crop: str
    precision: str = "float32"
    mirror: bool = False
