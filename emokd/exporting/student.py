"""A stored model as the function that is exported: from the network's inputs to the model's outputs in use."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from emokd.data.reference import Reference
from emokd.errors import InputError
from emokd.exporting.graph import Graph
from emokd.exporting.preparation import Preparation, counted, pixels
from emokd.exporting.tracing import to_graph
from emokd.inference.forward import answers
from emokd.inference.signature import IMAGE
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes.common.views import average_affect
from emokd.signals import Signals
from emokd.weights.seen_as import SeenAs

Spec = NetworkSpec | MultimodalSpec
Function = Callable[[Mapping[str, Array]], dict[str, Float[Array, "B _"]]]


@dataclasses.dataclass(frozen=True)
class Seen:
    """One input of a network.

    Attributes:
      reads: its key in a batch.
      shape: of one example as the network takes it.
      preprocessing: of pictures and videos; None for arrays.
    """

    reads: str
    shape: tuple[int, ...]
    preprocessing: Preprocessing | None

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, not a video or an array."""
        return self.preprocessing is not None and len(self.shape) == 3


@dataclasses.dataclass(frozen=True)
class Student:
    """A model to export.

    Attributes:
      model: the network and its weights.
      seen_as: how pictures became squares in training, and whether the mirrored picture is averaged in.
      references: the centre and unit of arrays in training, by their key in a batch.
      preprocess: whether the graph takes pictures of any size, uint8 [B, H, W, 3], and prepares them itself.
    """

    model: TrainedModel
    seen_as: SeenAs
    references: Mapping[str, Reference] = dataclasses.field(default_factory=dict)
    preprocess: bool = False

    @property
    def inputs(self) -> dict[str, Seen]:
        """The inputs by their names in the graph: `image`, or the names of the modalities."""
        spec = self.model.spec
        if isinstance(spec, NetworkSpec):
            wanted = spec.preprocessing
            return {IMAGE: Seen(IMAGE, (wanted.size, wanted.size, wanted.channels), wanted)}
        return {name: Seen(m.input, tuple(m.shape), m.preprocessing) for name, m in spec.modalities.items()}

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the inputs that the graph takes as normalised pictures, [B, C, H, W]."""
        return () if self.preprocess else tuple(name for name, seen in self.inputs.items() if seen.is_picture)


def create_function(student: Student) -> Function:
    """Creates the function from inputs by name to outputs by head, see `inference.forward.answers`.

    It computes in float32. It takes pictures and videos normalised, [B, ..., C]; with `preprocess` it takes pictures as
    pixels of 0 to 255 at the network's size, [B, H, W, 3]. Arrays are in the network's units.
    """
    model, inputs = student.model, student.inputs
    network = functional(model.spec)

    def look(arrays: Mapping[str, Array], mirrored: bool) -> Signals:
        seen: dict[str, Any] = {}
        for name, values in arrays.items():
            preprocessing = inputs[name].preprocessing
            if student.preprocess and preprocessing is not None and inputs[name].is_picture:
                values = preprocessing(values / 255)
            seen[name] = jnp.flip(values, -2) if mirrored and preprocessing is not None else values
        pictures: Any = seen[IMAGE] if isinstance(model.spec, NetworkSpec) else seen
        return network(model.params, model.stats, pictures)[0]

    def function(arrays: Mapping[str, Array]) -> dict[str, Float[Array, "B _"]]:
        signals = look(arrays, False)
        if student.seen_as.mirror:
            signals = average_affect(signals, look(arrays, True))
        return answers(model.spec, signals)

    return function


def create_graph(student: Student) -> Graph:
    """Creates the graph of `create_function`, with the preprocessing of its inputs in front.

    Raises:
      InputError: the network has an operation that cannot be exported, or `preprocess` is set for a model that takes
        no pictures, or that takes videos.
    """
    prepared: dict[str, Preparation] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, seen in student.inputs.items():
        shapes[name] = seen.shape
        if student.preprocess and seen.preprocessing is not None:
            if not seen.is_picture:
                raise InputError(
                    f"--preprocess is for pictures, and the input {name!r} is a video. Leave it out: then the graph "
                    "takes videos at the network's size, normalised."
                )
            shapes[name] = (*seen.shape[:2], 3)
            prepared[name] = pixels(student.seen_as.fit, seen.preprocessing.size)
        elif seen.reads in student.references and seen.preprocessing is None:
            prepared[name] = counted(student.references[seen.reads], seen.shape)
    if student.preprocess and not any(seen.is_picture for seen in student.inputs.values()):
        raise InputError("--preprocess is for pictures, and this model takes none. Leave it out.")
    return to_graph(create_function(student), shapes, pictures=student.pictures, front=prepared)
