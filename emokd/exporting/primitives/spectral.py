"""Fourier transforms of real traces, as matrix products with cosines and sines."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.extend import core

from emokd.exporting.primitives import shapes
from emokd.exporting.walk import Handler, Value, Walk

_REAL_TO_COMPLEX = 2  # the value of `lax.FftType.RFFT`


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """A complex value as its two parts, which stands among the values of a walk.

    Attributes:
      real: the real part.
      imag: the imaginary part.
      array: None, as of a tensor: it is never a constant.
    """

    real: Value
    imag: Value
    array: None = None


def _fft(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> list:
    value, output = walk.whole(inputs[0]), equation.outvars[0].aval
    lengths = equation.params["fft_lengths"]
    if int(equation.params["fft_type"]) != _REAL_TO_COMPLEX or len(lengths) != 1:
        raise walk.unknown(equation, "is no Fourier transform of one axis of real numbers")
    samples = lengths[0]
    angles = 2 * np.pi * np.outer(np.arange(samples), np.arange(output.shape[-1])) / samples
    zeros = np.zeros(output.shape[-1], np.float32)
    real, imag = (
        walk.emit(
            "Linear",
            [value, walk.graph.constant(wave.astype(np.float32)), walk.graph.constant(zeros)],
            output.shape,
            np.float32,
        )
        for wave in (np.cos(angles), -np.sin(angles))
    )
    return [Spectrum(real, imag)]


def _part(walk: Walk, equation: core.JaxprEqn, inputs: list) -> Value:
    return getattr(inputs[0], equation.primitive.name)


def _transpose(walk: Walk, equation: core.JaxprEqn, inputs: list) -> list:
    move = shapes.HANDLERS["transpose"]
    if not isinstance(inputs[0], Spectrum):
        return [move(walk, equation, inputs)]
    parts: list = [move(walk, equation, [part]) for part in (inputs[0].real, inputs[0].imag)]
    return [Spectrum(*parts)]


HANDLERS: Mapping[str, Handler] = {"fft": _fft, "real": _part, "imag": _part, "transpose": _transpose}
