"""Converts JAX's primitives to ONNX operators: one file per family, each with a table of handlers.

`FUNCTIONS` are handlers of whole functions that the jaxpr names, see `rounding`.
"""

from collections.abc import Mapping

from emokd.exporting.primitives import elementwise, indexing, products, reductions, shapes, spectral, windows
from emokd.exporting.primitives.rounding import FUNCTIONS as FUNCTIONS
from emokd.exporting.walk import Handler

HANDLERS: Mapping[str, Handler] = {
    **elementwise.HANDLERS,
    **indexing.HANDLERS,
    **products.HANDLERS,
    **reductions.HANDLERS,
    **shapes.HANDLERS,
    **spectral.HANDLERS,
    **windows.HANDLERS,
}
"""Handlers by the name of the primitive."""
