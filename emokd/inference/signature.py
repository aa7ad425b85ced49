"""What a model in use takes and answers, by name; the same for a network in JAX and for an exported file."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

IMAGE = "image"
AFFECT = "valence_arousal"
COMMON = ("expression", AFFECT)
"""The heads that have a field of their own in an answer."""

Kind = Literal["picture", "video", "array"]


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
      reads: its key in a batch, such as "image", "video" or "features/eye".
      shape: of one example as the network takes it: [S, S, C], [T, S, S, C], or an array's.
      kind: a picture, a video's frames, or an array of numbers.
      columns: the names of an array's last axis in training; empty where they are not known.
    """

    reads: str
    shape: tuple[int, ...]
    kind: Kind
    columns: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a model takes and what it answers.

    Attributes:
      inputs: by name, in the model's order; `image` alone for a network of pictures.
      heads: the names of each classifying head's classes, in order; empty for valence and arousal.
      multimodal: whether inputs are given by name, as a dict.
      attends_to_batch: whether the answer about an example depends on the others of its batch.
    """

    inputs: Mapping[str, Input]
    heads: Mapping[str, tuple[str, ...]]
    multimodal: bool = False
    attends_to_batch: bool = False

    @property
    def takes_one_picture(self) -> bool:
        """Whether a picture is all that the model takes."""
        return [each.reads for each in self.inputs.values()] == [IMAGE]
