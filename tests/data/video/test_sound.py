import wave

import numpy as np
import pytest
import scipy.signal
from lazily import Lazily

from emokd.data.video import sound
from emokd.errors import InputError

audio_utils = Lazily("transformers.audio_utils")


def write(path, samples, rate=sound.RATE, channels=1, width=2):
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.writeframes(np.asarray(samples, f"<i{width}").tobytes())


@pytest.mark.parametrize("mels", [20, 64])
def test_mel_filters_agree_with_another_package(mels):
    expected = audio_utils.mel_filter_bank(257, mels, 0.0, 8000.0, 16_000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(sound.mel_filters(mels), expected.T, atol=1e-12)


def test_log_mel_agrees_with_scipy():
    values = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    filters = sound.mel_filters(20)
    _, _, spectrum = scipy.signal.spectrogram(
        values.astype(np.float64),
        window="hann",
        nperseg=400,
        noverlap=240,
        nfft=512,
        detrend=False,
        scaling="spectrum",
        mode="complex",
    )
    expected = np.log(filters @ np.abs(spectrum) ** 2 + 1e-6)
    given = sound.log_mel(values, filters)
    assert given.dtype == np.float32 and given.shape == (20, 1 + (4000 - 400) // 160)
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_log_mel_of_a_sine_and_of_silence():
    time = np.arange(1600) / 16_000
    filters = sound.mel_filters(40)
    given = sound.log_mel(np.sin(2 * np.pi * 1000 * time), filters)
    loudest = int(given.mean(1).argmax())
    assert filters[loudest, 1000 * 512 // 16_000] == filters[:, 1000 * 512 // 16_000].max()
    # By Parseval's theorem all bins together hold 512 / 4 times the window's square over the square of its sum.
    np.testing.assert_allclose(np.exp(given).sum(0), 512 * (3 / 8 * 400) / 200**2 / 4, rtol=1e-3)
    np.testing.assert_allclose(sound.log_mel(np.zeros(800), filters), np.log(1e-6), rtol=1e-6)


@pytest.mark.parametrize(("start", "samples"), [(0, 10), (3, 4), (-4, 9), (7, 9), (-3, 20), (-9, 5), (12, 5), (10, 1)])
def test_read_sound_pads_both_ends(tmp_path, start, samples):
    values = np.arange(1, 11) * 1000
    write(tmp_path / "a.wav", values)
    padded = np.concatenate([np.zeros(20), values, np.zeros(20)]) / 32768
    given = sound.read_sound(tmp_path / "a.wav", start, samples)
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, padded[20 + start : 20 + start + samples].astype(np.float32))
    assert sound.sound_length(tmp_path / "a.wav") == 10


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"rate": 44_100}, "1 channels of 16 bits at 44100 Hz"),
        ({"channels": 2}, "2 channels of 16 bits at 16000 Hz"),
        ({"width": 4}, "1 channels of 32 bits at 16000 Hz"),
    ],
)
def test_sounds_of_another_format_are_refused(tmp_path, change, found):
    write(tmp_path / "a.wav", np.zeros(8), **change)
    with pytest.raises(InputError, match=rf"a\.wav has {found}, not 1 of 16 at 16000\. Convert it"):
        sound.read_sound(tmp_path / "a.wav", 0, 4)


def test_what_is_no_sound_is_refused(tmp_path):
    for content in (b"", b"RIFF....no sound", b"ID3 mp3"):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.wav cannot be read as a WAV file"):
            sound.sound_length(tmp_path / "a.wav")
    with pytest.raises(InputError, match=r"b\.wav cannot be read"):
        sound.sound_length(tmp_path / "b.wav")


@pytest.mark.parametrize(
    ("damage", "declared", "there"),
    [
        (lambda data: data[: 44 + 1000], 1000, 500),
        (lambda data: data[: 44 + 1001], 1000, 500),  # in the middle of a sample
        (lambda data: data[:-1], 1000, 999),
        (lambda data: data[:44], 1000, 0),
        (lambda data: data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:], 2**31 - 1, 1000),
        (lambda data: data[:40] + bytes(4) + data[44:], 0, 1000),
    ],
    ids=["half", "odd", "last byte", "header alone", "a pipe's length", "no length"],
)
def test_a_sound_that_holds_other_than_it_declares_is_refused(tmp_path, damage, declared, there):
    write(tmp_path / "a.wav", np.arange(1000))
    (tmp_path / "a.wav").write_bytes(damage((tmp_path / "a.wav").read_bytes()))
    said = (
        rf"a\.wav is cut off, or was written to a pipe: its header declares {declared} samples, and it holds {there}\."
    )
    with pytest.raises(InputError, match=said):
        sound.sound_length(tmp_path / "a.wav")
    with pytest.raises(InputError, match=said):
        sound.read_sound(tmp_path / "a.wav", 0, 10)


def test_a_sound_whose_outer_length_is_too_small_is_refused(tmp_path):
    write(tmp_path / "a.wav", np.arange(1000))
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:4] + (36 + 501).to_bytes(4, "little") + data[8:])
    with pytest.raises(InputError, match=r"a\.wav ends before sample 400, which its header declares"):
        sound.read_sound(tmp_path / "a.wav", 100, 300)
    assert len(sound.read_sound(tmp_path / "a.wav", 0, 100)) == 100


def test_a_sound_with_something_behind_its_samples_is_read(tmp_path):
    write(tmp_path / "a.wav", np.arange(1000))
    with (tmp_path / "a.wav").open("ab") as file:
        file.write(b"LIST" + (4).to_bytes(4, "little") + b"INFO")
    np.testing.assert_array_equal(sound.read_sound(tmp_path / "a.wav", 990, 20)[:10] * 32768, np.arange(990, 1000))
