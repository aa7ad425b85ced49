"""Model folders: what is written is what is read, whole or not at all."""

import errno
import hashlib
import json
import os

import jax
import numpy as np
import pytest
import safetensors.numpy

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder
from emokd.weights.model_folder import SeenAs, load_model, load_trained, load_with_canvas, model_hash, save_model

SPEC = NetworkSpec(
    "basic_cnn",
    options={"width": 2, "size": 16},
    heads={"expression": 3, "valence_arousal": 2},
    classes={"expression": ("glad", "sad", "none")},
    preprocessing=Preprocessing(size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)),
    dropout=0.25,
)


def make_trees(spec=SPEC, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), functional(spec).abstract)


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", SPEC, *make_trees(), {"source": "x.pth", "extra": {"seed": 3}})
    return tmp_path / "model"


def rewrite(folder, change):
    """Changes the arrays, and the hash with them."""
    arrays = safetensors.numpy.load_file(folder / "weights.safetensors")
    change(arrays)
    safetensors.numpy.save_file(arrays, folder / "weights.safetensors")
    description = json.loads((folder / "model.json").read_text())
    description["weights_sha256"] = model_hash(folder)
    (folder / "model.json").write_text(json.dumps(description))


def test_round_trip(folder):
    spec, params, stats, provenance = load_model(folder)
    assert spec == SPEC
    assert provenance == {"source": "x.pth", "extra": {"seed": 3}}
    assert jax.tree.structure((params, stats)) == jax.tree.structure(make_trees())
    jax.tree.map(np.testing.assert_array_equal, (params, stats), make_trees())
    assert list(params["backbone"]["convs"]) == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_device_arrays_are_written_too(tmp_path):
    save_model(tmp_path / "model", SPEC, *jax.tree.map(jax.numpy.asarray, make_trees()), {})
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "model")[1], make_trees()[0])


def test_anyone_can_read_the_weights(folder):
    arrays = safetensors.numpy.load_file(folder / "weights.safetensors")
    np.testing.assert_array_equal(
        arrays["params/backbone/convs/1/kernel"], make_trees()[0]["backbone"]["convs"][1]["kernel"]
    )
    assert "stats/backbone/norms/4/var" in arrays


def test_hash_and_origin(folder):
    expected = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert model_hash(folder) == expected
    assert load_trained(folder).origin == f"model (sha256 {expected[:16]})"


def test_a_student_knows_how_it_saw_pictures(folder, tmp_path):
    assert load_with_canvas(folder)[1] == SeenAs(16, "crop", "landmarks")
    config = json.dumps({"data": {"canvas": 40, "fit": "pad"}})
    save_model(tmp_path / "student", SPEC, *make_trees(), {"config": config, "face_crop": "box"})
    model, seen_as = load_with_canvas(tmp_path / "student")
    assert seen_as == SeenAs(40, "pad", "box")
    assert model.spec == SPEC


def test_a_wrong_checkpoint_lists_every_difference(folder):
    def change(arrays):
        del arrays["params/backbone/convs/0/kernel"]
        arrays["params/heads/expression/bias"] = np.zeros(8, np.float32)
        arrays["params/old"] = np.zeros(1, np.float32)
        arrays["stats/backbone/norms/0/var"][0] = np.inf

    rewrite(folder, change)
    with pytest.raises(InputError) as caught:
        load_model(folder)
    for part in (
        "in 4 places",
        "params/backbone/convs/0/kernel: expected (3, 3, 3, 2), found nothing",
        "params/heads/expression/bias: expected (3,), found (8,)",
        "params/old: expected nothing, found (1,)",
        "stats/backbone/norms/0/var: expected finite numbers, found 1 of 2",
    ):
        assert part in str(caught.value)


def test_a_weights_file_from_another_model_is_noticed(folder, tmp_path):
    save_model(tmp_path / "other", SPEC, *make_trees(seed=1), {})
    (tmp_path / "other" / "weights.safetensors").replace(folder / "weights.safetensors")
    with pytest.raises(InputError, match="its sha256 differs"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "has format 2, written by emokd"),
        (lambda d: d.pop("spec"), "lacks spec"),
        (lambda d: d["spec"].update(colour="red"), "does not describe a network"),
        (lambda d: d["spec"].pop("preprocessing"), "does not describe a network"),
        (lambda d: d["spec"].update(backbone="basic_cn"), "Did you mean 'basic_cnn'"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(folder, change, message):
    description = json.loads((folder / "model.json").read_text())
    change(description)
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_what_is_no_model_folder_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match="no such folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"has no model.json \(model\)"):
        load_model(tmp_path)
    (folder / "model.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_model(folder)


def test_an_older_model_is_replaced_but_nothing_else(tmp_path, folder):
    save_model(folder, SPEC, *make_trees(seed=1), {})
    jax.tree.map(np.testing.assert_array_equal, load_model(folder)[1], make_trees(seed=1)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(InputError, match="is not a model folder"):
        save_model(tmp_path / "thesis", SPEC, *make_trees(), {})
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_arrays_that_do_not_fit_are_not_written(tmp_path):
    params, stats = make_trees()
    params["heads"]["expression"]["bias"] = np.full(3, np.nan, np.float32)
    with pytest.raises(InputError, match="found 3 of 3 NaN"):
        save_model(tmp_path / "model", SPEC, params, stats, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_a_full_disk_leaves_the_older_model(tmp_path, folder, monkeypatch, fails):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "fsync":
        monkeypatch.setattr(model_folder.os, "fsync", full)
    else:
        rename = model_folder.pathlib.Path.rename

        def new_fails(self, target):
            return full() if self.name.endswith(".tmp") else rename(self, target)

        monkeypatch.setattr(model_folder.pathlib.Path, "rename", new_fails)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        save_model(folder, SPEC, *make_trees(seed=1), {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    jax.tree.map(np.testing.assert_array_equal, load_model(folder)[1], make_trees()[0])


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_model(tmp_path / "file" / "model", SPEC, *make_trees(), {})
