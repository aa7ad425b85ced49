"""Views of a batch, and the batch as each network's input."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from emokd.data.augment import Augmentation, View, centre_views, render, sample_views
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec
from emokd.parts import AUGMENTATION, part
from emokd.phase import Batch
from emokd.signals import Signals


def create_sampler(section: ml_collections.ConfigDict) -> Callable[[Batch], View]:
    """The function that draws a batch's augmented views as `config.data` says.

    Raises:
      InputError: an augmentation is outside its range.
    """
    augmentation = Augmentation(**section.augment.to_dict())
    return functools.partial(create_views, augmentation=augmentation, seed=section.view_seed)


def create_views(batch: Batch, augmentation: Augmentation, seed: int) -> View:
    """The batch's augmented views, each named by its (id, view)."""
    with part(AUGMENTATION):
        return sample_views(batch["id"], batch["view"], augmentation, seed)


def centre(batch: Batch) -> View:
    """The evaluation view: the whole canvas, unchanged."""
    return centre_views(batch["id"].shape[0])


def see(spec: NetworkSpec | MultimodalSpec, batch: Batch, view: View) -> Any:
    """Renders a view of the batch as a network's input: at its own size and normalisation, [B, H, W, C].

    For a multimodal network, a dict of its modalities: pictures as above, the frames of a video [B, T, H, W, C] all in
    the example's one view, arrays unchanged in float32.
    """
    with part(AUGMENTATION):
        if isinstance(spec, NetworkSpec):
            return spec.preprocessing(render(batch["image"], view, spec.preprocessing.size))
        return {
            name: _see_modality(modality, batch[modality.input], view) for name, modality in spec.modalities.items()
        }


def _see_modality(modality: ModalitySpec, values: Array, view: View) -> Float[Array, "B ..."]:
    if modality.preprocessing is None:
        return values.astype(jnp.float32)
    if values.ndim == 4:
        return modality.preprocessing(render(values, view, modality.preprocessing.size))
    rows, frames = values.shape[:2]
    repeated = jax.tree.map(lambda x: jnp.repeat(x, frames, axis=0, total_repeat_length=rows * frames), view)
    flat = render(values.reshape(rows * frames, *values.shape[2:]), repeated, modality.preprocessing.size)
    pixels = modality.preprocessing(flat)
    return pixels.reshape(rows, frames, *pixels.shape[1:])


def average_affect(signals: Signals, mirrored: Signals) -> Signals:
    """Valence and arousal averaged with the mirrored picture's, as EmoNet's evaluation does; the rest as it was."""
    if signals.valence_arousal is None:
        return signals
    return signals.replace(valence_arousal=(signals.valence_arousal + mirrored.require("valence_arousal")) / 2)
