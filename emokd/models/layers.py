"""Layers that every architecture here shares."""

import functools

from flax import nnx

Conv = nnx.Conv
# Flax keeps `momentum` of the old statistics: its 0.9 is PyTorch's 0.1.
BatchNorm = functools.partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)
