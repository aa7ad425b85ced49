"""A student remembers how the faces that it learnt from were cut out, and `predict --faces` cuts them out so."""

import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from small_jobs import SIZE, paint

import emokd
from emokd import predict
from emokd.data.face_crop import crop_square
from emokd.inference.faces import Face
from emokd.jobs import job
from emokd.recipes import supervised
from emokd.weights import model_folder


def write_rafdb(root):
    """RAF-DB's layout: twenty-eight faces to learn from and seven to be scored on, four and one of each expression."""
    rng = np.random.default_rng(0)
    (root / "EmoLabel").mkdir(parents=True)
    (root / "Image" / "aligned").mkdir(parents=True)
    lines = [f"{'train' if i < 28 else 'test'}_{i:05d}.jpg {i % 7 + 1}" for i in range(35)]
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for line in lines:
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(root / "Image" / "aligned" / line.split()[0].replace(".jpg", "_aligned.jpg"))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The folder of a student of RAF-DB, whose pictures just hold the face."""
    folder = tmp_path_factory.mktemp("rafdb")
    write_rafdb(folder / "rafdb")
    config = paint(supervised.default_config(), steps=2)
    config.data.source, config.data.dir, config.data.options = "rafdb", str(folder / "rafdb"), {}
    job.train(config.lock(), folder / "run", report=False)
    return folder / "run" / "student"


def test_a_student_of_rafdb_stores_that_its_faces_were_cut_out_by_their_box(student):
    _, seen_as = model_folder.load_with_canvas(student)
    assert seen_as == model_folder.SeenAs(SIZE, "crop", "box")
    assert seen_as.face_crop == "box"


class OneFace:
    """A detector that finds one face, always at the same place."""

    BOX = (20.0, 30.0, 60.0, 80.0)

    def __init__(self, **_):
        pass

    def detect(self, picture):
        return [Face(self.BOX, 0.9)]


@pytest.mark.parametrize(("flag", "square"), [("", (15, 30, 50)), ("landmarks", None)], ids=["as trained", "otherwise"])
def test_predict_cuts_faces_out_as_the_student_saw_them(student, tmp_path, monkeypatch, capsys, flag, square):
    """1.1 times the mean side of 40 x 50 is 49.5, around (40, 55); by landmarks the crop is another."""
    picture = np.random.default_rng(1).integers(0, 255, (120, 100, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photograph.png")
    Image.fromarray(crop_square(picture, *(square or (15, 30, 50)))).save(tmp_path / "crop.png")
    monkeypatch.setattr("emokd.inference.student.YuNet", OneFace)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(model=str(student), faces=True, face_crop=flag):
        predict.main(["predict", str(tmp_path / "photograph.png")])
    record = json.loads(capsys.readouterr().out)
    (face,) = record["faces"]
    assert face["box"] == list(OneFace.BOX)
    wanted = emokd.load(student, batch_size=1)(tmp_path / "crop.png")
    found, wanted = (np.array(list(p.values())) for p in (face["expression_probabilities"], wanted.probabilities))
    assert (abs(found - wanted).max() < 1e-4) == (flag == "")
