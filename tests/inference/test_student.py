"""`emokd.load` and what it gives: answers by name for whatever is a picture, from many threads, compiled once."""

import pathlib
import subprocess
import sys
import textwrap
import threading

import jax
import numpy as np
import pytest
from PIL import Image

import emokd
from emokd.data.decode import to_canvas
from emokd.errors import InputError
from emokd.inference.engine import padded_sizes
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.student import Student
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder

SIZE, CLASSES = 16, ("calm", "glad", "cross")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stored model that also tells day from night, which nobody named."""
    spec = NetworkSpec(
        "basic_cnn",
        options={"width": 2, "size": SIZE},
        heads={"expression": 3, "valence_arousal": 2, "light": 2},
        classes={"expression": CLASSES},
        preprocessing=Preprocessing(size=SIZE),
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(0)))
    params["heads"] = jax.tree.map(lambda leaf: leaf * 8, params["heads"])  # so that pictures differ in their answers
    path = tmp_path_factory.mktemp("run") / "student"
    model_folder.save_model(path, spec, params, stats, {})
    return path


@pytest.fixture(scope="module")
def student(folder):
    return emokd.load(folder, batch_size=4)


PICTURES = np.random.default_rng(0).integers(0, 256, (9, 20, 24, 3), np.uint8)


def by_network(folder, pictures):
    """Softmax of the logits, and (valence, arousal), of the network itself."""
    spec, params, stats, _ = model_folder.load_model(folder)
    pixels = np.stack([to_canvas(p, SIZE) for p in pictures]).astype(np.float32) / 255
    signals, _ = jax.jit(functional(spec))(params, stats, spec.preprocessing(pixels))
    logits = np.asarray(signals.logits, np.float64)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), np.clip(signals.valence_arousal, -1, 1)


def test_an_answer_is_what_the_network_says_by_name(folder, student):
    probabilities, affect = by_network(folder, PICTURES)
    assert np.ptp(probabilities, axis=0).max() > 1e-3
    for answer, wanted, (valence, arousal) in zip(student(PICTURES), probabilities, affect, strict=True):
        assert tuple(answer.probabilities) == CLASSES
        np.testing.assert_allclose(list(answer.probabilities.values()), wanted, atol=2e-5)
        np.testing.assert_allclose([answer.valence, answer.arousal], [valence, arousal], atol=2e-5)
        assert answer.expression == CLASSES[wanted.argmax()]
        assert tuple(answer.heads) == ("light",) and tuple(answer.heads["light"].probabilities) == ("0", "1")
        assert answer.face is None


def test_files_arrays_and_pil_images_are_one_picture(student, tmp_path):
    Image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    wanted = student(PICTURES[0])
    assert student(str(tmp_path / "a.png")) == student(tmp_path / "a.png") == student(Image.open(tmp_path / "a.png"))
    assert student(tmp_path / "a.png") == wanted
    assert student([tmp_path / "a.png"]) == student(PICTURES[:1]) == [wanted]
    assert student([]) == []


def test_a_pil_image_is_turned_as_its_file_is(student, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURES[0]).save(tmp_path / "turned.png", exif=exif)
    assert student(Image.open(tmp_path / "turned.png")) == student(np.rot90(PICTURES[0], -1))


class Halves:
    """A detector that finds a face in each half of a picture, and none in a black one."""

    def detect(self, picture):
        height, width = picture.shape[:2]
        boxes = [(0.0, 0.0, width / 2, height), (width / 2, 0.0, width, height)]
        return [Face(box, 0.9) for box in boxes] if picture.any() else []


def test_with_faces_each_face_has_an_answer_and_its_place(student):
    cropper = FaceCropper(Halves(), "box")
    first, none, second = student([PICTURES[0], np.zeros_like(PICTURES[0]), PICTURES[1]], faces=cropper)
    assert none == []
    for found, picture in ((first, PICTURES[0]), (second, PICTURES[1])):
        crops = [crop for _, crop in cropper.find(picture)]
        assert [answer.face.box[0] for answer in found] == [0, 12]
        for answer, alone in zip(found, student(crops), strict=True):
            np.testing.assert_allclose(
                list(answer.probabilities.values()), list(alone.probabilities.values()), atol=1e-5
            )


def test_what_is_not_asked_of_a_model_is_none(tmp_path):
    spec = NetworkSpec("basic_cnn", {"width": 2, "size": SIZE}, {"valence_arousal": 2}, {}, Preprocessing(size=SIZE))
    params, stats = jax.device_get(functional(spec).init(jax.random.key(0)))
    model_folder.save_model(tmp_path / "model", spec, params, stats, {})
    answer = emokd.load(tmp_path / "model", batch_size=1)(PICTURES[0])
    assert (answer.expression, answer.probabilities, dict(answer.heads)) == (None, None, {})
    assert answer.to_json().keys() == {"valence", "arousal"}


def test_after_warming_up_nothing_is_compiled(folder, compilations):
    student = emokd.load(folder, batch_size=4)
    student.warm_up()
    compilations.clear()
    for count in range(1, 10):
        assert len(student(PICTURES[:count])) == count
    assert compilations == []


def test_batches_are_filled_up_to_few_sizes():
    assert padded_sizes(1) == (1,)
    assert padded_sizes(32) == (1, 4, 16, 32)


def test_four_threads_get_the_answers_that_each_gets_alone(student):
    alone = [student(picture) for picture in PICTURES]
    found, errors = {}, []

    def ask(k):
        try:
            found[k] = [student(picture) for picture in PICTURES[k:]]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(found[k] == alone[k:] for k in range(4))


def test_a_runs_folder_stands_for_its_student(folder, student):
    assert emokd.load(folder.parent, batch_size=4)(PICTURES[0]) == student(PICTURES[0])


def test_a_run_without_a_student_says_how_to_get_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has no student yet.*emokd.train"):
        emokd.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"), [({"engine": "jaxx"}, "Did you mean 'jax'"), ({"batch_size": 0}, "give 1 or more")]
)
def test_wrong_options_are_named(folder, options, said):
    with pytest.raises(InputError, match=said):
        emokd.load(folder, **options)


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(InputError, match="is not a model folder"):
        emokd.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PICTURES[0].astype(np.float32), "uint8 from 0 to 255"),
        (PICTURES[0, :, :, 0], r"shape \[20, 24\] is no picture"),
        (PICTURES[0].transpose(2, 0, 1), r"shape \[3, 20, 24\] is no picture"),
        (PICTURES[:0, :0, :0], None),
        (3, "A int is no picture"),
        ("gone.png", "gone.png cannot be read"),
        ({"image": PICTURES[0]}, "takes pictures alone"),
    ],
)
def test_what_is_no_picture_is_said(student, given, said):
    if said is None:
        assert student(given) == []
        return
    with pytest.raises(InputError, match=said):
        student(given)


def test_importing_emokd_imports_no_jax():
    code = "import emokd, sys; assert not {'jax', 'numpy', 'flax'} & set(sys.modules); assert 'load' in dir(emokd)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="'emokd' has no attribute 'lod'"):
        emokd.lod  # noqa: B018


def test_the_pages_own_lines_run(folder, tmp_path, monkeypatch, capsys):
    """The first lines of docs/predict.md, as they stand, where there is such a run and such a picture."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "predict.md").read_text()
    code = page[page.index("    import emokd") :].split("\n\nThe path is")[0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(folder.parent)
    Image.fromarray(PICTURES[0]).save(tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(code), {})
    assert capsys.readouterr().out.split()[0] in CLASSES


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_not_the_first_class(student, wrong):
    def engine(arrays):
        found = {name: values.copy() for name, values in student.engine(arrays).items()}
        found["expression"][1] = wrong
        return found

    broken = Student(student.signature, engine, student.seen_as)
    with pytest.raises(InputError, match=r"answer \(expression\) about 1 of 3 examples is no number: its weights"):
        broken(list(PICTURES[:3]))


def test_a_pil_image_that_cannot_be_read_is_said(student, tmp_path):
    with pytest.raises(InputError, match="0 x 5 pixels is no picture"):
        student(Image.new("RGB", (0, 5)))
    Image.fromarray(PICTURES[0]).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "x.png") as image, pytest.raises(InputError, match=r"\(mode RGB\) cannot be read: "):
        student(image)
