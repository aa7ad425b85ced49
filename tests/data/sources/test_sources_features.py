import pickle

import cloudpickle
import ml_collections
import numpy as np
import pytest

from emokd.data import sources
from emokd.data.division.splits import find_duplicates, split
from emokd.data.pipeline import evaluation_batches, train_batches
from emokd.data.sources import feature_tables, ravdess, vreed
from emokd.errors import InputError

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}

# Feature tables

LABELS = "id,label,valence,arousal,split,subject\nc,sad,-1,0.5,train,s1\na,calm,0.5,-1,val,s2\nb,sad,0,0,train,s1\n"
EYE = "trial,blinks,gaze\nb,3,\na,nan,1e-3\nc,-5,NA\n"
TRACES = np.arange(3 * 4 * 2, dtype=np.float64).reshape(3, 4, 2)


def tables(directory, labels=LABELS, eye=EYE, **arrays):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "labels.csv").write_text(labels)
    (directory / "eye.csv").write_text(eye)
    np.savez(directory / "traces.npz", **({"id": np.array(["a", "b", "c"]), "emg": TRACES} | arrays))
    return {"tables": {"eye": "eye.csv", "physiology": "traces.npz:emg"}}


def test_feature_tables_align_by_id_and_keep_nan(tmp_path):
    options = tables(tmp_path)
    examples = sources.load("feature_tables", str(tmp_path), ml_collections.ConfigDict(options).to_dict(), min_side=9)
    assert examples.keys == ["c", "a", "b"]
    assert examples.classes == {"expression": ("calm", "sad")}
    assert examples.columns["expression"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(examples.columns["valence_arousal"], np.float32([[-1, 0.5], [0.5, -1], [0, 0]]))
    assert examples.splits.tolist() == ["train", "validation", "train"]
    assert examples.groups.tolist() == ["s1", "s2", "s1"]
    assert examples.inputs.keys() == {"features/eye", "physiology"}
    eye = np.stack([examples.inputs["features/eye"](i) for i in range(3)])
    np.testing.assert_array_equal(eye, np.float32([[-5, np.nan], [np.nan, 1e-3], [3, np.nan]]))
    traces = np.stack([examples.inputs["physiology"](i) for i in range(3)])
    np.testing.assert_array_equal(traces, TRACES[[2, 0, 1]].astype(np.float32))
    assert eye.dtype == traces.dtype == np.float32


@pytest.mark.parametrize(("header", "first"), [("idx,id,x", True), ("x,id,idx", False)])
def test_the_column_id_names_the_rows_wherever_it_is(tmp_path, header, first, caplog):
    options = tables(tmp_path, "id,label\n1,a\n2,b\n3,a\n", f"{header}\n1,3,30\n2,2,20\n3,1,10\n", id=np.arange(1, 4))
    examples = feature_tables.load(str(tmp_path), options)
    eye = examples.inputs["features/eye"]
    np.testing.assert_array_equal([eye(i) for i in range(3)], np.float32([[3, 10], [2, 20], [1, 30]]))
    assert f"the column 'id' names the rows; '{'idx' if first else 'x'}', which is before it, does not" in caplog.text
    assert eye.names == tuple(name for name in header.split(",") if name != "id")


def test_an_index_without_a_name_beside_ids_is_refused(tmp_path):
    options = tables(tmp_path, eye=",id,x\n0,a,1\n1,b,2\n2,c,3\n")
    with pytest.raises(InputError, match=r"eye\.csv, line 1: the first column has no name.*to_csv\(index=False\)"):
        feature_tables.load(str(tmp_path), options)
    options = tables(tmp_path, eye=",x,y\na,1,2\nb,2,3\nc,3,4\n")  # the index is the ids, as it should be
    assert feature_tables.load(str(tmp_path), options).inputs["features/eye"](1).tolist() == [1, 2]


@pytest.mark.parametrize("column", ["label", "Valence", "arousal", "split", "subject", "group"])
def test_a_column_of_the_labels_is_no_feature(tmp_path, column):
    options = tables(tmp_path, eye=f"id,x,{column}\na,1,0\nb,2,1\nc,3,0\n")
    with pytest.raises(InputError, match=rf"eye\.csv, line 1: the column '{column}' would be a feature"):
        feature_tables.load(str(tmp_path), options)


def test_traces_with_more_channels_than_samples_are_told(tmp_path, caplog):
    feature_tables.load(str(tmp_path), tables(tmp_path))
    assert "swapped" not in caplog.text
    feature_tables.load(str(tmp_path), tables(tmp_path, emg=TRACES.transpose(0, 2, 1) ** 2))
    assert "traces.npz:emg: physiology has 4 channels of 2 samples each" in caplog.text


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, slice(None), 1), 3.0, "the traces of 1 examples have a flat channel: a"),
        ((1, 2, 0), np.nan, "the traces of 1 examples have missing samples: b"),
    ],
)
def test_a_trace_is_whole_or_absent(tmp_path, place, value, message):
    traces = TRACES.copy()
    traces[place] = value
    options = tables(tmp_path, emg=traces)
    with pytest.raises(InputError, match=rf"traces.npz:emg: {message}"):
        feature_tables.load(str(tmp_path), options)
    traces[place[0]] = np.nan
    options = tables(tmp_path, emg=traces)
    assert len(feature_tables.load(str(tmp_path), options)) == 3


def test_feature_tables_with_one_target_integers_for_ids_and_a_class_list(tmp_path):
    options = tables(tmp_path, "id,label\n7,2\n8,10\n9,2\n", id=np.array([9, 8, 7]), emg=TRACES.astype(np.int16))
    options["tables"] = {"sound": "traces.npz:emg"}
    examples = feature_tables.load(str(tmp_path), options)
    assert examples.classes["expression"] == ("2", "10")
    assert examples.splits is None and examples.groups is None
    np.testing.assert_array_equal(examples.inputs["features/sound"](0), TRACES[2].astype(np.float32))
    listed = feature_tables.load(str(tmp_path), {**options, "classes": ("10", "2", "3")})
    assert listed.columns["expression"].tolist() == [1, 0, 1]
    (tmp_path / "own.csv").write_text("id;valence;arousal\n7;0;1\n8;0;1\n9;0;1\n")
    assert set(feature_tables.load(str(tmp_path), {**options, "labels": "own.csv"}).columns) == {"valence_arousal"}


def test_feature_tables_with_an_absent_modality_and_duplicates(tmp_path):
    emg = TRACES.copy()
    emg[0] = np.nan
    emg[1] = emg[2]
    examples = feature_tables.load(str(tmp_path), tables(tmp_path, eye="id,x\na,1\nb,2\nc,2\n", emg=emg))
    assert np.isnan(examples.inputs["physiology"](1)).all()
    assert find_duplicates(examples).sets == ((0, 2),)
    emg[1, 0, 0] = 5.5
    assert not find_duplicates(feature_tables.load(str(tmp_path), tables(tmp_path, emg=emg))).sets


def test_examples_without_pictures_pass_through_the_pipeline(tmp_path):
    examples = pickle.loads(cloudpickle.dumps(feature_tables.load(str(tmp_path), tables(tmp_path))))
    first, second = evaluation_batches(examples, batch_size=2, canvas=8, fit="crop")
    expected = {"features/eye", "physiology", "expression", "valence_arousal", "id", "check", "view", "mask"}
    assert first.keys() == second.keys() == expected
    np.testing.assert_array_equal(first["features/eye"], np.float32([[-5, np.nan], [np.nan, 1e-3]]))
    assert second["mask"].tolist() == [True, False]
    assert second["physiology"].shape == (2, 4, 2)
    np.testing.assert_array_equal(second["physiology"][0], TRACES[1].astype(np.float32))
    assert second["expression"].tolist() == [1, -1]
    batch = next(train_batches(examples, batch_size=3, seed=0, canvas=8, fit="crop"))
    rows = {int(i): row for row, i in enumerate(batch["id"])}
    for i, name in enumerate(examples.ids):
        np.testing.assert_array_equal(batch["features/eye"][rows[name]], examples.inputs["features/eye"](i))
        np.testing.assert_array_equal(batch["physiology"][rows[name]], examples.inputs["physiology"](i))


MANY = "id,label\n" + "".join(f"m{i:02d},sad\n" for i in range(12))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"labels": MANY}, {}, r"eye\.csv lacks 12 of the ids in .*labels\.csv: m00, m01, .*m09 and 2 more\. Add"),
        ({"labels": "id,label\na,x\nb,y\n"}, {}, r"labels\.csv lacks 1 of the ids in .*eye\.csv: c\. Label"),
        ({"id": np.array(["a", "b", "d"])}, {}, r"traces\.npz:emg lacks 1 of the ids in .*: c\. "),
        ({"id": np.array(["a", "b", "b"])}, {}, r"traces\.npz: 1 names are there more than once: b"),
        ({"id": np.array([["a"], ["b"], ["c"]])}, {}, r"names of the examples have the shape \[3, 1\]"),
        ({"id": np.array(["a", "b"])}, {}, r"different numbers of rows: id 2, emg 3"),
        ({"emg": TRACES[:, 0]}, {}, r"physiology has the shape \[3, 2\], not \[examples, samples, channels\]"),
        ({"emg": TRACES[:, 0, 0]}, {}, r"traces\.npz:emg has the shape \[3\]\. Give one row per example"),
        ({"emg": np.array(["x", "y", "z"])}, {}, r"traces\.npz:emg is of type <U1, which is not numeric"),
        ({"emg": np.where(TRACES == 9, 1e300, TRACES)}, {}, r"emg has infinite values in 1 rows \(from 0: 1\)"),
        ({"emg": np.full(3, None)}, {}, r"traces\.npz cannot be read: its array 'emg' is of Python objects"),
        ({"eye": "id,x\na,1\nb,two\nc,3\n"}, {}, r"eye\.csv, line 3: column 'x' holds 'two'"),
        ({"eye": "id,x\na,1\nb,inf\nc,3\n"}, {}, r"eye\.csv, line 3: column 'x' holds inf"),
        ({"eye": "id,x\na,1\nb,1e39\nc,3\n"}, {}, r"eye\.csv, line 3: column 'x' holds 1e39, outside"),
        ({"eye": "id,x\na,1\nb,1\na,3\nc,3\n"}, {}, r"eye\.csv, line 4: 'a' is also on line 2"),
        ({"eye": "id\na\nb\nc\n"}, {}, r"eye\.csv, line 1: there is no column besides the ids \('id'\)"),
        ({"labels": "name,label\na,x\n"}, {}, r"labels\.csv, line 1: there is no column 'id'"),
        ({"labels": "id,mood\na,x\n"}, {}, r"labels\.csv, line 1: no targets\. .*It has: id, mood"),
        ({"labels": "id,label\na,x\nb,x\na,y\n"}, {}, r"labels\.csv, line 4: 'a' is also on line 2"),
        ({"labels": "id,label,split\na,x,all\nb,x,\nc,x,\n"}, {}, r"labels\.csv, line 2: there is no split 'all'"),
        ({"labels": "id,valence,arousal\na,0,7\n"}, {}, r"labels\.csv, line 2: column 'arousal' holds 7, outside"),
        ({}, {"classes": ("sad", "cal")}, r"line 3: .*'calm'.*not a class\. Did you mean 'cal'"),
        ({}, {"tables": None}, r"config\.data\.options\.tables names no table"),
        ({}, {"tables": "eye.csv"}, r"config\.data\.options\.tables names no table"),
        ({}, {"tables": {"video": "eye.csv"}}, r"'video' cannot name a table of features"),
        ({}, {"tables": {"features/eye": "eye.csv"}}, r"'features/eye' cannot name.*'eye' becomes"),
        ({}, {"tables": {"eye": "eyes.csv"}}, r"eyes\.csv does not exist"),
        ({}, {"tables": {"eye": "trace.npz:emg"}}, r"trace\.npz does not exist"),
        ({}, {"tables": {"eye": "traces.npz:emq"}}, r"traces\.npz has no array 'emq'\. Did you mean 'emg'.*id, emg"),
        ({}, {"tables": {"eye": "eye.csv:x"}}, r"eye\.csv is not an \.npz file"),
        ({}, {"table": "eye.csv"}, r"feature_tables has no option 'table'\. Did you mean 'tables'"),
    ],
)
def test_feature_tables_refusals(tmp_path, changes, options, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        feature_tables.load(str(tmp_path), {**tables(tmp_path, **changes), **options})


def test_feature_tables_refuse_examples_without_any_value_and_plain_arrays(tmp_path):
    emg = TRACES.copy()
    emg[1] = np.nan
    options = tables(tmp_path, eye="id,x\na,1\nb,\nc,3\n", emg=emg)
    with pytest.raises(InputError, match="1 examples have no value in any table: b"):
        feature_tables.load(str(tmp_path), options)
    np.save(tmp_path / "plain.npy", TRACES)
    with pytest.raises(InputError, match=r"plain\.npy is not an \.npz file"):
        feature_tables.load(str(tmp_path), {"tables": {"eye": "plain.npy:x"}})


# RAVDESS


def clips(directory, **changes):
    arrays = {
        "action_units": np.zeros((4, 35), np.float32),
        "mfcc": np.arange(4 * 259, dtype=np.float32).reshape(4, 259),
        "wav2vec2_logits": np.ones((4, 8), np.float32),
        "emotion": np.array([0, 7, 3, 3]),
        "actor": np.array([1, 2, 1, 24]),
        "fold": np.array([0, 1, 0, 4]),
        "name": np.array(["w", "x", "y", "z"]),
    }
    np.savez(directory / "features.npz", **(arrays | changes))


def test_ravdess(tmp_path):
    clips(tmp_path)
    examples = ravdess.load(str(tmp_path), {})
    assert [examples.classes["expression"][i] for i in examples.columns["expression"]] == [
        "neutral", "surprised", "sad", "sad",
    ]  # fmt: skip
    assert examples.keys == ["w", "x", "y", "z"]
    assert examples.groups.tolist() == ["actor01", "actor02", "actor01", "actor24"]
    assert examples.splits is None
    assert examples.inputs["features/mfcc"](1)[0] == 259
    assert ravdess.load(str(tmp_path), {"fold": 0}).splits.tolist() == ["test", "train", "test", "train"]
    clips(tmp_path, actor=np.array([1.0, 2.0, 1.0, 24.0]))
    assert ravdess.load(str(tmp_path), {}).groups.tolist() == ["actor01", "actor02", "actor01", "actor24"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"emotion": np.array([0, 8, 3, -1])}, {}, r"`emotion` is 8 in row 1 \(from 0\), and wrong in 2 rows"),
        (
            {"emotion": np.array([[0], [7], [3], [3]])},
            {},
            r"features\.npz: `emotion` has the shape \[4, 1\]\. Save one",
        ),
        ({"actor": np.array([[1], [2], [1], [24]])}, {}, r"`actor` has the shape \[4, 1\]"),
        ({"fold": np.array([[0], [1], [0], [4]])}, {"fold": 0}, r"`fold` has the shape \[4, 1\]"),
        (
            {"actor": np.array([1, 2.5, np.nan, np.inf])},
            {},
            r"`actor` is 2\.5 in row 1 \(from 0\), and wrong in 3 rows",
        ),
        ({"actor": np.array(["1", "2", "1", "a"])}, {}, r"`actor` is '1' in row 0 .* Save the actors' numbers"),
        ({"actor": np.array([1, 2, 3])}, {}, r"different numbers of rows: .*actor 3"),
        ({"name": np.array(["w", "x", "w", "z"])}, {}, r"1 names are there more than once: w"),
        ({}, {"fold": 2}, r"config\.data\.options\.fold is 2; the file's folds are 0, 1, 4"),
        ({}, {"folds": 2}, r"ravdess has no option 'folds'\. Did you mean 'fold'"),
    ],
)
def test_ravdess_refusals(tmp_path, changes, options, message):
    clips(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        ravdess.load(str(tmp_path), options)


def test_ravdess_on_the_real_thing(data_directory):
    examples = sources.load("ravdess_features", str(data_directory / "ravdess_features"), {})
    counts = dict(zip(ravdess.CLASSES, np.bincount(examples.columns["expression"]).tolist(), strict=True))
    assert counts == {"neutral": 96} | dict.fromkeys(ravdess.CLASSES[1:], 192)
    assert {name: read(0).shape for name, read in examples.inputs.items()} == {
        "features/action_units": (35,),
        "features/mfcc": (259,),
        "features/wav2vec2_logits": (8,),
    }
    # RAVDESS names its files modality-channel-emotion-intensity-statement-repetition-actor.
    codes = np.array([[int(code) for code in key.split("-")] for key in examples.keys])
    np.testing.assert_array_equal(codes[:, 2] - 1, examples.columns["expression"])
    assert [f"actor{code:02d}" for code in codes[:, 6]] == examples.groups.tolist()
    logits = np.stack([examples.inputs["features/wav2vec2_logits"](i) for i in range(len(examples))])
    assert np.mean(logits.argmax(1) == examples.columns["expression"]) == pytest.approx(0.819, abs=5e-4)


@pytest.mark.parametrize("options", [{}, {"fold": 2}])
def test_ravdess_folds_share_no_actor(data_directory, options):
    examples = ravdess.load(str(data_directory / "ravdess_features"), options)
    folds = {} if options else {"folds": 5, "fold": 2}
    parts = split(examples, FRACTIONS, 0, **folds)
    actors = {name: set(part.groups) for name, part in parts.items()}
    assert sum(map(len, parts.values())) == 1440
    assert len(set.union(*actors.values())) == sum(map(len, actors.values())) == 24
    if options:
        assert actors["test"] == {"actor10", "actor11", "actor12", "actor19", "actor20"}


# VREED


def trials(directory, quadrants=(1, 0, 3), gsr=None, blink=""):
    """Small tables in the released layout."""
    rows = {
        "EyeTracking": ("Num_of_Fixations,Mean_Blink_Duration", quadrants, lambda i: f"{i},{blink}"),
        "ECG": ("ECG_Mean", quadrants, lambda i: f"{i + 0.5}"),
        "GSR": ("GSR_Mean,SD", gsr or quadrants, lambda i: f"{i},1E-05"),
    }
    for name, (header, labels, cells) in rows.items():
        text = f"Quad_Cat,{header}\n" + "".join(f"{label},{cells(i)}\n" for i, label in enumerate(labels))
        (directory / f"{name}_FeaturesExtracted.csv").write_text(text)


def test_vreed(tmp_path):
    trials(tmp_path)
    examples = vreed.load(str(tmp_path), {})
    assert [examples.classes["expression"][i] for i in examples.columns["expression"]] == [
        "positive_low_arousal", "positive_high_arousal", "negative_high_arousal",
    ]  # fmt: skip
    np.testing.assert_array_equal(examples.inputs["features/eye"](2), np.float32([2, np.nan]))
    np.testing.assert_array_equal(examples.inputs["features/gsr"](1), np.float32([1, 1e-5]))
    assert examples.groups is None
    order = [1, 0, 0, 3, 1, 2, 2, 2, 0, 1, 3, 3]
    trials(tmp_path, order * 2)
    assert vreed.load(str(tmp_path), {}).groups.tolist() == ["block00"] * 12 + ["block01"] * 12
    trials(tmp_path, order + order[::-1])
    assert vreed.load(str(tmp_path), {}).groups is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gsr": (1, 2, 3)}, r"GSR_.*\.csv, line 3: quadrant 2, but 0 in the same row of EyeTracking_"),
        ({"gsr": (1, 0)}, r"GSR_.* has 2 rows, but EyeTracking_.* has 3"),
        ({"quadrants": (1, 4, 0)}, r"EyeTracking_.*\.csv, line 3: there is no quadrant 4\. The codes are 0 positive"),
        ({"quadrants": (1, 0.5, 0)}, r"line 3: there is no quadrant 0\.5"),
        ({"blink": "long"}, r"EyeTracking_.*\.csv, line 2: column 'Mean_Blink_Duration' holds 'long'"),
    ],
)
def test_vreed_refusals(tmp_path, changes, message):
    trials(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        vreed.load(str(tmp_path), {})


def test_vreed_without_a_table(tmp_path):
    trials(tmp_path)
    (tmp_path / "ECG_FeaturesExtracted.csv").unlink()
    with pytest.raises(InputError, match=r"ECG_FeaturesExtracted\.csv does not exist"):
        vreed.load(str(tmp_path), {})


def test_vreed_on_the_real_thing(data_directory):
    examples = sources.load("vreed", str(data_directory / "vreed"), {})
    assert np.bincount(examples.columns["expression"]).tolist() == [78] * 4
    tables = {name: np.stack([read(i) for i in range(len(examples))]) for name, read in examples.inputs.items()}
    assert {name: table.shape for name, table in tables.items()} == {
        "features/eye": (312, 49),
        "features/ecg": (312, 18),
        "features/gsr": (312, 8),
    }
    assert {name: int(np.isnan(table).sum()) for name, table in tables.items()} == {
        "features/eye": 96,
        "features/ecg": 0,
        "features/gsr": 0,
    }
    # A person's level of ECG belongs to the person: it varies between the blocks, hardly within them.
    lowest = tables["features/ecg"][:, 1]
    between = np.var([lowest[examples.groups == group].mean() for group in np.unique(examples.groups)])
    assert len(np.unique(examples.groups)) == 26
    assert between / np.var(lowest) > 0.9
    parts = split(examples, FRACTIONS, 0, folds=5, fold=0)
    assert not set(parts["train"].groups) & set(parts["test"].groups)
