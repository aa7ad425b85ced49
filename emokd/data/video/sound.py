"""Reads stretches of sound files, and computes log-mel spectrograms."""

import contextlib
import os
import wave
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from emokd.errors import InputError

RATE = 16_000
"""Samples per second of all sound files."""
WINDOW = 400
"""Samples in a frame of a spectrogram, 25 ms."""
HOP = 160
"""Samples from one frame to the next, 10 ms."""
FFT = 512
FLOOR = 1e-6
"""Added to the power before its logarithm: silence is about -13.8. [ours]"""


def sound_length(path: str | os.PathLike) -> int:
    """How many samples a 16 kHz mono WAV file has.

    Raises:
      InputError: the file cannot be read, has another rate, width or number of channels, or does not hold as many
        samples as its header says.
    """
    with _open(path) as file:
        return file.getnframes()


def read_sound(path: str | os.PathLike, start: int, samples: int) -> Float[np.ndarray, " samples"]:
    """A stretch of a 16 kHz mono WAV file, in [-1, 1); zeros before its beginning and after its end.

    Args:
      path: 16-bit PCM.
      start: the first sample, which may be negative.
      samples: how many.

    Raises:
      InputError: as `sound_length`.
    """
    values = np.zeros(samples, np.float32)
    with _open(path) as file:
        first = min(max(start, 0), file.getnframes())
        file.setpos(first)
        wanted = max(min(start + samples, file.getnframes()) - first, 0)
        data = file.readframes(wanted)
    if len(data) != 2 * wanted:
        raise InputError(f"{path} ends before sample {first + wanted}, which its header declares. Write it again.")
    read = np.frombuffer(data, "<i2")
    values[first - start : first - start + len(read)] = read / np.float32(32768)
    return values


def mel_filters(mels: int, rate: int = RATE, fft: int = FFT) -> Float[np.ndarray, "M F"]:
    """Triangles of height 1, evenly spaced in mel from 0 Hz to half the rate; F = fft / 2 + 1.

    mel = 2595 log10(1 + f / 700) (O'Shaughnessy 1987); each triangle begins and ends at its neighbours' peaks.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    frequencies = np.arange(fft // 2 + 1) * rate / fft
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(np.minimum(rising, falling), 0)


def log_mel(sound: Float[np.ndarray, " samples"], filters: Float[np.ndarray, "M F"]) -> Float[np.ndarray, "M T"]:
    """The natural logarithm of the power in each mel band, frame by frame (periodic Hann window, no padding).

    The spectrum is divided by the sum of the window, so that a sine of amplitude 1 has a power of a quarter in its
    bin, whatever the window's length. [ours]

    Args:
      sound: at least WINDOW samples, gives T = 1 + (samples - WINDOW) // HOP frames.
      filters: from `mel_filters`.

    Returns:
      float32.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * window, FFT, axis=1) / window.sum()) ** 2
    return np.log(filters @ power.T + FLOOR).astype(np.float32)


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[wave.Wave_read]:
    with contextlib.ExitStack() as files:
        try:
            stream = files.enter_context(open(path, "rb"))
            file = files.enter_context(wave.open(stream))
            start = stream.tell()  # of the first sample: the header of the samples was read last
        except (OSError, EOFError, wave.Error) as error:
            raise InputError(f"{path} cannot be read as a WAV file: {error}. Write it again, as 16-bit PCM.") from error
        format = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if format != (RATE, 1, 2):
            raise InputError(
                f"{path} has {format[1]} channels of {8 * format[2]} bits at {format[0]} Hz, not 1 of 16 at {RATE}. "
                "Convert it, for instance with ffmpeg -i IN -ac 1 -ar 16000 -c:a pcm_s16le OUT."
            )
        # The module `wave` believes the header. Who writes to a pipe cannot go back to it, and leaves 0 or the largest
        # number there.
        declared, there = file.getnframes(), (os.fstat(stream.fileno()).st_size - start) // 2
        if declared > there or (there and not declared):
            raise InputError(
                f"{path} is cut off, or was written to a pipe: its header declares {declared} samples, and it holds "
                f"{there}. Write it again, into a file."
            )
        yield file
