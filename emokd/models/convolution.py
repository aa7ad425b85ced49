"""Two-dimensional convolution in the fastest form for the device; every form computes the same function.

XLA's CPU backend runs depthwise convolutions, and the gradients of any convolution, up to a hundred times slower than
necessary. On CPU, depthwise convolution is a sum of shifted products, 1x1 convolution is a matrix product, and a
network's first layer is a matrix product over patches. GPU and TPU keep `lax.conv_general_dilated`. [ours]
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, ...]
Pads = tuple[tuple[int, ...], ...]

_PLAIN = contextvars.ContextVar("plain_convolutions", default=False)
_STEM_CHANNELS = 4


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within this context convolutions are traced as `lax.conv_general_dilated`, and `max_pool` as `lax.reduce_window`.

    This holds on CPU too. It serves exports to formats that have these operations. It acts at tracing: a function that
    `jax.jit` has traced before keeps its form.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def traced_plainly() -> bool:
    """Whether the caller is within `plain_convolutions`."""
    return _PLAIN.get()


def target_platform() -> str:
    """The platform that what is traced here will run on: "cpu", "gpu", "tpu".

    That is the platform of the mesh in force (`jax.set_mesh`), whose devices may be of another kind than those of the
    machine that traces; without a mesh it is JAX's default backend.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def widen(x: Array) -> Array:
    """Casts half precision to float32, in which sums are accumulated; wider types are returned unchanged."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def convolution(
    inputs: Array, kernel: Array, strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **options
) -> Array:
    """`lax.conv_general_dilated` for channels last, in the fastest form for `target_platform`.

    Fits `flax.nnx.Conv(conv_general_dilated=...)`. Unlike lax's, the depthwise form on CPU has no forward-mode
    derivative.

    Args:
      inputs: [B, H, W, C], or another number of spatial dimensions.
      kernel: [kh, kw, C / groups, O].
      strides: step between windows in each spatial dimension.
      padding: "SAME" (TensorFlow's, uneven at stride 2), "VALID", or (low, high) for each spatial dimension.
      **options: the other arguments of `lax.conv_general_dilated`.
    """
    groups = options.get("feature_group_count", 1)
    dilated = any(d != 1 for key in ("lhs_dilation", "rhs_dilation") for d in options.get(key) or ())
    if target_platform() != "cpu" or _PLAIN.get() or inputs.ndim != 4 or dilated:
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], kernel.shape[:2], strides, padding)
    strides, pads = tuple(strides), tuple(tuple(p) for p in padding)
    if groups > 1 and groups == inputs.shape[3] == kernel.shape[3]:
        return _depthwise(inputs, kernel, strides, pads)
    if groups == 1 and kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
        return _dot(inputs[:, :: strides[0], :: strides[1]], kernel[0, 0], options.get("precision"))
    if groups == 1 and kernel.shape[2] <= _STEM_CHANNELS:
        patches = jnp.concatenate(list(_windows(inputs, kernel.shape[:2], strides, pads)), -1)
        return _dot(patches, kernel.reshape(-1, kernel.shape[3]), options.get("precision"))
    return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)


def _dot(inputs: Float[Array, "B H W C"], matrix: Float[Array, "C O"], precision) -> Float[Array, "B H W O"]:
    return lax.dot_general(inputs, matrix, (((3,), (0,)), ((), ())), precision=precision)


def _windows(
    inputs: Float[Array, "B H W C"], size: Pair, strides: Pair, pads: Pads
) -> Iterator[Float[Array, "B OH OW C"]]:
    """Yields, for each kernel position in row-major order, the inputs that it is multiplied with."""
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0))) if any(map(any, pads)) else inputs
    (sh, sw), batch, channels = strides, inputs.shape[0], inputs.shape[3]
    rows = (padded.shape[1] - size[0]) // sh * sh + 1
    columns = (padded.shape[2] - size[1]) // sw * sw + 1
    for i in range(size[0]):
        for j in range(size[1]):
            yield lax.slice(padded, (0, i, j, 0), (batch, i + rows, j + columns, channels), (1, sh, sw, 1))


def _shifted_sum(inputs: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    taps = widen(kernel).reshape(-1, 1, 1, 1, kernel.shape[3])
    windows = _windows(inputs, kernel.shape[:2], strides, pads)
    terms = (widen(window) * jnp.broadcast_to(tap, window.shape) for window, tap in zip(windows, taps, strict=True))
    return functools.reduce(jnp.add, terms).astype(inputs.dtype)


# The three functions below are jitted so that `macs.count_macs` recognises them in a jaxpr by their names.
@functools.partial(jax.jit, static_argnums=(2, 3))
def depthwise_output(inputs: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    """Depthwise convolution with a kernel [kh, kw, 1, C]."""
    return _shifted_sum(inputs, kernel, strides, pads)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def depthwise_input_gradient(cotangent: Array, kernel: Array, strides: Pair, pads: Pads, size: Pair) -> Array:
    """Gradient of `depthwise_output` by the inputs, whose height and width are `size`.

    It convolves the cotangents, dilated by the strides, with the flipped kernel.
    """
    config = [(0, 0, 0)]
    for axis, (stride, (low, _)) in enumerate(zip(strides, pads, strict=True)):
        taps, length = kernel.shape[axis], (cotangent.shape[axis + 1] - 1) * stride + 1
        before = taps - 1 - low
        config.append((before, size[axis] + taps - 1 - before - length, stride - 1))
    spread = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [*config, (0, 0, 0)])
    return _shifted_sum(spread, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def depthwise_kernel_gradient(inputs: Array, cotangent: Array, strides: Pair, pads: Pads, size: Pair) -> Array:
    """Gradient of `depthwise_output` by the kernel, whose height and width are `size`.

    One pass over the data sums over rows for all kernel positions at once. The sum over the batch, which may be
    sharded, comes last.
    """
    products = [widen(window) * widen(cotangent) for window in _windows(inputs, size, strides, pads)]
    zeros = [jnp.zeros((), product.dtype) for product in products]
    rows = lax.reduce(products, zeros, lambda x, y: [a + b for a, b in zip(x, y, strict=True)], (1,))
    return jnp.stack([row.sum((0, 1)) for row in rows]).reshape(*size, 1, inputs.shape[3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(inputs: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    return depthwise_output(inputs, kernel, strides, pads)


def _depthwise_forward(inputs, kernel, strides, pads):
    return depthwise_output(inputs, kernel, strides, pads), (inputs, kernel)


def _depthwise_backward(strides, pads, residuals, cotangent):
    inputs, kernel = residuals
    by_inputs = depthwise_input_gradient(cotangent, kernel, strides, pads, inputs.shape[1:3])
    by_kernel = depthwise_kernel_gradient(inputs, cotangent, strides, pads, kernel.shape[:2])
    return by_inputs, by_kernel.astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
