"""Converts a jaxpr to a graph, equation by equation; equations of constants are computed at once.

The batch size is a symbolic dimension of JAX, so that one trace serves every size. Broadcasts are deferred until an
operator needs the full array, because ONNX's elementwise operators broadcast by themselves. [ours]
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core

from emokd.errors import InputError
from emokd.exporting.graph import BATCH, Graph, Shape

JITTED = ("jit", "pjit")
INLINE = (*JITTED, "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2", "remat")


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the jaxpr: a tensor of the graph, or a constant array.

    Attributes:
      shape: the shape in JAX; may contain the symbolic batch size.
      held: the shape before deferred broadcasts, with size 1 where a broadcast is pending.
      dtype: of its entries.
      name: the tensor's name, empty for a constant.
      array: the constant, None for a tensor.
    """

    shape: tuple[Any, ...]
    held: tuple[Any, ...]
    dtype: np.dtype
    name: str = ""
    array: np.ndarray | None = None


Handler = Callable[["Walk", core.JaxprEqn, list[Value]], Value | list[Value]]
Function = Callable[["Walk", core.JaxprEqn, list[Value]], Value]


def constant(array: Any, shape: Sequence[Any] | None = None) -> Value:
    """An array as a constant value; `shape` is the shape that it is to be broadcast to, by default its own."""
    array = np.asarray(array)
    return Value(array.shape if shape is None else tuple(shape), array.shape, array.dtype, array=array)


class Walk:
    """The walk through a jaxpr, with the methods that handlers of primitives use.

    Args:
      handlers: by the name of the primitive.
      graph: the graph to add operators to.
      batch: the symbolic batch size.
      functions: handlers of jitted functions, by the function's name.
    """

    def __init__(
        self, handlers: Mapping[str, Handler], graph: Graph, batch: Any, functions: Mapping[str, Function] | None = None
    ):
        self.graph, self.batch = graph, batch
        self._handlers, self._functions = handlers, functions or {}
        self._rows = ""
        self._walked: list[core.JaxprEqn] = []  # for messages: not every equation records its source line

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        """Adds the operators of `jaxpr` to the graph, and returns its outputs.

        Raises:
          InputError: it contains a primitive without a handler, or one that its handler cannot convert.
        """
        known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(constant, consts), strict=True))
        known |= zip(jaxpr.invars, arguments, strict=True)

        def read(variable: Any) -> Value:
            return constant(variable.val) if isinstance(variable, core.Literal) else known[variable]

        for equation in jaxpr.eqns:
            known |= zip(equation.outvars, self._equation(equation, [read(v) for v in equation.invars]), strict=True)
        return [read(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
        name = equation.primitive.name
        self._walked.append(equation)
        if name in JITTED and equation.params["name"] in self._functions:
            return [self._functions[equation.params["name"]](self, equation, inputs)]
        if name in INLINE:
            inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
        found = self._compute(equation, inputs)
        if found is not None:
            return found
        if name not in self._handlers:
            raise self.unknown(equation, "is not known to the export")
        outputs = self._handlers[name](self, equation, inputs)
        return outputs if isinstance(outputs, list) else [outputs]

    def unknown(self, equation: core.JaxprEqn, why: str) -> InputError:
        """The error for an equation that cannot be converted."""
        shapes = ", ".join(str(getattr(v.aval, "shape", ())) for v in equation.invars)
        place = next(filter(None, map(_place, [equation, *reversed(self._walked)])), "the network")
        return InputError(
            f"The operation {equation.primitive.name!r} on {shapes}, in or just after {place}, {why}, so the network "
            "cannot be exported. Write it with other operations of jax.numpy, or add it to emokd/exporting/primitives."
        )

    def _compute(self, equation: core.JaxprEqn, inputs: list[Value]) -> list[Value] | None:
        """The outputs of an equation of constants; None where it is not one, or has to know the batch."""
        known = [value.array for value in inputs if value.array is not None]
        if len(known) < len(inputs):
            return None
        outputs = [variable.aval for variable in equation.outvars]
        exact = all(value.held == value.shape for value in inputs)
        if exact and not _has_symbol(equation.params):
            return [constant(array) for array in _bind(equation, known)]
        if equation.primitive.name == "broadcast_in_dim" or _has_symbol(equation.params):
            return None
        # One row stands for all: what is computed of each example alone is computed of the one.
        shapes = [[1 if _symbolic(size) else size for size in value.shape] for value in inputs]
        single = [np.broadcast_to(array, shape) for array, shape in zip(known, shapes, strict=True)]
        arrays = _bind(equation, single)
        single_shapes = [tuple(1 if _symbolic(d) else d for d in output.shape) for output in outputs]
        if [array.shape for array in arrays] != single_shapes:
            return None
        return [constant(array, output.shape) for array, output in zip(arrays, outputs, strict=True)]

    def size(self, dimension: Any) -> int:
        """A size in the graph's shapes: `BATCH` for a symbolic one."""
        return BATCH if _symbolic(dimension) else int(dimension)

    def sizes(self, shape: Sequence[Any]) -> Shape:
        """A shape in the graph's form, see `size`."""
        return tuple(map(self.size, shape))

    def tensor(self, value: Value) -> str:
        """The tensor of a value, as it is held."""
        return value.name if value.array is None else self.graph.constant(value.array)

    def emit(
        self, op: str, inputs: Sequence[Value | str], shape: Any, dtype: Any, held: Any = None, **attributes
    ) -> Value:
        """Adds an operator, and returns its output.

        Args:
          op: its name in ONNX.
          inputs: values, taken before deferred broadcasts, or names of tensors.
          shape: of the output in JAX.
          dtype: of the output.
          held: shape that the operator's output has before deferred broadcasts; None: `shape`.
          **attributes: the operator's attributes.
        """
        held = tuple(shape if held is None else held)
        names = [value if isinstance(value, str) else self.tensor(value) for value in inputs]
        name = self.graph.add(op, names, self.sizes(held), dtype, **attributes)
        return Value(tuple(shape), held, np.dtype(dtype), name)

    def whole(self, value: Value) -> Value:
        """The value with its deferred broadcasts carried out."""
        if value.held == value.shape:
            return value
        if value.array is not None and not any(map(_symbolic, value.shape)):
            return constant(np.broadcast_to(value.array, value.shape))
        pending = [s for h, s in zip(value.held, value.shape, strict=True) if h != s]
        if not any(map(_symbolic, pending)):
            # Expand keeps an axis whose target size is 1, here the batch.
            known = [1 if _symbolic(size) else size for size in value.shape]
            return self.emit("Expand", [value, self.integers(known)], value.shape, value.dtype)
        parts = [self.rows(size) if _symbolic(size) else self.integers([size]) for size in value.shape]
        target = self.graph.add("Concat", parts, (len(parts),), np.int64, axis=0)
        return self.emit("Expand", [value, target], value.shape, value.dtype)

    def rows(self, dimension: Any) -> str:
        """A size that is a multiple of the batch size, as a tensor [1]."""
        if not self._rows:
            self._rows = self.graph.add("Shape", [self.graph.inputs[0]], (1,), np.int64, start=0, end=1)
        times = int(dimension // self.batch)
        return self._rows if times == 1 else self.graph.add("Mul", [self._rows, self.integers([times])], (1,), np.int64)

    def integers(self, values: Sequence[int]) -> str:
        """Adds a constant list of int64."""
        return self.graph.constant(np.asarray(values, np.int64))

    def reshape(self, value: Value, shape: Sequence[Any]) -> Value:
        """The value in another shape, its deferred broadcasts carried out."""
        value = self.whole(value)
        if value.array is not None:
            return constant(value.array.reshape(tuple(shape)))
        if value.shape == tuple(shape):
            return value
        return self.emit("Reshape", [value, self.integers(self.sizes(shape))], shape, value.dtype)


def _place(equation: core.JaxprEqn) -> str:
    """The function in `emokd/models` that an equation was traced from, or an empty string where none is recorded."""
    trace = equation.source_info.traceback
    for frame in trace.frames if trace else ():
        folder, _, file = frame.file_name.rpartition("/")
        if folder.endswith("emokd/models"):
            return f"{frame.function_name} (line {frame.line_num} of {file})"
    return ""


def _symbolic(dimension: Any) -> bool:
    return not isinstance(dimension, int | np.integer)


def _has_symbol(params: Mapping[str, Any]) -> bool:
    sizes = (size for value in params.values() if isinstance(value, tuple) for size in value)
    return any(export.is_symbolic_dim(size) for size in sizes)


def _bind(equation: core.JaxprEqn, arrays: Sequence[Any]) -> list[np.ndarray]:
    found = equation.primitive.bind(*[jnp.asarray(array) for array in arrays], **equation.params)
    return [np.asarray(array) for array in (found if equation.primitive.multiple_results else [found])]
