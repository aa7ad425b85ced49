"""Students of several modalities in use: the answers of the evaluation, whatever is absent, and nothing privileged."""

import csv
import json
import logging

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from random_state import random_tree

import emokd
from emokd import predict
from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data import reference
from emokd.data.arrays import array_examples
from emokd.errors import InputError
from emokd.inference import jax_student
from emokd.inference.modalities import Modalities
from emokd.inference.rows import read_rows
from emokd.inference.signature import Input
from emokd.jobs import datasets, scoring
from emokd.models.network import functional
from emokd.recipes import mtpkdot
from emokd.recipes.common.task import Task
from emokd.weights import model_folder

CLASSES = ("no", "some", "much")
SPLITS = {"train": 12, "validation": 4, "test": 8}
EPOCH = 1.7e12
"""Milliseconds since 1970, of which float32 keeps two minutes; the rows lie within hours."""


def write_tables(folder):
    """Eyes and skin, of which some rows lack one, and the heart, which is privileged."""
    rng = np.random.default_rng(0)
    ids = [f"row{i}" for i in range(sum(SPLITS.values()))]
    eye, skin, heart = (rng.normal(size=(len(ids), size)) for size in (5, 4, 3))
    eye[:, 0] = EPOCH + 1000 * rng.integers(0, 9000, len(ids))
    eye[::7, 2] = np.nan
    skin[[3, 17, 20]] = np.nan
    splits = [name for name, count in SPLITS.items() for _ in range(count)]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "split"))
        writer.writerows((name, CLASSES[i % 3], splits[i]) for i, name in enumerate(ids))
    np.savez(folder / "rows.npz", id=np.array(ids), eye=eye, skin=skin, heart=heart)


def make_config(folder):
    config = mtpkdot.default_config()
    config.batch_size = SPLITS["test"]
    config.data.source, config.data.dir = "feature_tables", str(folder)
    config.data.options = {"tables": {name: f"rows.npz:{name}" for name in ("eye", "skin", "heart")}}
    config.data.split.use_prescribed = True
    for name in ("eye", "skin", "heart"):
        privileged = name == "heart"
        config.modalities[name] = defaults.modality(f"features/{name}", "mlp", privileged=privileged, widths=(4,))
    config.width, config.adapter_width, config.structure.k = 4, 2, 4
    config.fusion.name, config.fusion.options = "joint_cross_attention", {"recursions": 1, "hidden": 2}
    config.hallucination.options = {"encoder": (6, 3), "decoder": (6,)}
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run as its end leaves it, but that its student's weights are random."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder)
    config = make_config(folder)
    parts = datasets.load_splits(config)
    parts, _ = datasets.refer(config, parts, None, None)
    train = parts["train"]
    inputs = {name: read(0).shape for name, read in train.inputs.items()}
    task = Task(train.classes, tuple(train.columns), {"labelled": len(train)}, config.batch_size, inputs=inputs)
    spec = mtpkdot.build(config, task, {}).student_spec
    params, stats = functional(spec).abstract
    origin = {"config": configuration.to_json(config), "references": reference.to_json(train)}
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(configuration.to_json(config))
    model_folder.save_model(run / "student", spec, random_tree(params, 1), random_tree(stats, 2), origin)
    return run


@pytest.fixture(scope="module")
def student(workdir):
    return emokd.load(workdir, batch_size=SPLITS["test"])


@pytest.fixture
def rows(workdir):
    """The rows of the test split."""
    with np.load(workdir.parent / "rows.npz") as file:
        return {name: file[name][-SPLITS["test"] :] for name in ("eye", "skin", "heart")}


def table(answers):
    return np.array([list(answer.probabilities.values()) for answer in answers])


def test_the_answers_are_those_of_the_evaluation(workdir, student, rows, monkeypatch):
    """What the student is scored by, whose softmax is taken here in float64."""
    scored = {}

    def keep(predictions, columns, classes):
        scored.update(predictions["student"])
        return {"student": {}}

    monkeypatch.setattr(scoring.evaluation, "score", keep)
    monkeypatch.setattr(scoring.rare_classes, "remarks", lambda *_: [])
    scoring.evaluate_student(workdir, "test", devices=1)
    logits = scored["expression"].astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = table(student({name: rows[name] for name in ("eye", "skin")}))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.ptp(wanted, axis=0).max() > 1e-2
    # The clock counts: rounded to float32 before it is centred, it would be another.
    rounded = {"eye": rows["eye"].astype(np.float32), "skin": rows["skin"]}
    assert np.abs(table(student(rounded)) - wanted).max() > 1e-5


def test_what_was_privileged_is_not_looked_at_and_said_once(workdir, rows, caplog):
    student = emokd.load(workdir, batch_size=SPLITS["test"])
    seen = {name: rows[name] for name in ("eye", "skin")}
    wanted = table(student(seen))
    with caplog.at_level(logging.WARNING):
        for heart in (rows["heart"], 1e6 * rows["heart"], np.full((2, 99), np.nan)):
            np.testing.assert_array_equal(table(student({**seen, "heart": heart})), wanted)
        np.testing.assert_array_equal(table(student({**seen, "features/heart": rows["heart"]})), wanted)
    assert caplog.messages == [
        f"Not looked at: {name}, which the model saw in training only." for name in ("heart", "features/heart")
    ]


def test_what_is_absent_may_be_nan_none_or_left_out(student, rows):
    nothing = np.full_like(rows["skin"], np.nan)
    wanted = table(student({"eye": rows["eye"], "skin": nothing}))
    assert np.abs(wanted - table(student({"eye": rows["eye"], "skin": rows["skin"]}))).max() > 1e-3
    np.testing.assert_array_equal(table(student({"eye": rows["eye"], "skin": None})), wanted)
    np.testing.assert_array_equal(table(student({"features/eye": rows["eye"].tolist()})), wanted)


def test_one_example_has_one_answer(student, rows):
    one = student({"eye": rows["eye"][1], "skin": rows["skin"][1]})
    (listed,) = student({"eye": rows["eye"][1:2], "skin": rows["skin"][1:2]})
    assert one == listed and tuple(one.probabilities) == tuple(sorted(CLASSES))
    several = student({"eye": rows["eye"], "skin": rows["skin"]})
    np.testing.assert_allclose(table([one]), table(several)[1:2], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eyes": np.zeros((2, 5))}, "no modality 'eyes'. Did you mean 'eye'"),
        ({"eye": np.zeros((2, 4))}, r"eye has the shape \[2, 4\]. Give \[5\] for one example"),
        ({"eye": np.zeros((2, 5)), "skin": np.zeros((3, 4))}, "different numbers of examples: eye 2, skin 3"),
        ({"eye": np.zeros((2, 5)), "skin": np.zeros(4)}, "eye 2, skin one"),
        ({"eye": np.zeros((0, 5))}, "there is no example"),
        ({"eye": np.array([["a"] * 5])}, "not numeric"),
        ({"eye": np.full((1, 5), np.inf)}, "infinite values in 1 rows"),
        ({"eye": np.full((3, 5), np.nan)}, r"3 examples have no value .*\(rows from 0: 0, 1, 2\)"),
        ({"heart": np.zeros((2, 3))}, r"No modality is given .* It takes eye \[5\], skin \[4\]"),
        ({"eye": np.zeros((2, 5)), "features/eye": np.zeros((2, 5))}, "eye is given twice"),
        (np.zeros((8, 8, 3), np.uint8), r"takes eye \[5\], skin \[4\], not pictures alone"),
    ],
)
def test_what_does_not_fit_is_said(student, given, said):
    with pytest.raises(InputError, match=said):
        student(given)


def test_a_fusion_over_the_batch_is_refused(workdir, tmp_path):
    spec, params, stats, _ = model_folder.load_model(workdir / "student")
    values = model_folder.spec_to_json(spec) | {"fusion": "transformer", "fusion_options": {"attend": "batch"}}
    spec = model_folder.spec_from_json(json.loads(json.dumps(values)), "test")
    params, stats = (random_tree(tree, 1) for tree in functional(spec).abstract)
    model_folder.save_model(tmp_path / "model", spec, params, stats, {})
    with pytest.raises(InputError, match="depends on those it is asked with"):
        emokd.load(tmp_path / "model")


@pytest.fixture
def command(workdir, monkeypatch):
    monkeypatch.setattr("sys.argv", ["predict"])
    flags.FLAGS.mark_as_parsed()

    def call(**given):
        with flagsaver.flagsaver(model=str(workdir), batch_size=SPLITS["test"], **given):
            predict.main(["predict"])

    return call


def test_the_command_answers_for_the_rows_of_a_table_by_their_ids(command, student, rows, tmp_path, capsys):
    ids = [f"r{i}" for i in range(SPLITS["test"])]
    np.savez(tmp_path / "rows.npz", id=np.array(ids), **rows)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        named = {name: [f"{name}/{c}" for c in range(rows[name].shape[1])] for name in rows}
        writer.writerow(["id", *(column for name in rows for column in named[name])])
        for i, name in enumerate(ids):
            cells = [value for each in rows.values() for value in each[i].tolist()]
            writer.writerow([name, *("" if np.isnan(value) else repr(value) for value in cells)])
    command(table=str(tmp_path / "rows.npz"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    command(table=str(tmp_path / "rows.csv"), output=str(tmp_path / "found.csv"))
    with (tmp_path / "found.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    answers = student({name: rows[name] for name in ("eye", "skin")})
    for name, line, row, answer in zip(ids, lines, cells, answers, strict=True):
        assert line == {"id": name, **answer.to_json()}
        assert row == {"id": name, **{key: str(value) for key, value in answer.to_cells().items()}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,eye/a,eye/b\nx,1,2\n", "eye has 5 numbers, but there are 2 columns"),
        ("id,a\nx,1\n", "column 'a' does not say of which modality"),
        ("id,eyes/a\nx,1\n", "no modality 'eyes'"),
        ("id," + ",".join(f"eye/{i}" for i in range(5)) + "\nx,1,2,3,4,five\n", "line 2: column 'eye/4' holds 'five'"),
    ],
)
def test_tables_that_do_not_fit_name_the_place(command, tmp_path, text, said):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        command(table=str(tmp_path / "rows.csv"))
    (tmp_path / "rows.txt").write_text(text)
    with pytest.raises(InputError, match="neither an .npz nor a .csv"):
        command(table=str(tmp_path / "rows.txt"))


NAMED = {"eye": ("pupil", "blink", "x/y"), "skin": ()}


def named_modalities():
    inputs = {
        name: Input(f"features/{name}", (3 if name == "eye" else 2,), "array", columns)
        for name, columns in NAMED.items()
    }
    return Modalities(inputs, {})


@pytest.mark.parametrize("prefix", ["eye", "features/eye"])
def test_columns_are_taken_by_the_names_of_the_training(tmp_path, prefix, caplog):
    header = ",".join(f"{prefix}/{name}" for name in ("x/y", "pupil", "blink"))
    (tmp_path / "rows.csv").write_text(f"skin/b,id,{header},skin/a\n8,r,3,1,2,9\n")
    found = read_rows(tmp_path / "rows.csv", named_modalities())
    assert found.ids == ["r"]
    np.testing.assert_array_equal(found.arrays["eye"], [[1, 2, 3]])
    np.testing.assert_array_equal(found.arrays["skin"], [[8, 9]])
    assert "does not know the names of the columns of skin" in caplog.text and "columns of eye" not in caplog.text


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("eye/pupil,eye/blinks,eye/x/y", "eye had no column 'blinks' in training. Did you mean 'blink'"),
        ("eye/pupil,eye/blink", "there are 2 columns of it: .* of which it lacks x/y"),
        ("eye/pupil,eye/blink,eye/x/y,eye/foo", "there are 4 columns of it: .* of which it has foo besides"),
    ],
)
def test_columns_that_the_training_did_not_have_are_refused(tmp_path, header, said):
    (tmp_path / "rows.csv").write_text(f"id,{header}\nr" + ",1" * len(header.split(",")) + "\n")
    with pytest.raises(InputError, match=rf"rows\.csv, line 1: .*{said}"):
        read_rows(tmp_path / "rows.csv", named_modalities())


def test_a_table_of_the_only_modality_is_read_as_it_was_trained_on(tmp_path):
    """Its columns need no modality before them, even where their own names have a slash."""
    eye = Modalities({"eye": Input("features/eye", (2,), "array", ("HR/mean", "HR/max"))}, {})
    (tmp_path / "rows.csv").write_text("id,HR/max,HR/mean\nr,1,2\n")
    np.testing.assert_array_equal(read_rows(tmp_path / "rows.csv", eye).arrays["eye"], [[2, 1]])
    (tmp_path / "rows.csv").write_text("id,HR/max,eye/HR/max,HR/mean\nr,1,5,2\n")
    with pytest.raises(InputError, match="'HR/max' and 'eye/HR/max' are the same column. Remove one"):
        read_rows(tmp_path / "rows.csv", eye)


def test_a_model_folder_keeps_the_names_of_columns(student, workdir, tmp_path):
    assert {seen.columns for seen in student.signature.inputs.values()} == {()}  # of arrays without names
    spec, params, stats, provenance = model_folder.load_model(workdir / "student")
    origin = provenance | {"columns": {"features/eye": list("abcde")}}
    model_folder.save_model(tmp_path / "named", spec, params, stats, origin)
    loaded = emokd.load(tmp_path / "named")
    assert {name: seen.columns for name, seen in loaded.signature.inputs.items()} == {"eye": tuple("abcde"), "skin": ()}
    examples = array_examples(
        "set", ["r"], {}, {}, {"features/eye": np.ones((1, 2)), "audio": np.ones((1, 2))}, names={"audio": ["a", "b"]}
    )
    assert reference.column_names(examples) == {"audio": ["a", "b"]}


def test_one_example_for_several_ids_is_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", id=np.arange(3), eye=np.ones(3))
    with pytest.raises(
        InputError, match=r"rows\.npz: the array 'eye' has the shape \[3\], .*row for each id: \[3, 3\]"
    ):
        read_rows(tmp_path / "rows.npz", named_modalities())


@pytest.mark.parametrize(
    "modalities", ["[]", "5", '{"a": 5}', '{"a": {"privileged": 1}}', '{"a": {"privileged": true}}']
)
def test_a_description_of_modalities_that_something_changed_is_refused(modalities):
    with pytest.raises(
        InputError, match=r"model\.json: provenance\.config\.modalities.* Import or train the model again"
    ):
        jax_student.privileged_names({"config": f'{{"modalities": {modalities}}}'}, "model.json")
