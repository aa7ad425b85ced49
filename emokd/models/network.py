"""A backbone with heads, its specification, and its functional form, which training and inference use."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from emokd.errors import InputError
from emokd.models.convolution import widen
from emokd.models.layers import linear
from emokd.models.precision import PRECISION_NAMES
from emokd.models.preprocessing import Preprocessing
from emokd.models.registry import create_backbone
from emokd.models.rematerialization import rematerialization
from emokd.models.rounding import NETWORKS, RANGES, rounding, taking_ranges
from emokd.parts import part
from emokd.signals import Signals

Tree = dict[str, Any]

PRECISIONS: Mapping[str, DTypeLike | None] = dict(zip(PRECISION_NAMES, (None, jnp.bfloat16), strict=True))
"""The dtype that networks compute in, by name; None is the dtype of their inputs."""


class Network(nnx.Module):
    """A backbone and linear heads on its features.

    The head `expression` gives `Signals.logits`, the head `valence_arousal` gives
    `Signals.valence_arousal`; every other head appears among the intermediates under its name.

    Args:
      backbone: gives features [B, feature_size].
      heads: output size of each head.
      dropout: rate before the heads, in training.
      places: where the network rounds, see `rounding`; 0: it has no ranges, and computes in floating point.
      rngs: source of the fresh parameters.
    """

    def __init__(
        self, backbone: nnx.Module, heads: Mapping[str, int], *, dropout: float = 0.0, places: int = 0, rngs: nnx.Rngs
    ):
        self.backbone = backbone
        self.dropout = nnx.Dropout(dropout)
        self.heads = nnx.Dict(
            {name: nnx.Linear(backbone.feature_size, size, rngs=rngs) for name, size in heads.items()}
        )
        if places:
            setattr(self, RANGES, nnx.BatchStat(jnp.zeros((places, 2))))

    def __call__(
        self, images: Float[Array, "B H W C"], *, dtype: DTypeLike | None = None, rngs: nnx.Rngs | None = None
    ) -> Signals:
        signals = self.backbone(images if dtype is None else images.astype(dtype))
        features = self.dropout(signals.features, rngs=rngs)
        return attach_heads(signals, {name: linear(head, features) for name, head in self.heads.items()})


def attach_heads(signals: Signals, outputs: Mapping[str, Array]) -> Signals:
    """Adds the outputs of named heads to Signals: `expression`, `valence_arousal`, the others as intermediates."""
    rest = {k: v for k, v in outputs.items() if k not in ("expression", "valence_arousal")}
    return signals.replace(
        logits=outputs.get("expression"),
        valence_arousal=outputs.get("valence_arousal"),
        intermediates={**signals.intermediates, **rest},
    )


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """Everything needed to build a network again: what a model folder's `model.json` holds.

    Attributes:
      backbone: a name in `registry.BACKBONES`.
      options: the backbone's keyword arguments, such as `width`.
      heads: output size of each head.
      classes: class names of each classifying head, in the order of its logits.
      preprocessing: the network's input size and normalisation.
      dropout: rate before the heads, in training.
      quantized: whether it has learnt, or is to learn, to compute in 8-bit integers, see `rounding`.
    """

    backbone: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    heads: Mapping[str, int] = dataclasses.field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()
    dropout: float = 0.0
    quantized: bool = False

    def make(self, rngs: nnx.Rngs) -> Network:
        """Builds the module with fresh parameters.

        Raises:
          InputError: it is to be quantised, and its backbone has layers whose integers are not simulated.
        """
        places = self._places() if self.quantized else 0
        backbone = create_backbone(self.backbone, rngs=rngs, **self.options)
        return Network(backbone, self.heads, dropout=self.dropout, places=places, rngs=rngs)

    def _places(self) -> int:
        """How many places the network has; it is traced without computing anything."""
        if self.backbone not in NETWORKS:
            raise InputError(
                f"{self.backbone} cannot learn to compute in integers: only {', '.join(NETWORKS)} can. Take one of "
                "these, or leave config.student.quantized False: the export's --precision=int8 takes any network."
            )
        floating = functional(dataclasses.replace(self, quantized=False))
        side, channels = self.preprocessing.size, self.preprocessing.channels
        picture = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        with taking_ranges(None) as seen:
            jax.eval_shape(floating, *floating.abstract, picture)
        return len(seen)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with weights, as read from a file.

    Attributes:
      spec: the architecture: a NetworkSpec, or a MultimodalSpec.
      params: parameters, nested dicts.
      stats: BatchNorm statistics, likewise.
      origin: file name and hash of the weights, by which a run refers to its teachers.
    """

    spec: Any
    params: Tree
    stats: Tree
    origin: str


def in_floating_point(model: TrainedModel) -> TrainedModel:
    """The model without its ranges, so that it computes in floating point."""
    if not getattr(model.spec, "quantized", False):
        return model
    stats = {name: entry for name, entry in model.stats.items() if name != RANGES}
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, quantized=False), stats=stats)


class FreshKeys:
    """A faster `nnx.Rngs(key)` for building modules: the same keys in the same order.

    It counts in Python. The counter of `nnx.Rngs` is an array, and flax compares the shardings of its old and new
    values. During tracing JAX answers that by searching all operations so far, which took three quarters of the time of
    building EmoNet.
    """

    def __init__(self, key: Array):
        self._key, self._count = key, 0

    def params(self) -> Array:
        """The next key."""
        key = jax.random.fold_in(self._key, self._count)
        self._count += 1
        return key


class Functional:
    """A module as pure functions over plain nested dicts of parameters and BatchNorm statistics.

    The module is split once, at construction. Inside a compiled step only `nnx.merge` runs, on plain dicts, because
    merging State objects would share Variables between traces.

    Parameters and statistics are float32 at every precision. Below float32 the network casts its inputs after
    standardising them, and every layer casts its parameters. Norms, softmax, pooling and heads compute in float32, and
    all outputs are float32.
    """

    def __init__(self, make, *, precision: str = "float32", remat: bool = False, name: str = "network"):
        """Traces `make(nnx.Rngs) -> nnx.Module` abstractly; nothing is allocated.

        Args:
          make: makes the module.
          precision: a name in `PRECISIONS`.
          remat: whether the backward pass recomputes the activations inside blocks.
          name: the part of a step that its operations belong to, see `emokd.parts`.
        """
        self._make = make
        self._dtype = PRECISIONS[precision]
        self._remat = remat
        self._name = name
        module = nnx.eval_shape(lambda: make(FreshKeys(jax.random.key(0))))
        module.train()
        self._train, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
        module.eval()
        self._eval, _, _ = nnx.split(module, nnx.Param, nnx.BatchStat)
        self.abstract: tuple[Tree, Tree] = (nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
        self.module = module

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Returns fresh (params, stats)."""
        _, params, stats = nnx.split(self._make(FreshKeys(key)), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def __call__(
        self,
        params: Tree,
        stats: Tree,
        *inputs: Array | None,
        train: bool = False,
        key: Array | None = None,
        integers: bool = True,
    ) -> tuple[Any, Tree]:
        """Returns (outputs, stats).

        Args:
          params: parameters.
          stats: statistics; they change only with `train`.
          *inputs: the module's.
          train: whether BatchNorm takes statistics of the batch, and dropout drops.
          key: of dropout.
          integers: whether a quantised network computes in simulated integers; others do not either way.
        """
        module = nnx.merge(self._train if train else self._eval, params, stats)
        rngs = nnx.Rngs(dropout=key) if key is not None else None
        with part(self._name), rematerialization(self._remat), rounding(stats.get(RANGES) if integers else None):
            if self._dtype is None:
                outputs = module(*inputs, rngs=rngs)
            else:
                outputs = jax.tree.map(widen, module(*inputs, dtype=self._dtype, rngs=rngs))
        if not train:
            return outputs, stats
        _, _, new_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
        return outputs, nnx.to_pure_dict(new_stats)


class Makes(Protocol):
    """A specification: any object that can make a module."""

    def make(self, rngs: nnx.Rngs) -> nnx.Module: ...


def functional(spec: Makes, *, precision: str = "float32", remat: bool = False, name: str = "network") -> Functional:
    """The functional form of the network that `spec` describes; the options are `Functional`'s."""
    return Functional(spec.make, precision=precision, remat=remat, name=name)


def count_parameters(params: Tree) -> int:
    """Number of scalars in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
