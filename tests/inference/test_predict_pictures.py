"""What `predict` says of what is no picture, and with the mirrored picture where its model was scored so."""

import json
import os

import jax
import numpy as np
import pytest
from PIL import Image

from emokd.data.decode import to_canvas
from emokd.errors import InputError
from emokd.inference.predictor import Predictor, find_pictures
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder

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
    """Logits and (valence, arousal) of the network itself, without the predictor."""
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
        predictor = Predictor(loaded, canvas=SIZE, fit="crop", batch_size=1, mirror=mirror)
        (record,) = predictor.predict([tmp_path / "a.png"])
        np.testing.assert_allclose([record["valence"], record["arousal"]], np.clip(expected, -1, 1), atol=2e-5)
        wanted = np.exp(straight_logits) / np.exp(straight_logits).sum()
        np.testing.assert_allclose(list(record["expression_probabilities"].values()), wanted, atol=2e-5)


def test_what_is_no_picture_is_an_error_of_its_own_line(model, tmp_path):
    good = np.full((SIZE, SIZE, 3), 9, np.uint8)
    Image.fromarray(good).save(tmp_path / "a.JPG", "PNG")  # by its bytes, not by its suffix
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (tmp_path / "c.png").write_bytes(b"garbage\x00\xff")
    (tmp_path / "._a.JPG").write_bytes(b"\x00\x05\x16\x07")
    os.mkfifo(tmp_path / "d.png")
    files = [*find_pictures([str(tmp_path)]), *find_pictures([str(tmp_path / "d.png")])]
    records = list(Predictor(model, canvas=SIZE, fit="crop", batch_size=2).predict(files))
    assert [os.path.basename(record["file"]) for record in records] == ["a.JPG", "b.jpg", "c.png", "d.png"]
    assert records[0]["expression"] in ("calm", "glad")
    np.testing.assert_array_equal(to_canvas(good, SIZE), good)
    for record, said in zip(records[1:], ("is HEIC", "is no picture of a kind", "it is a pipe"), strict=True):
        assert said in record["error"] and "0x" not in record["error"]
    assert "Convert it to JPEG" in records[1]["error"]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.png", "faces/*.png", "https://example.org/a.jpg", ""])
def test_what_is_not_there_is_one_message(name):
    with pytest.raises(InputError, match="There is no file or folder ") as caught:
        find_pictures([name])
    assert len(str(caught.value)) < 300


def test_a_link_to_nothing_is_told(tmp_path):
    os.symlink(tmp_path / "gone.png", tmp_path / "a.png")
    with pytest.raises(InputError, match=r"There is no file or folder .*a\.png\. It is a link to nothing"):
        find_pictures([str(tmp_path / "a.png")])
