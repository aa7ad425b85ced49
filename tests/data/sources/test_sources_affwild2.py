import re
import shutil
import wave

import numpy as np
import pytest
from PIL import Image
from same_interface import assert_described

from emokd.data import sources
from emokd.data.division.splits import split
from emokd.data.pipeline import evaluation_batches
from emokd.data.sources import affwild2
from emokd.data.video import sound
from emokd.errors import InputError

SMALL = {"length": 3, "stride": 2, "dilation": 2, "size": 8, "seconds": 0.2, "mels": 6}
MISSING = {"video1": (4, 5), "video2_left": (1, 2)}
EXPRESSIONS = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
# Valence and arousal frame by frame; -5 says that there is none.
AFFECT = {
    "video1": ("Train_Set", [(i / 10, -i / 10) for i in range(6)] + [(-5, -5), (-5, -5), (0.8, -0.8), (0.9, -0.9)]),
    "video2_left": ("Train_Set", [(-1, 1)] * 4),
    "video2_right": ("Train_Set", [(0.25, 0.5)] * 4),
    "7-60-1920x1080": ("Validation_Set", [(-0.5, 0.125)] * 6),
}
SOUNDS = {"video1": 6000, "video2": 2000}  # the third recording has no sound


def write_labels(directory, track, name, split_folder, header, lines):
    path = directory / "annotations" / track / split_folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\r\n".join([header, *lines]) + "\r\n")


def write_sound(path, samples, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setnchannels(1)
        file.setsampwidth(2)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def wave_of(name):
    return np.random.default_rng(len(name)).integers(-9000, 9000, SOUNDS[name])


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("affwild2")
    for name, (folder, labels) in AFFECT.items():
        write_labels(
            directory,
            "VA_Estimation_Challenge",
            name,
            folder,
            "valence,arousal",
            [f"{v:.6f},{a:.6f}" for v, a in labels],
        )
        frames = directory / "cropped_aligned" / name
        frames.mkdir(parents=True)
        (frames / ".DS_Store").write_bytes(b"")
        for number in range(1, len(labels) + 1):
            if number not in MISSING.get(name, ()):
                Image.new("L", (8, 8), 20 * number).save(frames / f"{number:05d}.jpg", quality=95)
    for name in SOUNDS:
        write_sound(directory / "audio" / f"{name}.wav", wave_of(name))
    return directory


@pytest.fixture
def tree(template, tmp_path):
    """A copy of the whole layout, to be changed."""
    return shutil.copytree(template, tmp_path / "affwild2")


def shades(video):
    assert video.dtype == np.uint8
    assert np.ptp(video.astype(int), axis=(1, 2, 3)).max() <= 2
    return np.round(video.mean((1, 2, 3)) / 20).astype(int).tolist()


def test_affwild2(template):
    examples = sources.load("affwild2", str(template), SMALL, min_side=64)
    # Every second frame; video1's fourth has no face and its eighth no label, video2_left's second no face.
    assert examples.keys == [
        "video1/00002", "video1/00006", "video1/00010", "video2_left/00004", "video2_right/00002", "video2_right/00004",
        "7-60-1920x1080/00002", "7-60-1920x1080/00004", "7-60-1920x1080/00006",
    ]  # fmt: skip
    expected = [(0.1, -0.1), (0.5, -0.5), (0.9, -0.9), (-1, 1)] + [(0.25, 0.5)] * 2 + [(-0.5, 0.125)] * 3
    np.testing.assert_allclose(examples.columns["valence_arousal"], expected, rtol=1e-6)
    assert examples.columns["valence_arousal"].dtype == np.float32
    assert examples.classes == {}
    assert examples.splits.tolist() == ["train"] * 6 + ["test"] * 3
    assert examples.groups.tolist() == ["video1"] * 3 + ["video2"] * 3 + ["7-60-1920x1080"] * 3
    videos = [examples.inputs["video"](i) for i in range(9)]
    assert videos[0].shape == (3, 8, 8, 3)
    # Frames end - 4, end - 2, end; what lies before the first frame, or has no face, is the one before.
    assert list(map(shades, videos)) == [
        [1, 1, 2], [2, 3, 6], [6, 8, 10], [3, 3, 4], [1, 1, 2], [1, 2, 4], [1, 1, 2], [1, 2, 4], [2, 4, 6],
    ]  # fmt: skip


def test_affwild2_gives_each_labelled_face_once_with_a_stride_of_one(template):
    examples = affwild2.load(str(template), {**SMALL, "stride": 1, "inputs": "video"})
    assert [key for key in examples.keys if key.startswith("video1")] == [
        f"video1/{i:05d}" for i in (1, 2, 3, 6, 9, 10)
    ]
    assert shades(examples.inputs["video"](0)) == [1, 1, 1]
    assert len(set(examples.keys)) == len(examples) == 6 + 2 + 4 + 6
    assert examples.inputs.keys() == {"video"}


def test_affwild2_sound_is_around_the_middle_of_the_sub_sequence(template):
    examples = affwild2.load(str(template), SMALL)
    filters = sound.mel_filters(6)
    # video1 has 600 samples for each of its 10 frames: the sub-sequence of frames 5, 7 and 9 (from 0) has the middle
    # 7.5 x 600 = 4500, of which 0.2 seconds are 1600 samples to each side, the last 100 beyond the end of the sound.
    own = np.concatenate([wave_of("video1")[2900:], np.zeros(100)]) / 32768
    given = examples.inputs["audio"](2)
    assert given.dtype == np.float32 and given.shape == (6, 1 + (3200 - 400) // 160)
    np.testing.assert_allclose(given, sound.log_mel(own, filters), rtol=1e-5)
    # Both people of video2 share its sound of 500 samples for each frame: the middle is 1.5 x 500.
    own = np.concatenate([np.zeros(850), wave_of("video2"), np.zeros(350)]) / 32768
    for i in (3, 5):
        np.testing.assert_allclose(examples.inputs["audio"](i), sound.log_mel(own, filters), rtol=1e-5)
    for i in (6, 7, 8):
        assert np.isnan(examples.inputs["audio"](i)).all() and examples.inputs["audio"](i).shape == given.shape


def test_affwild2_says_what_is_left_out(template, caplog):
    with caplog.at_level("INFO"):
        affwild2.load(str(template), SMALL)
    assert "9 sub-sequences of 4 videos; 1 have no label, 2 no face in the last frame" in caplog.text
    assert "1 of 4 videos have no sound: 7-60-1920x1080" in caplog.text


def test_affwild2_tells_of_frames_beyond_the_labels(tree, caplog):
    source = tree / "cropped_aligned" / "video1"
    shutil.copy(source / "00010.jpg", source / "00012.jpg")
    with caplog.at_level("WARNING"):
        examples = affwild2.load(str(tree), SMALL)
    assert "1 videos have frames beyond their labels: video1 (10 labels, frames to 12)" in caplog.text
    assert len(examples) == 9


@pytest.mark.parametrize("track", ["EXPR_Recognition_Challenge", "EXPR_Classification_Challenge"])
def test_affwild2_expressions(tree, track):
    shutil.rmtree(tree / "annotations")
    write_labels(tree, track, "video1", "Train_Set", EXPRESSIONS, ["0", "7", "-1", "3", "4", "-1", "6", "6", "5", "1"])
    write_labels(tree, track, "video2_right", "Validation_Set", EXPRESSIONS, ["2", "1", "0", "0"])
    examples = affwild2.load(str(tree), {**SMALL, "task": "expression"})
    names = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
    assert examples.classes == {"expression": names}
    assert examples.keys == ["video1/00002", "video1/00008", "video1/00010", "video2_right/00002", "video2_right/00004"]
    assert examples.columns["expression"].tolist() == [7, 6, 1, 1, 0]
    assert examples.columns["expression"].dtype == np.int32
    write_labels(tree, track, "video2_left", "Train_Set", EXPRESSIONS.removesuffix(",Other"), ["1", "1", "1", "1"])
    with pytest.raises(
        InputError, match=r"video2_left\.txt, line 1: the classes are .*, surprise, but in .*video1\.txt"
    ):
        affwild2.load(str(tree), {**SMALL, "task": "expression"})


def test_affwild2_splits_and_pipeline(template):
    examples = affwild2.load(str(template), {**SMALL, "stride": 1})
    parts = split(examples, {"train": 0.9, "test": 0.1}, 0)
    assert set(parts["test"].groups) == {"7-60-1920x1080"}
    assert set(parts["train"].groups) == {"video1", "video2"}
    batch, _ = evaluation_batches(parts["test"], batch_size=4, canvas=64, fit="crop")
    assert batch.keys() == {"video", "audio", "valence_arousal", "id", "check", "view", "mask"}
    assert batch["video"].shape == (4, 3, 8, 8, 3) and batch["video"].dtype == np.uint8
    assert batch["audio"].shape == (4, 6, 18) and np.isnan(batch["audio"]).all()


TRAIN = "annotations/VA_Estimation_Challenge/Train_Set/video1.txt"


@pytest.mark.parametrize(
    ("path", "text", "options", "message"),
    [
        (TRAIN, "valence,arousal\n0,0\n0;1\n", {}, r"video1\.txt, line 3: '0;1' is not `valence,arousal`"),
        (TRAIN, "valence,arousal\n0,0,0\n", {}, r"line 2: '0,0,0' is not"),
        (TRAIN, "valence,arousal\n0,0\n0,1.5\n", {}, r"line 3: '0,1\.5' lies outside \[-1, 1\] and is not -5"),
        (TRAIN, "valence,arousal\n0,0_1\n", {}, r"line 2: '0,0_1' is not `valence,arousal`"),
        (TRAIN, "valence,arousal\n0,\u0660.\u0665\n", {}, r"line 2: '0,\u0660\.\u0665' is not"),
        (
            TRAIN,
            "arousal,valence\n0,0\n",
            {},
            r"video1\.txt, line 1: the header is arousal,valence, not valence,arousal",
        ),
        (TRAIN, "frame,valence\n0,0\n", {}, r"line 1: the header is frame,valence, not valence,arousal"),
        (TRAIN, "valence,arousal\n0,nan\n", {}, r"line 2: '0,nan' lies outside"),
        (TRAIN, "0.1,0.2\n0,0\n", {}, r"video1\.txt: a header and a line for each frame.*line 1 is '0\.1,0\.2'"),
        (TRAIN, "valence,arousal\n", {}, r"video1\.txt: a header and a line for each frame"),
        (TRAIN, "", {}, r"video1\.txt: a header and a line for each frame"),
        (
            TRAIN.replace("video1", "video9"),
            "valence,arousal\n0,0\n",
            {},
            r"1 labelled videos have no frames .*: video9\.",
        ),
        (
            TRAIN.replace("Train", "Validation"),
            "valence,arousal\n0,0\n",
            {},
            r"Validation_Set/video1\.txt: the video is also",
        ),
        ("audio/video1.wav", "no sound", {}, r"video1\.wav cannot be read as a WAV file"),
        ("", "", {"task": "expression"}, r"has no folder EXPR_Recognition_Challenge or EXPR_Classification_Challenge"),
        ("", "", {"task": "pain"}, r"config\.data\.options\.task is 'pain'.*valence_arousal, expression"),
        ("", "", {"inputs": ("sound",)}, r"config\.data\.options\.inputs is 'sound'"),
        ("", "", {"stride": 0}, r"config\.data\.options\.stride is 0"),
        ("", "", {"stride": 100}, r"no frame in .* has both a label \(valence_arousal\) and a face"),
        ("", "", {"seconds": 0.01}, r"config\.data\.options\.seconds is 0\.01; give a number of at least 0\.025"),
        ("", "", {"lenght": 3}, r"affwild2 has no option 'lenght'\. Did you mean 'length'"),
    ],
)
def test_affwild2_refusals(tree, path, text, options, message):
    if path:
        (tree / path).write_text(text)
    with pytest.raises(InputError, match=message):
        affwild2.load(str(tree), {**SMALL, **options})


def test_affwild2_refuses_classes_that_the_header_does_not_have(tree):
    write_labels(tree, "EXPR_Recognition_Challenge", "video1", "Train_Set", EXPRESSIONS, ["0", "8"])
    with pytest.raises(InputError, match=r"video1\.txt, line 3: '8' is no class id from 0 to 7, nor -1"):
        affwild2.load(str(tree), {**SMALL, "task": "expression"})


def test_affwild2_refuses_a_class_that_the_header_names_twice(tree):
    write_labels(tree, "EXPR_Recognition_Challenge", "video1", "Train_Set", "Neutral,Anger,anger", ["0", "2"])
    with pytest.raises(InputError, match=r"video1\.txt, line 1 names 'anger' twice \(number 2, number 3\)"):
        affwild2.load(str(tree), {**SMALL, "task": "expression"})


def test_affwild2_reads_a_header_in_other_letters(tree):
    wanted = affwild2.load(str(tree), SMALL).columns["valence_arousal"]
    path = tree / TRAIN
    path.write_text(path.read_text().replace("valence,arousal", "Valence, Arousal"))
    np.testing.assert_array_equal(affwild2.load(str(tree), SMALL).columns["valence_arousal"], wanted)


def test_affwild2_refuses_frames_that_are_counted_from_zero(tree):
    source = tree / "cropped_aligned" / "video1"
    (source / "00010.jpg").rename(source / "00000.jpg")
    with pytest.raises(InputError, match=r"video1/00000\.jpg: frames are counted from 00001"):
        affwild2.load(str(tree), SMALL)


@pytest.mark.parametrize("suffix", ["JPG", "jpeg", "png"])
@pytest.mark.parametrize("every", [True, False])
def test_affwild2_refuses_frames_of_other_suffixes(tree, suffix, every):
    source = tree / "cropped_aligned" / "video1"
    for path in sorted(source.glob("*.jpg"))[: None if every else 1]:
        path.rename(path.with_suffix(f".{suffix}"))
    with pytest.raises(InputError, match=rf"video1: {8 if every else 1} frames are not named .*: 00001\.{suffix}"):
        affwild2.load(str(tree), SMALL)


def test_affwild2_sound_goes_on_with_the_frames_beyond_the_labels(tree):
    source = tree / "cropped_aligned" / "video1"
    shutil.copy(source / "00010.jpg", source / "00012.jpg")
    examples = affwild2.load(str(tree), SMALL)
    # The 6000 samples are those of 12 frames: the middle of the third sub-sequence is at 7.5 x 500.
    own = wave_of("video1")[3750 - 1600 : 3750 + 1600] / 32768
    np.testing.assert_allclose(
        examples.inputs["audio"](2), sound.log_mel(own.astype(np.float32), sound.mel_filters(6)), rtol=1e-5
    )


def test_affwild2_without_labels_or_sounds(tree):
    shutil.rmtree(tree / "audio")
    with pytest.raises(InputError, match=r"No video has a sound in .*audio\. .*\('video',\)"):
        affwild2.load(str(tree), SMALL)
    write_sound(tree / "audio" / "video1.wav", np.zeros(100), rate=44_100)
    with pytest.raises(InputError, match=r"video1\.wav has 1 channels of 16 bits at 44100 Hz"):
        affwild2.load(str(tree), SMALL)
    shutil.rmtree(tree / "annotations")
    (tree / "annotations" / "VA_Estimation_Challenge").mkdir(parents=True)
    with pytest.raises(InputError, match=re.escape("VA_Estimation_Challenge/{Train_Set,Validation_Set}/VIDEO.txt")):
        affwild2.load(str(tree), SMALL)


def test_affwild2_is_described_as_it_is(template, tree):
    assert_described("affwild2", template, SMALL)
    write_labels(tree, "EXPR_Recognition_Challenge", "video1", "Train_Set", EXPRESSIONS, ["0"] * 10)
    assert_described("affwild2", tree, {**SMALL, "task": "expression", "inputs": "video"})
