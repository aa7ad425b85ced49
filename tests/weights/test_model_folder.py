"""Model folders: what is written is what is read, whole or not at all."""

import errno
import hashlib
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights.description import sealed
from emokd.weights.model_folder import load_model, load_trained, load_with_canvas, model_hash, save_model
from emokd.weights.seen_as import SeenAs

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
    params, stats = functional(spec).abstract
    drawn = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), params)
    return drawn, jax.tree.map(lambda leaf: random.uniform(size=leaf.shape).astype(leaf.dtype), stats)


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
    (folder / "model.json").write_text(json.dumps(sealed(description)))


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
        (lambda d: d["spec"].update(colour="red"), "spec has the unknown keys colour"),
        (lambda d: d["spec"].pop("preprocessing"), "spec lacks preprocessing"),
        (lambda d: d["spec"].update(backbone="basic_cn"), "Did you mean 'basic_cnn'"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(folder, change, message):
    description = json.loads((folder / "model.json").read_text())
    change(description)
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_a_description_that_something_changed_is_noticed_and_an_older_one_without_a_hash_is_read(folder):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["spec"]["classes"]["expression"].reverse()
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"model.json is not what was written .*class names.* remove its entry desc"):
        load_model(folder)
    del description["description_sha256"]
    path.write_text(json.dumps(description))
    assert load_model(folder)[0].classes["expression"] == ("none", "sad", "glad")


def spec_field(*place):
    """Sets a value inside the specification."""

    def change(description, value):
        target = description["spec"]
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value

    return change


WRONG_VALUES = [
    *((spec_field("preprocessing", "size"), value, "preprocessing.size") for value in (0, "8", 10**6, -5, 1.5, True)),
    *((spec_field("preprocessing", "mean"), value, "preprocessing.mean") for value in ([0, 0], [0, 0, np.nan], "x", 3)),
    *((spec_field("preprocessing", "std"), value, "preprocessing.std") for value in ([0, 0, 0], [1, 1, -1], None)),
    (spec_field("preprocessing", "channels"), 10**400, "preprocessing.channels is a huge number"),
    (spec_field("preprocessing"), [1], "spec.preprocessing is not a JSON object"),
    *((spec_field("backbone"), value, "spec.backbone") for value in (3, None, ["basic_cnn"], "basic_cn")),
    *((spec_field("options"), value, "options") for value in ([], "x", {"width": 10**9}, {"depth": 300})),
    (spec_field("options"), {"width": 0, "size": 16}, "model.json: basic_cnn needs width"),
    *((spec_field("heads"), value, "spec.heads") for value in ("x", [3], {"expression": -1}, {"expression": "3"})),
    (spec_field("classes", "expression"), ["glad", "sad"], "classes.expression has 2 entries for 3 outputs"),
    (spec_field("classes", "expression"), ["glad", "sad", "sad"], "classes.expression is .* different texts"),
    *((spec_field("dropout"), value, "spec.dropout") for value in (np.inf, "0", -1, 2)),
]


@pytest.mark.parametrize(("change", "value", "message"), WRONG_VALUES)
def test_every_field_has_a_type_and_a_range(folder, change, value, message):
    description = json.loads((folder / "model.json").read_text())
    change(description, value)
    (folder / "model.json").write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        (None, "provenance is not a JSON object"),
        ([], "provenance is not a JSON object"),
        ({"config": "{"}, "provenance.config is not JSON"),
        ({"config": "[" * 100_000}, "provenance.config is not JSON"),
        ({"config": "{}"}, "provenance.config.data is not a JSON object"),
        ({"config": '{"data": {"canvas": 0, "fit": "pad"}}'}, "config.data.canvas is 0, not a whole number from 1"),
        ({"config": '{"data": {"canvas": 9, "fit": "pat"}}'}, "config.data.fit is 'pat'.*Did you mean 'pad'"),
        ({"config": '{"data": {"canvas": 9, "fit": "pad"}, "precision": "half"}'}, "config.precision is 'half'"),
        ({"face_crop": "ears"}, "provenance.face_crop is 'ears'"),
    ],
)
def test_where_a_model_came_from_is_read_as_strictly(folder, provenance, message):
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(sealed({**description, "provenance": provenance})))
    with pytest.raises(InputError, match=message):
        load_with_canvas(folder)


def test_a_picture_that_the_network_cannot_look_at_is_refused(folder):
    description = json.loads((folder / "model.json").read_text())
    description["spec"]["preprocessing"] = {"size": 16, "channels": 1, "mean": [0], "std": [1]}
    (folder / "model.json").write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match=r"the network cannot look at a picture of shape \(16, 16, 1\)"):
        load_with_canvas(folder)


def test_variances_below_zero_are_refused(folder):
    rewrite(folder, lambda arrays: arrays.update({"stats/backbone/norms/1/var": np.full(4, -1.0, np.float32)}))
    with pytest.raises(InputError, match="norms/1/var: expected variances, found 4 of 4 below 0"):
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
        monkeypatch.setattr(os, "fsync", full)
    else:
        rename = pathlib.Path.rename

        def new_fails(self, target):
            return full() if self.name.endswith(".tmp") else rename(self, target)

        monkeypatch.setattr(pathlib.Path, "rename", new_fails)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        save_model(folder, SPEC, *make_trees(seed=1), {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    jax.tree.map(np.testing.assert_array_equal, load_model(folder)[1], make_trees()[0])


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_model(tmp_path / "file" / "model", SPEC, *make_trees(), {})
