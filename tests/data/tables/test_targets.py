"""Partly labelled tables, codes in every spelling, votes, through the sources that read them."""

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.division.splits import split
from emokd.data.sources import diffusionfer, feature_tables, manifest, oasis
from emokd.data.tables.table import read_table
from emokd.data.tables.targets import read_affect, read_groups, read_labels, read_splits, read_targets, read_votes
from emokd.errors import InputError


def write(root, names):
    """Writes one distinct picture per name."""
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (i, 0, 7)).save(root / name)


def table(directory, text):
    (directory / "labels.csv").write_text(text, encoding="utf-8")


def rows(directory, cells, header="label"):
    table(directory, f"id,{header}\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    return read_table(str(directory / "labels.csv"))


@pytest.mark.parametrize("mark", ["", " ", "nan", "NaN", "NA", "None", "null"])
def test_an_empty_label_is_unlabelled_and_counted(tmp_path, mark, caplog):
    with caplog.at_level("INFO"):
        ids, classes = read_labels("set", rows(tmp_path, ["sad", mark, "calm", mark]), None)
    assert (ids.tolist(), classes) == ([1, -1, 0, -1], ("calm", "sad"))
    assert "2 of 4 rows have no label" in caplog.text
    ids, _ = read_labels("set", rows(tmp_path, ["sad", mark, "calm", "0"]), ("sad", "calm"))
    assert ids.tolist() == [0, -1, 1, 0]


def test_a_mark_that_the_class_list_has_is_a_class(tmp_path):
    ids, _ = read_labels("set", rows(tmp_path, ["None", "sad", ""]), ("None", "sad"))
    assert ids.tolist() == [0, 1, -1]
    assert read_labels("set", rows(tmp_path, ["none", "sad"]), None)[1] == ("none", "sad")


def test_codes_written_as_floats_are_codes(tmp_path, caplog):
    cells = ["3.0", "10.0", "0.0", "", "3", "03"]
    with caplog.at_level("INFO"):
        ids, classes = read_labels("set", rows(tmp_path, cells), None)
    assert (ids.tolist(), classes) == ([1, 2, 0, -1, 1, 1], ("0", "3", "10"))
    assert "codes written as 0.0, 03, 10.0 and 1 more" in caplog.text
    ids, classes = read_labels("set", rows(tmp_path, ["2.0", "0", "calm"]), ("sad", "calm", "glad"))
    assert ids.tolist() == [2, 0, 1]


def test_a_list_of_numbers_is_matched_by_number_not_by_place(tmp_path):
    ids, _ = read_labels("set", rows(tmp_path, ["1.0", "3", "2"]), ("1", "2", "3"))
    assert ids.tolist() == [0, 2, 1]
    with pytest.raises(InputError, match=r"line 2: .*'0', which is not a class"):
        read_labels("set", rows(tmp_path, ["0", "3"]), ("1", "2", "3"))


def test_codes_as_numpy_writes_them(tmp_path):
    cells = ["0.000000000000000000e+00", "1.000000000000000000e+01", "2.000e+00", "2"]
    ids, classes = read_labels("set", rows(tmp_path, cells), None)
    assert (ids.tolist(), classes) == ([0, 2, 1, 1], ("0", "2", "10"))
    assert read_labels("set", rows(tmp_path, cells[:1]), ("sad", "happy"))[0].tolist() == [0]


def test_negative_codes_are_told(tmp_path, caplog):
    read_labels("set", rows(tmp_path, ["-1", "0", "-1.0", "2"]), None)
    assert "codes below 0 are classes like the others: -1 (2 rows)" in caplog.text


@pytest.mark.parametrize("mark", ["-2", "-2.00", "-2.", "-2e0"])
def test_no_affect_in_every_spelling(tmp_path, mark):
    read = rows(tmp_path, [f"{mark},.5", f".5,{mark}"], "valence,arousal")
    np.testing.assert_array_equal(read_affect(read), [[np.nan, 0.5], [0.5, np.nan]])


@pytest.mark.parametrize("column", ["Split", "Subject", "GROUP", "Valence", "split\u200b."])
def test_a_column_that_only_looks_like_one_that_is_read(tmp_path, column):
    read = rows(tmp_path, ["sad,1", "happy,2"], f"label,{column}")
    if column.endswith("."):
        assert set(read_targets("set", read, None)[0]) == {"expression"}
        return
    with pytest.raises(InputError, match=rf"labels\.csv, line 1: the column '{column}' would not be read\. Write it"):
        read_targets("set", read, None)


@pytest.mark.parametrize("columns", ["labels", "emotion", "Happy,Sad"])
def test_a_class_list_without_its_column_is_refused(tmp_path, columns, caplog):
    read = rows(tmp_path, [".5,.5" + ",1" * len(columns.split(","))], f"valence,arousal,{columns}")
    named = ", ".join(map(repr, columns.split(",")))
    with pytest.raises(InputError, match=rf"labels\.csv, line 1: there is a class list, but no .* Is it {named}\?"):
        read_targets("set", read, ("happy", "sad"), wanted=True)
    assert set(read_targets("set", read, ("happy", "sad"))[0]) == {"valence_arousal"}  # the source's own list
    assert f"no classes are read, because {read[0].table} has no column 'label'. Is it {named}?" in caplog.text


def test_a_class_list_beside_affect_alone_is_told(tmp_path, caplog):
    read = rows(tmp_path, [".5,.5"], "valence,arousal")
    assert set(read_targets("set", read, ("happy", "sad"), wanted=True)[0]) == {"valence_arousal"}
    assert "no classes are read" in caplog.text


def test_affect_alone_is_no_doubt(tmp_path, caplog):
    assert set(read_targets("set", rows(tmp_path, [".5,.5,3"], "valence,arousal,age"), None)[0]) == {"valence_arousal"}
    assert not caplog.text


@pytest.mark.parametrize("column", ["Usage", "splits", "set", "partition"])
def test_splits_under_another_name_are_told(tmp_path, column, caplog):
    assert read_splits(rows(tmp_path, ["sad,Training", "sad,PrivateTest"], f"label,{column}")) is None
    assert f"the column '{column}' names splits (test, train), but is not read" in caplog.text
    assert "name it 'split'" in caplog.text


@pytest.mark.parametrize("cells", [("train", "train"), ("train", "bus"), ("test", "")])
def test_columns_that_name_no_splits(tmp_path, cells, caplog):
    assert read_splits(rows(tmp_path, [f"sad,{cell}" for cell in cells], "label,set")) is None
    assert read_splits(rows(tmp_path, ["train,test", "test,train"], "split,phase")) == ["train", "test"]
    assert not caplog.text


def test_negative_codes_without_a_list_are_classes_in_order(tmp_path):
    assert read_labels("set", rows(tmp_path, ["1", "-1", "0"]), None)[1] == ("-1", "0", "1")


@pytest.mark.parametrize(
    ("cells", "listed", "message"),
    [
        (["3", "happy"], None, r"line 3: .*name 'happy', but the code 3 on line 2.*config\.data\.options\.classes"),
        (["3.5", "1"], None, r"line 2: .*3\.5, a fraction"),
        (["Happy", "sad", "happy"], None, r"'Happy' \(line 2\) and 'happy' \(line 4\) differ in letter case"),
        (["a  b", "a b"], None, r"'a  b' \(line 2\) and 'a b' \(line 3\) differ in letter case, spaces"),
        (["Happy", "sad"], ("happy", "sad"), r"line 2: .*'Happy', which is not a class.*mean 'happy'"),
        (["1", "2", "3"], ("a", "b", "c"), r"line 4: .*count from 1 to 3.*take 1 off"),
        (["-1", "0"], ("a", "b"), r"line 2: .*'-1', which is not a class.*without a label is left empty"),
        (["1_0", "sad"], ("a", "sad"), r"line 2: .*'1_0', which is not a class"),
        (["", "nan"], None, r"line 2: column 'label' is empty, as in all rows"),
        (["happy", "?"], None, r"line 3: .*'\?', which is no name.*leave the cell empty"),
        (['"3,0"', "1"], None, r"line 2: .*'3,0', .*decimal comma as a point: 3\.0"),
        (["3.5e0", "1"], None, r"line 2: .*3\.5e0, a fraction"),
    ],
)
def test_labels_refused(tmp_path, cells, listed, message):
    with pytest.raises(InputError, match=message):
        read_labels("set", rows(tmp_path, cells), listed)


def test_both_unicode_forms_of_a_class_are_one(tmp_path):
    ids, classes = read_labels("set", rows(tmp_path, ["colère", "cole\u0300re", "joie"]), None)
    assert (ids.tolist(), classes) == ([0, 0, 1], ("colère", "joie"))
    examples_header = rows(tmp_path, ["1,3", "0,0"], "cole\u0300re,joie")
    np.testing.assert_array_equal(read_votes(examples_header, ("colère", "joie")), [[0.25, 0.75], [0, 0]])


def test_votes(tmp_path):
    found = read_votes(rows(tmp_path, ["3,1", ",", "nan,NA", "1e-320,1e-320", "1e9,0"], "a,b"), ("a", "b"))
    np.testing.assert_array_equal(found, np.float32([[0.75, 0.25], [0, 0], [0, 0], [0.5, 0.5], [1, 0]]))
    for cells, message in (("1e308,1e308", r"line 2: column 'a' holds 1e308, outside"), ("1,", r"column 'b' is empty")):
        with pytest.raises(InputError, match=message):
            read_votes(rows(tmp_path, [cells], "a,b"), ("a", "b"))


def test_a_manifest_with_labels_for_some_and_valence_for_others(tmp_path, caplog):
    names = [f"{i}.png" for i in range(4)]
    write(tmp_path / "images", names)
    table(tmp_path, "path,label,valence,arousal\n0.png,sad,,\n1.png,,0.5,-1\n2.png,calm,-2,-2\n3.png,NA,nan,0.25\n")
    with caplog.at_level("INFO"):
        examples = sources.load("manifest", str(tmp_path), {})
    assert examples.columns["expression"].tolist() == [1, -1, 0, -1]
    nan = np.nan
    np.testing.assert_array_equal(
        examples.columns["valence_arousal"], np.float32([[nan, nan], [0.5, -1], [nan, nan], [nan, 0.25]])
    )
    assert "of 4 examples, unlabelled: expression 2, valence_arousal 3" in caplog.text


def test_an_unlabelled_part_passes_through_the_splits(tmp_path):
    names = [f"{i:02d}.png" for i in range(40)]
    write(tmp_path / "images", names)
    table(tmp_path, "path,label\n" + "".join(f"{n},{('sad', 'calm', '')[i % 3]}\n" for i, n in enumerate(names)))
    parts = split(manifest.load(str(tmp_path), {}), {"train": 0.5, "test": 0.5}, 0)
    for part in parts.values():
        assert set(part.columns["expression"].tolist()) == {-1, 0, 1}


def test_feature_tables_read_the_same_targets(tmp_path):
    np.savez(tmp_path / "x.npz", id=np.array(["Zoe\u0308", "b", "c"]), x=np.eye(3))
    table(tmp_path, "id,label,valence,arousal\nZoë,1.0,,\nb,0,-2,0.5\nc,,1,1\n")
    examples = feature_tables.load(str(tmp_path), {"tables": {"x": "x.npz:x"}, "classes": ("sad", "calm")})
    assert examples.keys == ["Zoë", "b", "c"]
    assert examples.columns["expression"].tolist() == [1, 0, -1]
    assert np.isnan(examples.columns["valence_arousal"]).tolist() == [[True, True], [True, False], [False, False]]
    table(tmp_path, "id,label\nzoë,0\nb,0\nc,1\n")
    with pytest.raises(InputError, match=r"lacks 1 of the ids .*: zoë\. 'Zoë' is there: is it 'zoë'\?"):
        feature_tables.load(str(tmp_path), {"tables": {"x": "x.npz:x"}})


def test_other_tables_have_empty_cells_too(tmp_path):
    write(tmp_path / "images", ["a.png", "b.png", "c.png"])
    table(tmp_path, "path,valence,arousal,expression\na.png,,,3.0\nb.png,0.5,-2,\nc.png,1,1,6\n")
    examples = diffusionfer.load(str(tmp_path), {})
    assert examples.columns["expression"].tolist() == [3, -1, 6]
    assert np.isnan(examples.columns["valence_arousal"]).tolist() == [[True, True], [False, True], [False, False]]
    table(tmp_path, "path,valence_mean,arousal_mean,category\na.png,,4,Animal\nb.png,7,1,\nc.png,1,1,animal\n")
    examples = oasis.load(str(tmp_path), {})
    np.testing.assert_array_equal(examples.columns["valence_arousal"], np.float32([[np.nan, 0], [1, -1], [-1, -1]]))
    assert examples.columns["category"].tolist() == [0, -1, 0]


def test_vote_columns_for_some_of_the_classes_are_refused(tmp_path):
    write(tmp_path / "images", ["a.png"])
    table(tmp_path, "path,valence,arousal,sad,Calm\na.png,0,0,1,2\n")
    with pytest.raises(InputError, match=r"line 1: .*votes for sad, but none for calm.*It has: path"):
        manifest.load(str(tmp_path), {"classes": ("sad", "calm")})


def test_groups_are_taken_from_either_column_and_alike_ones_are_said(tmp_path, caplog):
    people = ["s1,c1", "s2,c2", "s1,c3", "s2,c3"]
    for header, column, groups in (
        ("subject,x", "group", ["s1", "s2", "s1", "s2"]),
        ("x,group", "subject", ["c1", "c2", "c3", "c3"]),
        ("subject,group", "group", ["c1", "c2", "c3", "c3"]),
        ("subject,group", "subject", ["s1", "s2", "s1", "s2"]),
        ("Participant_ID,x", "group", None),
    ):
        assert read_groups("set", rows(tmp_path, people, header), column) == groups
    assert [record.message.split(": ")[1].split(" may")[0] for record in caplog.records] == [
        "'subject'",
        "'group'",
        "'Participant_ID'",
    ]
    caplog.clear()
    assert read_groups("set", rows(tmp_path, ["s1,c1", "s1,c2", "s2,c3"], "subject,clip"), "group")
    assert read_groups("set", rows(tmp_path, ["s1,c1", "s2,c2"], "person,clip"), "group") is None  # one row each
    assert not caplog.records


@pytest.mark.parametrize(
    "column", "pid sid ppid caseid recording session photo Movie scene_id source_image frame_of".split()
)
def test_common_names_of_groups_are_told(tmp_path, column, caplog):
    read_groups("set", rows(tmp_path, ["s1", "s2", "s3", "s3"], column), "group")
    assert f"'{column}' may name people or recordings" in caplog.text


def test_conditions_are_no_groups(tmp_path, caplog):
    read_groups("set", rows(tmp_path, ["in,0", "out,1", "in,0"], "scene,child"), "group")
    assert not caplog.text


@pytest.mark.parametrize("mark", ["nan", "NA", "<NA>", "null", "None"])
def test_a_group_that_says_no_value_is_no_group(tmp_path, mark):
    with pytest.raises(InputError, match=rf"labels.csv, line 3: column 'subject' holds '{mark}'.*Fill it in"):
        read_groups("set", rows(tmp_path, ["s1", mark, mark], "subject"), "group")
