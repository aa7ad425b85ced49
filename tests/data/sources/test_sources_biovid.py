import os
import shutil

import numpy as np
import pytest
from PIL import Image
from same_interface import assert_described

from emokd.data import sources
from emokd.data.division.splits import find_duplicates, split
from emokd.data.pipeline import evaluation_batches
from emokd.data.sources import biovid
from emokd.errors import InputError

CLIPS = ["071309_w_21-BL1-081", "071309_w_21-PA4-012", "080309_m_29-BL1-090", "080309_m_29-PA4-001"]
HEADER = "time\tgsr\tecg\temg_trapezius\temg_corrugator\temg_zygomaticus"
FRAMES = 12
SAMPLES = 2816  # 5.5 seconds


def level_of(clip):
    return clip.split("-")[1]


def trace(clip, samples=SAMPLES):
    """Five channels; the corrugator's is in column 3."""
    seed = CLIPS.index(clip) if clip in CLIPS else 9
    return np.random.default_rng(seed).normal(0, 10, (samples, 5)).round(4)


def write_trace(directory, clip, values=None, unit=1e6, rate=512.0, header=HEADER):
    values = trace(clip) if values is None else values
    times = np.arange(len(values)) / rate * unit
    times = times.round() if unit == 1e6 else times
    lines = ["\t".join([f"{time:.6f}", *map(str, row)]) for time, row in zip(times, values.tolist(), strict=True)]
    path = directory / "physio" / level_of(clip) / f"{clip}_bio.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")


def write_faces(directory, clip, frames=FRAMES):
    """Frame n is grey of shade 20 n, wider than high, with black margins that the square leaves out."""
    folder = directory / "faces" / level_of(clip) / clip
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, frames + 1):
        picture = np.zeros((16, 24, 3), np.uint8)
        picture[:, 4:20] = 20 * number
        Image.fromarray(picture).save(folder / f"img_{number:05d}.jpg", quality=95, subsampling=0)


def annotate(directory, lines):
    (directory / "annotations.txt").write_text("\n".join(lines) + "\n")


def line(clip, last=FRAMES, label=None):
    return f"{level_of(clip)}/{clip} 1 {last} {int(level_of(clip) == 'PA4') if label is None else label}"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("biovid")
    for clip in CLIPS:
        write_trace(directory, clip)
        write_faces(directory, clip)
    annotate(directory, [line(clip) for clip in CLIPS])
    return directory


@pytest.fixture
def tree(template, tmp_path):
    """A copy of the whole layout, to be changed."""
    return shutil.copytree(template, tmp_path / "biovid")


SMALL = {"segments": 3, "size": 8}


def test_biovid(template):
    examples = sources.load("biovid", str(template), SMALL, min_side=64)
    assert examples.keys == [f"{level_of(clip)}/{clip}" for clip in CLIPS]
    assert examples.classes == {"expression": ("BL1", "PA4")}
    assert examples.columns["expression"].tolist() == [0, 1, 0, 1]
    assert examples.groups.tolist() == ["071309_w_21"] * 2 + ["080309_m_29"] * 2
    assert examples.splits is None
    for i, clip in enumerate(CLIPS):
        physiology = examples.inputs["physiology"](i)
        assert physiology.dtype == np.float32
        # From 2 to 5 seconds at 512 Hz: samples 1024 to 2559.
        np.testing.assert_array_equal(physiology, trace(clip)[1024:2560, 3:4].astype(np.float32))
        video = examples.inputs["video"](i)
        assert (video.shape, video.dtype) == ((3, 8, 8, 3), np.uint8)
        # Twelve frames in three segments of four: the centre of each is between its second and third; the later counts.
        assert np.abs(video.astype(int) - 20 * np.array([3, 7, 11])[:, None, None, None]).max() <= 3
    parts = split(examples, {"train": 0.5, "test": 0.5}, 0)
    assert not set(parts["train"].groups) & set(parts["test"].groups)


def test_biovid_channels_window_and_one_input_alone(template):
    options = {"inputs": "physiology", "channels": ("ecg", "gsr"), "start": 0.5, "stop": 1.25}
    examples = biovid.load(str(template), options)
    assert examples.inputs.keys() == {"physiology"}
    np.testing.assert_array_equal(examples.inputs["physiology"](2), trace(CLIPS[2])[256:640, [1, 0]].astype(np.float32))
    assert biovid.load(str(template), {"inputs": ("video",), **SMALL}).inputs.keys() == {"video"}


def test_biovid_without_faces_or_without_physiology(tree):
    shutil.rmtree(tree / "faces")
    assert len(biovid.load(str(tree), {"inputs": ("physiology",)})) == 4
    with pytest.raises(
        InputError, match=r"4 annotated clips have no frames .*faces: BL1/071309_w_21-BL1-081, .*inputs"
    ):
        biovid.load(str(tree), SMALL)
    for clip in CLIPS:
        write_faces(tree, clip)
    shutil.rmtree(tree / "physio" / "BL1")
    assert len(biovid.load(str(tree), {"inputs": ("video",), **SMALL})) == 4
    with pytest.raises(
        InputError, match=r"2 annotated clips have no file .*physio: BL1/071309_w_21-BL1-081, BL1/080309"
    ):
        biovid.load(str(tree), SMALL)


@pytest.mark.parametrize(("unit", "rate"), [(1, 512), (1e3, 512), (1e6, 512), (1e6, 510)])
def test_biovid_times_in_any_unit(tree, unit, rate):
    for clip in CLIPS:
        write_trace(tree, clip, unit=unit, rate=rate)
    examples = biovid.load(str(tree), {"inputs": "physiology"})
    np.testing.assert_array_equal(examples.inputs["physiology"](0)[:, 0], np.float32(trace(CLIPS[0])[1024:2560, 3]))


def test_biovid_five_levels(tree):
    others = [f"071309_w_21-PA{i}-00{i}" for i in (1, 2, 3)]
    clips = [*CLIPS, *others]
    labels = {"BL1": 0, "PA1": 1, "PA2": 2, "PA3": 3, "PA4": 4}
    for clip in others:
        write_trace(tree, clip)
    annotate(tree, [f"{clip} 1 {FRAMES} {labels[level_of(clip)]}" for clip in clips])
    options = {"inputs": "physiology"}
    five = biovid.load(str(tree), {**options, "levels": "five"})
    assert five.classes["expression"] == ("BL1", "PA1", "PA2", "PA3", "PA4")
    assert five.columns["expression"].tolist() == [0, 4, 0, 4, 1, 2, 3]
    assert five.keys[-1] == f"PA3/{others[-1]}"
    # The binary task leaves the levels between out, and may read the labels of the task with five.
    assert biovid.load(str(tree), options).columns["expression"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("damage", ["flat", "nan", "empty"])
def test_biovid_bad_traces(tree, damage, caplog):
    values = trace(CLIPS[1]).astype(object)
    if damage == "flat":
        values[:, 3] = 1.5
    else:
        values[2000, 3] = {"nan": "nan", "empty": ""}[damage]
    write_trace(tree, CLIPS[1], values)
    with pytest.raises(InputError, match=rf"1 of 4 clips .* in emg_corrugator: PA4/{CLIPS[1]}\. .*'skip'"):
        biovid.load(str(tree), SMALL)
    with caplog.at_level("WARNING"):
        examples = biovid.load(str(tree), {"bad_traces": "skip", **SMALL})
    assert "1 of 4 clips" in caplog.text and CLIPS[1] in caplog.text
    assert examples.columns["expression"].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(examples.inputs["physiology"](1)[:, 0], np.float32(trace(CLIPS[2])[1024:2560, 3]))
    assert examples.inputs["video"](2).shape == (3, 8, 8, 3)
    # The channel that is not asked for may be damaged.
    assert len(biovid.load(str(tree), {"channels": "ecg", **SMALL})) == 4


def test_biovid_skips_no_more_than_there_is(tree):
    for clip in CLIPS:
        write_trace(tree, clip, np.zeros((SAMPLES, 5)))
    with pytest.raises(InputError, match="4 of 4 clips have a flat trace"):
        biovid.load(str(tree), {"bad_traces": "skip", **SMALL})


def test_biovid_finds_duplicates(tree):
    write_trace(tree, CLIPS[2], trace(CLIPS[0]))
    assert find_duplicates(biovid.load(str(tree), {"inputs": "physiology"})).sets == ((0, 2),)
    Image.new("RGB", (24, 16), (9, 9, 9)).save(tree / "faces" / "PA4" / CLIPS[1] / "img_00003.jpg")
    assert find_duplicates(biovid.load(str(tree), {"inputs": "video", **SMALL})).sets == ((0, 2, 3),)


def test_biovid_in_the_pipeline(template):
    batch, rest = evaluation_batches(biovid.load(str(template), SMALL), batch_size=3, canvas=64, fit="crop")
    assert batch.keys() == {"video", "physiology", "expression", "id", "check", "view", "mask"}
    assert batch["video"].shape == (3, 3, 8, 8, 3) and batch["video"].dtype == np.uint8
    assert batch["physiology"].shape == (3, 1536, 1)
    assert rest["mask"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([line(CLIPS[0], FRAMES + 3)], {}, r"has 12 frames, 1 to 12, but .* 1 to 15; 3 are not there: 13, 14, 15"),
        ([line(CLIPS[0], 2)], {}, r"BL1/071309_w_21-BL1-081 has 2 frames, too few for .*segments = 3"),
        ([line(CLIPS[0], label=1)], {}, r"annotations\.txt, line 1: the label of .* is 1, not 0 for BL1"),
        ([line(CLIPS[1], label=2)], {}, r"is 2, not 1 or 4 for PA4"),
        ([line(CLIPS[1])], {"levels": "five"}, r"is 1, not 4 for PA4.*levels"),
        ([line(CLIPS[0]), "", line(CLIPS[0])], {}, r"line 3: BL1/071309_w_21-BL1-081 is also on line 1"),
        ([line(CLIPS[0]), "./" + line(CLIPS[0])], {}, r"line 2: BL1/071309_w_21-BL1-081 is also on line 1"),
        ([line(CLIPS[0]), line(CLIPS[0]).replace("/", "//")], {}, r"line 2: BL1/071309_w_21-BL1-081 is also on line 1"),
        ([f"{CLIPS[0]} \u0661 12 0"], {}, r"line 1: .* is not `clip first last label`"),
        (["BL1/clip1 1 12 0"], {}, r"line 1: 'BL1/clip1' is not a clip's name"),
        ([f"{CLIPS[0]} 1 12"], {}, r"line 1: .* is not `clip first last label`"),
        ([f"{CLIPS[0]} 1 12 no"], {}, r"line 1: .* is not `clip first last label`"),
        ([f"{CLIPS[0]} 9 3 0"], {}, r"line 1: frames 9 to 3 are no range"),
        (["071309_w_21-PA2-001 1 12 2"], {}, r"has no clip of the levels BL1, PA4"),
        ([""], {}, r"has no clip of the levels"),
        ([line(CLIPS[0])], {"levels": "two"}, r"config\.data\.options\.levels is 'two'.*binary, five"),
        ([line(CLIPS[0])], {"inputs": ("image",)}, r"config\.data\.options\.inputs is 'image'.*video, physiology"),
        ([line(CLIPS[0])], {"channels": ("emg",)}, r"config\.data\.options\.channels is 'emg'"),
        ([line(CLIPS[0])], {"channels": ("ecg", "ecg")}, r"channels is ecg, ecg\. Name one or more .* each once"),
        ([line(CLIPS[0])], {"start": 3, "stop": 3}, r"config\.data\.options\.stop is 3; give a number of at least 3"),
        ([line(CLIPS[0])], {"start": -1}, r"config\.data\.options\.start is -1"),
        ([line(CLIPS[0])], {"size": 0}, r"config\.data\.options\.size is 0; give a whole number"),
        ([line(CLIPS[0])], {"segments": 2.5}, r"config\.data\.options\.segments is 2\.5"),
        ([line(CLIPS[0])], {"bad_traces": "keep"}, r"bad_traces is 'keep'.*error, skip"),
        ([line(CLIPS[0])], {"annotations": "own.txt"}, r"own\.txt does not exist"),
        ([line(CLIPS[0])], {"levles": "five"}, r"biovid has no option 'levles'\. Did you mean 'levels'"),
    ],
)
def test_biovid_refusals(tmp_path, template, lines, options, message):
    for folder in ("physio", "faces"):
        os.symlink(template / folder, tmp_path / folder)
    annotate(tmp_path, lines)
    with pytest.raises(InputError, match=message):
        biovid.load(str(tmp_path), {**SMALL, **options})


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (None, {"rate": 1000}, r"by 1000 from sample to sample, which is 1000 Hz .* not 512 Hz\. Resample"),
        (trace(CLIPS[0], 2100), {}, r"ends after 4\.10 s, but the trace is wanted until 5 s"),
        (trace(CLIPS[0], 1), {}, r"has 1 samples"),
        (None, {"rate": -512}, r"the times run from -?0 to -"),
        (None, {"header": HEADER.replace("emg_corrugator", "emg")}, r"line 1: there is no column emg_corrugator"),
        (None, {"header": HEADER.replace("\t", ",")}, r"line 1: there is no column time, emg_corrugator.*tabs"),
        (np.full((SAMPLES, 5), "x", object), {}, r"_bio\.csv, line 1026: .* is no row of numbers"),
        (None, {"header": HEADER.replace("gsr", "emg_corrugator")}, r"line 1: column 'emg_corrugator' appears twice"),
        (np.full((SAMPLES, 5), "1_0", object), {}, r"_bio\.csv, line 1026: .* is no row of numbers"),
        (np.full((SAMPLES, 5), "\u0661", object), {}, r"_bio\.csv, line 1026: .* is no row of numbers"),
        (np.zeros((SAMPLES, 2)), {}, r"_bio\.csv, line 1026: .* is no row of numbers"),
    ],
)
def test_biovid_refuses_damaged_traces(tree, values, changes, message):
    write_trace(tree, CLIPS[0], values, **changes)
    with pytest.raises(InputError, match=rf"{CLIPS[0]}_bio\.csv.*{message}|{message}"):
        biovid.load(str(tree), SMALL)


def test_biovid_reads_video_files(tree):
    av = pytest.importorskip("av")
    shutil.rmtree(tree / "faces")
    for clip in CLIPS:
        path = tree / "videos" / level_of(clip) / f"{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.bit_rate = 64, 32, 4_000_000
            for number in range(1, FRAMES + 1):
                frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 20 * number, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    examples = biovid.load(str(tree), {**SMALL, "frames": "files"})
    for i in range(4):
        video = examples.inputs["video"](i)
        assert (video.shape, video.dtype) == ((3, 8, 8, 3), np.uint8)
        # The centres of three segments of twelve frames: the third, the seventh and the eleventh.
        np.testing.assert_allclose(video.mean((1, 2, 3)) / 20, [3, 7, 11], atol=0.3)
    with pytest.raises(InputError, match=r"PA4-012\.mp4 has 12 frames, 1 to 12, but the annotations name 1 to 13"):
        annotate(tree, [line(CLIPS[1], last=13)])
        biovid.load(str(tree), {**SMALL, "frames": "files"})
    annotate(tree, [line(CLIPS[0])])
    (tree / "videos" / "BL1" / f"{CLIPS[0]}.mp4").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"BL1-081\.mp4 cannot be read as a video"):
        biovid.load(str(tree), {**SMALL, "frames": "files"})
    os.remove(tree / "videos" / "BL1" / f"{CLIPS[0]}.mp4")
    with pytest.raises(InputError, match=r"1 annotated clips have no frames CLASS/CLIP\.mp4 in .*videos: BL1/"):
        biovid.load(str(tree), {**SMALL, "frames": "files"})


def test_biovid_names_the_frame_that_cannot_be_decoded(tree):
    path = tree / "faces" / "BL1" / CLIPS[0] / "img_00007.jpg"
    path.write_bytes(b"\xff\xd8 torn")
    examples = biovid.load(str(tree), SMALL)
    with pytest.raises(InputError, match=r"071309_w_21-BL1-081/img_00007\.jpg is damaged"):
        examples.inputs["video"](0)
    # The middle of a segment decides: other frames may be damaged.
    assert examples.inputs["video"](1).shape == (3, 8, 8, 3)


@pytest.mark.parametrize("options", [{}, {"inputs": "physiology", "channels": "gsr,ecg", "start": 1, "stop": 1.5}])
def test_biovid_is_described_as_it_is(template, options):
    assert_described("biovid", template, {**SMALL, **options})
