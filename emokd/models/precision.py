"""The names of the precisions that networks compute in; without JAX, because commands list them in their flags."""

PRECISION_NAMES = ("float32", "bfloat16")
