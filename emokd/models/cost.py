"""What a network costs: parameters and multiply-accumulates per picture."""

from typing import Any

import jax
import jax.numpy as jnp

from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional

_described: dict[str, dict[str, Any]] = {}


def describe(spec: NetworkSpec) -> dict[str, Any]:
    """Backbone, parameters, MACs of one picture, and input side of a network; nothing is allocated.

    Remembered per specification, because counting traces the whole network.
    """
    known = _described.get(repr(spec))
    if known is None:
        network = functional(spec)
        params, stats = network.abstract
        size, channels = spec.preprocessing.size, spec.preprocessing.channels
        image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        macs = count_macs(lambda p, s, x: network(p, s, x)[0], params, stats, image)
        known = {"backbone": spec.backbone, "parameters": count_parameters(params), "macs": macs, "size": size}
        _described[repr(spec)] = known
    return dict(known)
