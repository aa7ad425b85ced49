"""A network of several modalities: an encoder for each, T-Nets that hallucinate absent ones, a fusion, and heads."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float

from emokd.models.fusion import create_fusion
from emokd.models.hallucination import TNet
from emokd.models.layers import statistics_of
from emokd.models.network import attach_heads
from emokd.models.preprocessing import Preprocessing
from emokd.models.registry import create_backbone
from emokd.signals import Signals


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
    """One modality and its encoder.

    Attributes:
      input: its key in a batch, such as "image", "video", "physiology" or "features/eye".
      shape: of one example as the encoder reads it.
      backbone: a name in `registry.BACKBONES`.
      options: the backbone's keyword arguments; for arrays `shape` is added.
      preprocessing: size and normalisation of pictures and videos; None for arrays, which are standardised instead.
      standardize: for arrays: "columns" uses one mean and deviation per entry of the last axis, "all" a common one.
    """

    input: str
    shape: tuple[int, ...]
    backbone: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    standardize: str = "columns"


@dataclasses.dataclass(frozen=True)
class MultimodalSpec:
    """Everything needed to build a multimodal network again.

    Attributes:
      modalities: its input modalities by name, in the order of the fusion's tokens.
      hallucinated: names of the modalities that T-Nets hallucinate from the inputs; their tokens come last.
      width: size of a token.
      fusion: a name in `fusion.FUSIONS`; not used where there is a single token.
      fusion_options: its keyword arguments.
      hallucination: T-Net's keyword arguments, such as the sizes of its layers.
      heads: output size of each head.
      classes: class names of each classifying head.
      dropout: rate before the heads, in training.
    """

    modalities: Mapping[str, ModalitySpec]
    hallucinated: tuple[str, ...] = ()
    width: int = 512
    fusion: str = "transformer"
    fusion_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hallucination: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    heads: Mapping[str, int] = dataclasses.field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dropout: float = 0.0

    def make(self, rngs: nnx.Rngs) -> "MultimodalNetwork":
        """Builds the module with fresh parameters."""
        return MultimodalNetwork(self, rngs=rngs)


class Standardizer(nnx.Module):
    """Standardises arrays to mean 0 and deviation 1 over the training set; missing values (NaN) become the mean, 0.

    The statistics have no gradient: the training recipe sets them. They are stored with BatchNorm's statistics.

    Args:
      shape: () for one mean and deviation, (columns,) for one per entry of the last axis.
    """

    def __init__(self, shape: Sequence[int]):
        self.mean = nnx.BatchStat(jnp.zeros(tuple(shape)))
        self.std = nnx.BatchStat(jnp.ones(tuple(shape)))

    def __call__(self, values: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        mean, std = (
            jnp.broadcast_to(s[...].reshape((1,) * (values.ndim - s.ndim) + s.shape), values.shape)
            for s in (self.mean, self.std)
        )
        return jnp.where(jnp.isnan(values), 0.0, (values - mean) / std)


class Encoder(nnx.Module):
    """Encodes one modality as a token: arrays are standardised, then come the backbone and a map to the common width.

    Args:
      spec: the modality.
      width: size of a token. A linear map follows only where the backbone's features have another size.
      rngs: source of the fresh parameters.
    """

    def __init__(self, spec: ModalitySpec, width: int, *, rngs: nnx.Rngs):
        options = dict(spec.options)
        is_array = spec.preprocessing is None
        if is_array:
            options["shape"] = tuple(spec.shape)
        columns = spec.shape[-1:] if spec.standardize == "columns" else ()
        self.standardizer = Standardizer(columns) if is_array else None
        self.backbone = create_backbone(spec.backbone, rngs=rngs, **options)
        size = self.backbone.feature_size
        self.project = nnx.Linear(size, width, rngs=rngs) if size != width else None

    def __call__(self, values: Float[Array, "B ..."], dtype: DTypeLike | None = None) -> Float[Array, "B D"]:
        present = None
        if self.standardizer is not None:
            present = is_present(values)
            values = self.standardizer(values)
        values = _cast(values, dtype)  # after standardising: raw values may be too far from 0 for half precision
        with statistics_of(present):
            features = self.backbone(values).features
        return features if self.project is None else self.project(features)


class MultimodalNetwork(nnx.Module):
    """Encoders, T-Nets, fusion and heads.

    A modality is absent from an example where its array is NaN throughout, or where the caller's `keep` is False. An
    absent modality does not influence the example's outputs. An array that is NaN throughout does not enter the
    encoder's BatchNorm statistics in training either; a modality that `keep` hides does. The T-Nets read the tokens of
    all modalities side by side, with zeros for absent ones.

    Args:
      spec: what to build.
      rngs: source of the fresh parameters.
    """

    def __init__(self, spec: MultimodalSpec, *, rngs: nnx.Rngs):
        self.names = tuple(spec.modalities)
        self.hallucinated = spec.hallucinated
        tokens = len(self.names) + len(self.hallucinated)
        self.encoders = nnx.Dict({name: Encoder(m, spec.width, rngs=rngs) for name, m in spec.modalities.items()})
        self.hallucinators = nnx.Dict(
            {
                name: TNet(len(self.names) * spec.width, spec.width, rngs=rngs, **spec.hallucination)
                for name in self.hallucinated
            }
        )
        self.fusion = (
            create_fusion(spec.fusion, tokens, spec.width, rngs=rngs, **spec.fusion_options) if tokens > 1 else None
        )
        self.feature_size = self.fusion.feature_size if self.fusion is not None else spec.width
        self.dropout = nnx.Dropout(spec.dropout)
        self.heads = nnx.Dict(
            {name: nnx.Linear(self.feature_size, size, rngs=rngs) for name, size in spec.heads.items()}
        )

    def __call__(
        self,
        inputs: Mapping[str, Array],
        keep: Bool[Array, "B M"] | None = None,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Signals:
        """Gives features, heads, and the tokens, each as the intermediate `token/<name>`.

        Args:
          inputs: the modalities' values by name: normalised pictures and videos, arrays before standardisation.
          keep: False for modalities to treat as absent, in the order of the specification; None keeps all.
          dtype: of the computation in encoders, T-Nets and fusion; None: the dtype of the inputs.
          rngs: source of dropout's randomness.
        """
        tokens = {name: encoder(inputs[name], dtype) for name, encoder in self.encoders.items()}
        present = jnp.stack([is_present(inputs[name]) for name in self.names], axis=1)
        if keep is not None:
            present = present & keep
        visible = jnp.concatenate(
            [jnp.where(present[:, m, None], tokens[name], 0.0) for m, name in enumerate(self.names)], axis=1
        )
        for name, imagine in self.hallucinators.items():
            tokens[name] = imagine(_cast(visible, dtype))
        if self.fusion is None:
            features = visible
        else:
            imagined = jnp.broadcast_to(present.any(1, keepdims=True), (visible.shape[0], len(self.hallucinated)))
            stacked = jnp.stack([tokens[name] for name in (*self.names, *self.hallucinated)], axis=1)
            features = self.fusion(_cast(stacked, dtype), jnp.concatenate([present, imagined], axis=1))
        signals = Signals(features=features, intermediates={f"token/{name}": t for name, t in tokens.items()})
        dropped = self.dropout(features, rngs=rngs)
        return attach_heads(signals, {name: head(dropped) for name, head in self.heads.items()})


def _cast(values: Array, dtype: DTypeLike | None) -> Array:
    return values if dtype is None else values.astype(dtype)


def is_present(values: Array) -> Bool[Array, " B"]:
    """Which examples have the modality: arrays that are not NaN throughout; pictures (integers) always."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return jnp.ones(values.shape[0], bool)
    return ~jnp.isnan(values.reshape(values.shape[0], math.prod(values.shape[1:]))).all(1)
