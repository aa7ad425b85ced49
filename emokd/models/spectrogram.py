"""Power spectrograms of traces, and MT-PKDOT's encoder of physiological signals: ResNet-18 on spectrograms."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.convolution import widen
from emokd.models.resnet import Unit, resnet18
from emokd.signals import Signals

FLOOR = 1e-6
"""Added to the power before its logarithm; a normalised trace has a power of order one. [ours]"""


def tukey(samples: int, taper: float = 0.25) -> Float[np.ndarray, " samples"]:
    """The periodic Tukey window: cosine edges over the share `taper` of its length, 1 between them."""
    place = np.arange(samples) / samples
    edge = np.minimum(np.minimum(place, 1 - place) / (taper / 2), 1)
    return 0.5 * (1 - np.cos(np.pi * edge))


def spectrogram(
    trace: Float[Array, "B T C"], window: int = 16, overlap: int = 4, fft: int = 128, log: bool = False
) -> Float[Array, "B F N C"]:
    """Power spectral density of successive segments, as `scipy.signal.spectrogram` gives it by default.

    Each segment is centred and weighted by a Tukey(0.25) window. The density is one-sided, in power per cycle per
    sample (sampling rate 1). The defaults are MT-PKDOT's: 1536 samples give F = 65 frequencies and N = 127 segments.

    Args:
      trace: C channels of T samples.
      window: samples in a segment, at least 2.
      overlap: samples that a segment shares with the next.
      fft: length of the transform, at least `window`; segments are padded with zeros.
      log: whether to give log(power + 1e-6) [ours] instead of the power.

    Raises:
      InputError: the lengths contradict each other, or the trace is shorter than a segment.
    """
    samples = trace.shape[1]
    _check(samples, window, overlap, fft)
    step = window - overlap
    starts = np.arange((samples - overlap) // step) * step
    segments = widen(trace)[:, starts[:, None] + np.arange(window)]
    weights = tukey(window)
    segments = segments - segments.mean(2, keepdims=True)
    segments = segments * jnp.asarray(weights, segments.dtype)[None, None, :, None]
    transform = jnp.fft.rfft(segments, fft, axis=2)
    power = transform.real**2 + transform.imag**2
    # A one-sided density doubles every frequency that has a negative counterpart: all but 0 and Nyquist's.
    twins = np.full(power.shape[2], 2.0)
    twins[0] = 1.0
    if fft % 2 == 0:
        twins[-1] = 1.0
    density = power * jnp.asarray(twins / (weights**2).sum(), power.dtype)[None, None, :, None]
    density = density.swapaxes(1, 2)
    return jnp.log(density + FLOOR) if log else density


def _check(samples: int, window: int, overlap: int, fft: int) -> None:
    if not (0 <= overlap < window <= fft and window > 1):
        raise InputError(
            "A spectrogram needs 0 <= overlap < window <= fft and a window of at least 2, "
            f"not window {window}, overlap {overlap} and fft {fft}."
        )
    if samples < window:
        raise InputError(
            f"A trace of {samples} samples is shorter than a spectrogram's window of {window}. "
            "Give longer traces, or set window."
        )


class SpectrogramResNet18(nnx.Module):
    """ResNet-18 on the spectrogram of a trace, or on an input that is a spectrogram: features [B, 512].

    Args:
      shape: of one example: [T, C] for a trace; without `transform` [F, N] or [F, N, C].
      transform: whether inputs are traces; False where they are spectrograms, such as mel spectrograms.
      window: as for `spectrogram`.
      overlap: likewise.
      fft: likewise.
      log: likewise.
      rngs: source of the fresh parameters.

    Raises:
      InputError: the shape does not fit, or as `spectrogram`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        transform: bool = True,
        window: int = 16,
        overlap: int = 4,
        fft: int = 128,
        log: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        shape = tuple(shape)
        if len(shape) != 2 and (transform or len(shape) != 3):
            wanted = "[samples, channels]" if transform else "[frequencies, times] or [frequencies, times, channels]"
            raise InputError(
                f"spectrogram_resnet18 with transform={transform} takes inputs of shape {wanted}, not {list(shape)}."
            )
        if transform and shape[0] < shape[1]:
            raise InputError(
                f"An input of shape {list(shape)} would be a trace of {shape[0]} samples in {shape[1]} channels. "
                "If it is a spectrogram already, set transform to False; otherwise put time first."
            )
        if transform:
            _check(shape[0], window, overlap, fft)
        self.transform = transform
        self.options = (window, overlap, fft, log)
        channels = shape[-1] if transform or len(shape) == 3 else 1
        self.trunk = resnet18(1, rngs=rngs)
        if channels != 1:
            self.trunk.stem = Unit(channels, 64, 7, 2, rngs=rngs)
        self.feature_size = self.trunk.feature_size

    def __call__(self, inputs: Float[Array, "B *S"]) -> Signals:
        """Gives the features of normalised traces [B, T, C] or maps [B, F, N] or [B, F, N, C]."""
        if self.transform:
            maps = spectrogram(inputs, *self.options).astype(inputs.dtype)
        else:
            maps = inputs[..., None] if inputs.ndim == 3 else inputs
        return self.trunk(maps)
