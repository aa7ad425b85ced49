"""What a network costs: parameters and multiply-accumulates per example."""

from typing import Any

import jax
import jax.numpy as jnp

from emokd.models.macs import count_macs
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import NetworkSpec, count_parameters, functional

_described: dict[str, dict[str, Any]] = {}


def describe(spec: NetworkSpec | MultimodalSpec) -> dict[str, Any]:
    """A network's `backbone`, `parameters`, `macs` of one example, and `size` (input side in pixels).

    A multimodal network's backbones are joined by "+", and it has no `size`. Nothing is allocated. Results are cached
    per specification, because counting traces the whole network.
    """
    description = _described.get(repr(spec))
    if description is None:
        network = functional(spec)
        params, stats = network.abstract
        macs = count_macs(lambda p, s, x: network(p, s, x)[0], params, stats, _abstract_input(spec))
        description = {"backbone": _name(spec), "parameters": count_parameters(params), "macs": macs}
        if isinstance(spec, NetworkSpec):
            description["size"] = spec.preprocessing.size
        _described[repr(spec)] = description
    return dict(description)


def _abstract_input(spec: NetworkSpec | MultimodalSpec) -> Any:
    """Shape and dtype of a batch of one example."""
    if isinstance(spec, NetworkSpec):
        size, channels = spec.preprocessing.size, spec.preprocessing.channels
        return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return {name: jax.ShapeDtypeStruct((1, *m.shape), jnp.float32) for name, m in spec.modalities.items()}


def _name(spec: NetworkSpec | MultimodalSpec) -> str:
    if isinstance(spec, NetworkSpec):
        return spec.backbone
    return "+".join(modality.backbone for modality in spec.modalities.values())
