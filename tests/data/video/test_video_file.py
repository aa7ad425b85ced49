"""Frames of a video that was filmed with the telephone on its side: both readers turn them as a player would."""

import os
import pathlib
import struct

import numpy as np
import pytest

from emokd.data.video.file import file_frame_numbers, read_file_frames
from emokd.errors import InputError
from emokd.inference.video_reader import VideoReader

av = pytest.importorskip("av")


def film(path: pathlib.Path, matrix: tuple[int, ...]) -> None:
    """Three frames of 64 x 32 pixels, dark on their left, bright on their right, to be shown by `matrix`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.bit_rate = 64, 32, 4_000_000
        pixels = np.repeat(np.where(np.arange(64) < 32, 20, 220).astype(np.uint8)[None, :, None], 32, 0).repeat(3, 2)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    # The matrix lies 40 bytes behind the name of the track's header (ISO 14496-12), as numbers of 16.16 and 2.30 bits.
    at = data.index(b"tkhd") + 4 + 40
    path.write_bytes(data[:at] + struct.pack(">9i", *matrix) + data[at + 36 :])


ONE, LAST = 1 << 16, 1 << 30
UPRIGHT = (ONE, 0, 0, 0, ONE, 0, 0, 0, LAST)
QUARTER_RIGHT = (0, ONE, 0, -ONE, 0, 0, 32 << 16, 0, LAST)  # what was on the left is on top
QUARTER_LEFT = (0, -ONE, 0, ONE, 0, 0, 0, 64 << 16, LAST)
HALF = (-ONE, 0, 0, 0, -ONE, 0, 64 << 16, 32 << 16, LAST)


@pytest.mark.parametrize(
    ("matrix", "shape", "dark"),
    [
        (UPRIGHT, (32, 64), np.s_[:, :28]),
        (QUARTER_RIGHT, (64, 32), np.s_[:28]),
        (QUARTER_LEFT, (64, 32), np.s_[36:]),
        (HALF, (32, 64), np.s_[:, 36:]),
    ],
)
def test_both_readers_turn_frames(tmp_path, matrix, shape, dark):
    film(tmp_path / "a.mp4", matrix)
    reader = VideoReader(tmp_path / "a.mp4")
    frames = [picture for _, picture in reader]
    reader.close()
    assert [frame.shape for frame in frames] == [(*shape, 3)] * 3
    assert frames[1][dark].mean() < 60 < 150 < frames[1].max()
    square = read_file_frames(str(tmp_path / "a.mp4"), [2], 32)[0]
    middle = frames[1][:, 16:48] if shape == (32, 64) else frames[1][16:48]
    np.testing.assert_array_equal(square, middle)


def test_a_pipe_is_no_video_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"a\.mp4 cannot be opened as a video: it is a pipe. Give a file"):
        VideoReader(tmp_path / "a.mp4")


SIDE = 32


def write(path: pathlib.Path, codec: str, seconds: float = 4.0, sound: float = 0.0, aspect: int = 1) -> None:
    """Noise at 25 frames per second, and, from its beginning, so many seconds of a beep."""
    noise = np.random.default_rng(0).integers(0, 255, (round(25 * seconds), SIDE, SIDE, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        beep = container.add_stream("libopus", rate=48_000) if sound else None
        packets = [p for pixels in noise for p in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))]
        packets += stream.encode()
        for i in range(round(50 * sound)):
            samples = np.sin(np.arange(960 * i, 960 * (i + 1)) / 20).astype(np.float32)[None]
            piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 48_000, 960 * i
            packets += beep.encode(piece)
        packets += beep.encode() if beep else []
        for packet in sorted(packets, key=lambda p: float((p.pts or 0) * p.time_base)):
            container.mux(packet)


def read(path: pathlib.Path) -> int:
    reader = VideoReader(path)
    try:
        return sum(1 for _ in reader)
    finally:
        reader.close()


KINDS = [("a.mkv", "mpeg4"), ("a.webm", "libvpx"), ("a.flv", "flv"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")]


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_whole_files_are_read_to_their_end(tmp_path, name, codec):
    write(tmp_path / name, codec)
    assert read(tmp_path / name) == 100
    assert len(file_frame_numbers(str(tmp_path / name))) == 100


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_sound_that_is_longer_than_the_pictures_does_not_make_them_cut_off(tmp_path, name):
    write(tmp_path / name, "libvpx", sound=8.0)
    assert read(tmp_path / name) == 100
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot be read: the file ends after [\d.]+ of its 8\.\d\d seconds"):
        read(tmp_path / name)


@pytest.mark.parametrize(("name", "codec"), KINDS[:2])
def test_a_file_without_its_second_half_is_cut_off(tmp_path, name, codec):
    write(tmp_path / name, codec)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"frame \d+ cannot be read: the file ends after [12]\.\d\d of its 4\.00 sec"):
        read(tmp_path / name)
    with pytest.raises(InputError, match=r"is cut off: the file ends after [12]\.\d\d of its 4\.00 seconds\. Restore"):
        file_frame_numbers(str(tmp_path / name))


def test_pixels_that_are_not_square_become_so(tmp_path):
    write(tmp_path / "a.mp4", "mpeg4", seconds=0.2, aspect=2)
    reader = VideoReader(tmp_path / "a.mp4")
    frames = [picture for _, picture in reader]
    reader.close()
    assert {frame.shape for frame in frames} == {(SIDE, 2 * SIDE, 3)}
    square = read_file_frames(str(tmp_path / "a.mp4"), [2], SIDE)[0]
    np.testing.assert_array_equal(square, frames[1][:, SIDE // 2 : -SIDE // 2])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    # Pairs of the wide picture's columns have the mean of a stored column, but for the interpolation at the edges.
    pairs = frames[0].astype(float).reshape(SIDE, SIDE, 2, 3).mean(2)
    assert np.abs(pairs - stored).mean() < 0.4 * np.abs(np.roll(pairs, 1, 1) - stored).mean()
