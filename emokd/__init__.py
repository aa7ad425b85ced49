"""emokd: small, fast emotion-recognition models taught by several large ones, in JAX."""

__version__ = "0.1.0.dev0"
