"""Synthetic physiology and voice: pure, apart from the picture, and telling of the same emotion."""

import hashlib

import numpy as np
import pytest
from scipy.signal import find_peaks

from emokd.data.painter import paint as painter
from emokd.data.painter.signals import PHYSIOLOGY_CHANNELS, PHYSIOLOGY_RATE, SECONDS, SOUND_BANDS, SOUND_RATE
from emokd.data.painter.signals import physiology as trace_of
from emokd.data.painter.signals import sound as sound_of
from emokd.data.painter.state import sample_state

# See the golden value in test_painter.py for when this may change.
GOLDEN = "c1080d3354456b5afef3216e1cfcdb8b66cab3c18f8564e385fcd2c5c2823f3b"
COUNT = 300


@pytest.fixture(scope="module")
def affect():
    states = [sample_state(2, i) for i in range(COUNT)]
    return np.array([(state.valence, state.arousal) for state in states])


@pytest.fixture(scope="module")
def traces():
    return np.stack([trace_of(2, i) for i in range(COUNT)])


@pytest.fixture(scope="module")
def sounds():
    return np.stack([sound_of(2, i) for i in range(COUNT)])


def test_the_signals_are_those_of_this_version():
    digest = hashlib.sha256()
    for index in range(4):
        # Rounded, since the last bits of float32 mean nothing to anyone.
        digest.update(np.round(trace_of(1, index) * 1024).astype("<i4").tobytes())
        digest.update(np.round(sound_of(1, index) * 1024).astype("<i4").tobytes())
    assert (painter.VERSION, digest.hexdigest()) == ("1.0.0", GOLDEN)


def test_shapes_and_purity(traces, sounds):
    assert traces.dtype == sounds.dtype == np.float32
    assert traces.shape[1:] == (SECONDS * PHYSIOLOGY_RATE, len(PHYSIOLOGY_CHANNELS))
    assert sounds.shape[1:] == (SOUND_BANDS, SECONDS * SOUND_RATE)
    assert np.isfinite(traces).all() and np.isfinite(sounds).all()
    np.testing.assert_array_equal(trace_of(2, 5), traces[5])
    np.testing.assert_array_equal(sound_of(2, 5), sounds[5])
    assert not np.array_equal(traces[5], traces[6]) and not np.array_equal(sounds[5], sounds[6])


def test_the_frowning_muscle_tells_valence(traces, affect):
    strength = traces[:, :, 0].std(axis=1)
    assert -0.95 < np.corrcoef(strength, affect[:, 0])[0, 1] < -0.75


def test_skin_conductance_tells_arousal(traces, affect):
    response = traces[:, -64:, 1].mean(axis=1) - traces[:, :64, 1].mean(axis=1)
    assert 0.55 < np.corrcoef(response, affect[:, 1])[0, 1] < 0.95


def test_the_heart_beats_faster_with_arousal_at_human_rates(traces, affect):
    rates = []
    for ecg in traces[:, :, 2]:
        peaks, _ = find_peaks(ecg, height=0.6, distance=PHYSIOLOGY_RATE // 4)
        rates.append(60 * PHYSIOLOGY_RATE / np.diff(peaks).mean())
    assert 35 < min(rates) and max(rates) < 140
    assert 0.4 < np.corrcoef(rates, affect[:, 1])[0, 1] < 0.95


def test_the_voice_is_louder_and_higher_with_arousal(sounds, affect):
    loudness = sounds.mean(axis=(1, 2))
    centre = (np.clip(sounds, 0, None).mean(axis=2) * np.arange(SOUND_BANDS)).sum(axis=1)
    centre /= np.clip(sounds, 0, None).mean(axis=2).sum(axis=1)
    assert np.corrcoef(loudness, affect[:, 1])[0, 1] > 0.4
    assert np.corrcoef(centre, affect[:, 1])[0, 1] > 0.15
