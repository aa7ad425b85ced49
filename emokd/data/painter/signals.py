"""Physiology and voice of the synthetic examples, showing the same state as the picture with noise of their own.

SYNTHETIC: shaped like recordings so that pipelines for them can be exercised; no physiology is modelled. The
traces tell valence and arousal better than they tell the expression; the voice tells arousal best. [ours]
"""

import numpy as np
from jaxtyping import Float

from emokd.data.painter.canvas import smooth_curve
from emokd.data.painter.random import Purpose, Stream
from emokd.data.painter.state import EXPRESSIONS, sample_state

PHYSIOLOGY_RATE = 256
"""Samples per second of `physiology`."""
PHYSIOLOGY_CHANNELS = ("emg_corrugator", "gsr", "ecg")
SOUND_RATE = 16
"""Frames per second of `sound`."""
SOUND_BANDS = 40
"""Bands of `sound`, eight to the octave, from 80 Hz upwards."""
SECONDS = 4

# Height, centre (in beats before or after the beat) and half width of the waves of a heartbeat: P, Q, R, S, T.
_HEARTBEAT = ((0.15, -0.17, 0.03), (-0.12, -0.035, 0.009), (1.1, 0.0, 0.01), (-0.22, 0.035, 0.01), (0.3, 0.28, 0.05))
# Base-2 logarithms of 1 to 8: where the harmonics of a voice lie above its pitch, in octaves.
_HARMONICS = (0.0, 1.0, 1.584962500721156, 2.0, 2.321928094887362, 2.584962500721156, 2.807354922057604, 3.0)
# Syllables per second, rise of the pitch in octaves, tremor in octaves, breathiness.
_VOICES = {
    "neutral": (3.0, 0.0, 0.00, 0.2),
    "happy": (4.5, 0.15, 0.02, 0.2),
    "sad": (2.0, -0.25, 0.02, 0.7),
    "surprise": (2.0, 0.45, 0.00, 0.4),
    "fear": (4.5, 0.10, 0.08, 0.5),
    "disgust": (2.2, -0.20, 0.05, 0.5),
    "anger": (3.6, -0.05, 0.06, 0.1),
    "contempt": (2.6, -0.15, 0.00, 0.2),
}


def physiology(seed: int, index: int) -> Float[np.ndarray, "T 3"]:
    """The physiological trace of example `index`, T = SECONDS * PHYSIOLOGY_RATE; pure, with noise of its own.

    Columns are PHYSIOLOGY_CHANNELS: the frowning muscle's EMG in microvolts (its strength falls with valence),
    skin conductance in microsiemens (its response grows with arousal), and ECG in millivolts (its rate rises with
    arousal).
    """
    state = sample_state(seed, index)
    stream = Stream(seed, index, Purpose.PHYSIOLOGY)
    samples = SECONDS * PHYSIOLOGY_RATE
    time = (np.arange(samples, dtype=np.float32) / np.float32(PHYSIOLOGY_RATE)).astype(np.float32)

    strength = 4.0 + 7.0 * max(0.6 - state.valence + stream.normal(0.2), 0.0)
    tonic, drift = stream.uniform(2.0, 9.0), stream.normal(0.05)
    response = max(0.9 + 0.8 * state.arousal + stream.normal(0.2), 0.0)
    onset = stream.uniform(0.6, 1.4)
    rate = (72.0 + 20.0 * state.arousal + stream.normal(7.0)) / 60.0
    phase, height = stream.uniform(), stream.uniform(0.8, 1.2)

    bursts = 0.6 + 0.8 * smooth_curve(stream.uniforms(12), samples)
    emg = strength * bursts * stream.normals(samples)
    since = np.maximum(time - onset, 0.0)
    gsr = tonic + drift * time + response * since * since / (0.6 + since * since) + 0.01 * stream.normals(samples)
    beats = time * rate + phase + 0.05 * smooth_curve(stream.uniforms(5), samples)
    ecg = 0.1 * smooth_curve(stream.uniforms(6), samples) + 0.03 * stream.normals(samples)
    for wave, centre, width in _HEARTBEAT:
        offset = beats - centre
        distance = (offset - np.floor(offset + 0.5)) * (1.0 / width)
        ecg = ecg + height * wave / (1.0 + distance * distance) ** 2
    return np.stack([emg, gsr, ecg], axis=1).astype(np.float32)


def sound(seed: int, index: int) -> Float[np.ndarray, "F T"]:
    """The spectrogram of the voice of example `index`: F = SOUND_BANDS, T = SECONDS * SOUND_RATE frames; pure.

    Values are like standardised log energies: about 0 in silence, about 2 in a loud harmonic. The pitch belongs to
    the identity and rises with arousal, as loudness does; rhythm, melody and breath depend on the expression.
    """
    state = sample_state(seed, index)
    stream = Stream(seed, index, Purpose.SOUND)
    frames = SECONDS * SOUND_RATE
    time = np.arange(frames, dtype=np.float32) / np.float32(SOUND_RATE)
    tempo, rise, tremor, breath = _VOICES[EXPRESSIONS[state.expression]]

    base = Stream(0, state.identity, Purpose.VOICE).uniform(0.4, 1.4)
    tempo *= 1.0 + 0.2 * state.arousal + stream.normal(0.15)
    loudness = 1.2 + 0.5 * state.arousal + stream.normal(0.2)
    breath = max(breath + stream.normal(0.15), 0.0)
    pitch = base + 0.4 * state.arousal + stream.normal(0.12) + (rise + stream.normal(0.12)) * (time / SECONDS - 0.5)
    melody = 0.1 * smooth_curve(stream.uniforms(9), frames)
    pitch = (pitch + melody + (tremor + 0.02) * stream.normals(frames)).astype(np.float32)

    syllable = time * tempo + stream.uniform()
    syllable = np.abs(syllable - np.floor(syllable) - 0.5) * 2.0
    envelope = loudness * np.clip(1.4 - 1.3 * syllable, 0.0, 1.0)
    band = (np.arange(SOUND_BANDS, dtype=np.float32) / np.float32(8.0))[:, None]
    voiced = np.zeros((SOUND_BANDS, frames), np.float32)
    for octave in _HARMONICS:
        distance = (band - (pitch + octave)[None, :]) * 9.0
        voiced = np.maximum(voiced, (1.0 - 0.18 * octave) / (1.0 + distance * distance))
    hiss = 0.3 * breath * np.clip(band * 0.3, 0.0, 1.0)
    spectrogram = (voiced + hiss) * envelope[None, :] + 0.3 * stream.normals(SOUND_BANDS, frames)
    return spectrogram.astype(np.float32)
