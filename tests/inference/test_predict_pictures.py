"""What `predict` says of what is no picture, and with the mirrored picture where its model was scored so."""

import csv
import dataclasses
import io
import json
import os
import sys
import types
import zipfile

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from emokd import predict
from emokd.data.decode import to_canvas
from emokd.errors import InputError
from emokd.inference import records
from emokd.inference.finding import find_pictures
from emokd.inference.jax_student import create_student
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder
from emokd.weights.seen_as import SeenAs

SIZE = 16


@pytest.fixture(scope="module")
def model():
    spec = NetworkSpec(
        "basic_cnn",
        options={"width": 2, "size": SIZE},
        heads={"expression": 2, "valence_arousal": 2},
        classes={"expression": ("calm", "glad")},
        preprocessing=Preprocessing(size=SIZE),
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(0)))
    return TrainedModel(spec, params, stats, origin="random")


def by_network(model, canvas):
    """Logits and (valence, arousal) of the network itself, without the student."""
    pixels = model.spec.preprocessing(canvas[None].astype(np.float32) / 255)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, pixels)
    return np.asarray(signals.logits[0]), np.asarray(signals.valence_arousal[0])


def test_with_mirror_valence_and_arousal_are_those_of_both_looks(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (straight_logits, straight), (_, turned) = (by_network(model, p) for p in (pixels, pixels[:, ::-1]))
    assert np.abs(straight - turned).max() > 1e-4
    config = {"data": {"canvas": SIZE, "fit": "crop"}, "mirror": True}
    model_folder.save_model(tmp_path / "model", model.spec, model.params, model.stats, {"config": json.dumps(config)})
    loaded, seen_as = model_folder.load_with_canvas(tmp_path / "model")
    assert seen_as.mirror
    for mirror, expected in ((seen_as.mirror, (straight + turned) / 2), (False, straight)):
        answer = create_student(loaded, dataclasses.replace(seen_as, mirror=mirror), batch_size=1)(tmp_path / "a.png")
        np.testing.assert_allclose([answer.valence, answer.arousal], np.clip(expected, -1, 1), atol=2e-5)
        wanted = np.exp(straight_logits) / np.exp(straight_logits).sum()
        np.testing.assert_allclose(list(answer.probabilities.values()), wanted, atol=2e-5)


def test_what_is_no_picture_is_an_error_of_its_own_line(model, tmp_path):
    good = np.full((SIZE, SIZE, 3), 9, np.uint8)
    Image.fromarray(good).save(tmp_path / "a.JPG", "PNG")  # by its bytes, not by its suffix
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (tmp_path / "c.png").write_bytes(b"garbage\x00\xff")
    (tmp_path / "._a.JPG").write_bytes(b"\x00\x05\x16\x07")
    os.mkfifo(tmp_path / "d.png")
    files = [*find_pictures([str(tmp_path)]), *find_pictures([str(tmp_path / "d.png")])]
    student = create_student(model, SeenAs(SIZE, "crop", "landmarks"), batch_size=2)
    found = [records.of_picture(each, look, faces=False) for each, look in records.look_at(student, files)]
    assert [os.path.basename(record["file"]) for record in found] == ["a.JPG", "b.jpg", "c.png", "d.png"]
    assert found[0]["expression"] in ("calm", "glad")
    np.testing.assert_array_equal(to_canvas(good, SIZE), good)
    for record, said in zip(found[1:], ("is HEIC", "is no picture of a kind", "it is a pipe"), strict=True):
        assert said in record["error"] and "0x" not in record["error"]
    assert "Convert it to JPEG" in found[1]["error"]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.png", "faces/*.png", "https://example.org/a.jpg", ""])
def test_what_is_not_there_is_one_message(name):
    with pytest.raises(InputError, match="There is no file or folder ") as caught:
        find_pictures([name])
    assert len(str(caught.value)) < 300


def test_a_link_to_nothing_is_a_picture_that_cannot_be_read(tmp_path):
    os.symlink(tmp_path / "gone.png", tmp_path / "a.png")
    (found,) = find_pictures([str(tmp_path / "a.png")])
    with pytest.raises(InputError, match=r"a\.png cannot be read: No such file"):
        found.read(0)


def test_archives_patterns_and_lists_name_pictures_too(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    (tmp_path / "deep").mkdir()
    for picture, name in zip(pixels, ("a.png", "b.png", "deep/c.png"), strict=True):
        Image.fromarray(picture).save(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "x.ZIP", "w") as archive:
        archive.write(tmp_path / "b.png", "inner/b.png")
        archive.writestr("notes.txt", "no picture")
    inside, *others = find_pictures(
        [str(tmp_path / "x.ZIP"), str(tmp_path / "**" / "*.png"), "-"], [str(tmp_path / "a.png"), "gone.png"]
    )
    assert inside.name == str(tmp_path / "x.ZIP" / "inner" / "b.png")
    np.testing.assert_array_equal(inside.read(0), pixels[1])
    names = [os.path.relpath(each.name, tmp_path) for each in others[:-1]]
    assert names == ["a.png", "b.png", "deep/c.png", "a.png"]
    with pytest.raises(InputError, match="gone.png cannot be read"):  # of a long list, the others still count
        others[-1].read(0)


@pytest.fixture
def command(model, tmp_path, monkeypatch):
    """The command on a stored model, with flags."""
    model_folder.save_model(tmp_path / "model", model.spec, model.params, model.stats, {})
    monkeypatch.setattr(sys, "argv", ["predict"])
    flags.FLAGS.mark_as_parsed()

    def call(*names, **given):
        with flagsaver.flagsaver(model=str(tmp_path / "model"), batch_size=2, **given):
            predict.main(["predict", *map(str, names)])

    return call


def test_the_table_holds_every_picture_once_and_says_what_cannot_be_read(command, tmp_path):
    for name in ("a", "b"):
        Image.fromarray(np.full((SIZE, SIZE, 3), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    files = [tmp_path / name for name in ("a.png", "c.png", "b.png")]
    with pytest.raises(InputError, match="1 of 3 pictures could not be read"):
        command(*files, output=str(tmp_path / "found.csv"))
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(file) for file in files]
    columns = ["file", "expression", "expression_calm", "expression_glad", "valence", "arousal", "error"]
    assert list(rows[0]) == columns
    assert "c.png" in rows[1]["error"] and not rows[1]["valence"]
    assert float(rows[0]["expression_calm"]) + float(rows[0]["expression_glad"]) == pytest.approx(1, abs=1e-5)


def test_a_name_that_spreadsheets_would_compute_is_a_text_in_tables_and_itself_in_json_lines(
    command, tmp_path, monkeypatch
):
    names = ["=1+2.png", "+a.png", "-a.png", "@SUM(1).png", "\t=a.png", "＝a.png"]
    for name in names:
        Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for output in ("found.csv", "found.jsonl"):
        command(*names, output=output)
    with (tmp_path / "found.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [f"'{name}" for name in names]
    assert [json.loads(line)["file"] for line in (tmp_path / "found.jsonl").read_text().splitlines()] == names


def test_numbers_stay_numbers_in_tables():
    file = io.StringIO()
    writer = records.Writer(file, ["id", "valence", "=x"])
    writer.write([{"id": "-12", "valence": -0.5, "=x": "+1e-3"}, {"id": "-12-7"}, {"id": "-١"}])
    assert file.getvalue() == "id,valence,'=x\n-12,-0.5,+1e-3\n'-12-7,,\n'-١,,\n"


def test_a_list_on_the_standard_input_is_answered_in_json_lines(command, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    lines = f"\ufeff{tmp_path}/a.png\n\n{tmp_path}/a.png\n".encode()  # with Notepad's mark before it
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(lines)))
    command("-", output=str(tmp_path / "found.jsonl"))
    first, second = (tmp_path / "found.jsonl").read_text().splitlines()
    assert first == second and json.loads(first)["file"] == f"{tmp_path}/a.png"


@pytest.mark.parametrize(
    ("text", "said"), [("a.png\n".encode("utf-16"), "characters of two bytes"), (b"a.png\0b.png\0", "NUL bytes")]
)
def test_a_list_that_is_no_text_is_refused(command, tmp_path, monkeypatch, text, said):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text)))
    with pytest.raises(InputError, match=f"{said}. Write it as UTF-8"):
        command("-", output=str(tmp_path / "found.jsonl"))


def test_what_fails_leaves_the_older_file(command, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "found.jsonl").write_text("older")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(records, "of_picture", interrupt)
    with pytest.raises(KeyboardInterrupt):
        command(tmp_path / "a.png", output=str(tmp_path / "found.jsonl"))
    assert (tmp_path / "found.jsonl").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "found.jsonl", "model"]


@pytest.mark.parametrize(
    ("names", "given", "said"),
    [
        (["a.png"], {"output": "found.txt"}, "ends in .jsonl or .csv"),
        (["a.png"], {"output": "nowhere/found.csv"}, "a folder that exists"),
        (["a.png"], {"smooth": 1.0}, "--smooth goes with --video"),
        (["a.png"], {"table": "rows.csv"}, "one of them at a time"),
        ([], {"table": "rows.csv", "video": "a.mp4"}, "one of them at a time"),
        ([], {"table": "rows.csv"}, "The model takes pictures alone"),
    ],
)
def test_flags_that_do_not_go_together(command, names, given, said):
    with pytest.raises(InputError, match=said):
        command(*names, **given)
