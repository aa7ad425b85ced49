"""Frames of a video that was filmed with the telephone on its side: both readers turn them as a player would."""

import os
import pathlib
import struct

import numpy as np
import pytest

from emokd.data.video.file import read_file_frames
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
