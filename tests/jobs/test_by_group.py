"""Scores by group, against scikit-learn on each group's rows."""

import numpy as np
import pytest

from emokd.data.arrays import array_examples
from emokd.errors import InputError
from emokd.jobs import by_group

CLASSES = {"expression": ("calm", "glad", "sad")}
COUNT = 60


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return array_examples(
        "clips",
        [f"clip{i}" for i in range(COUNT)],
        {"expression": rng.integers(0, 3, COUNT).astype(np.int32)},
        CLASSES,
        {"features/eye": rng.normal(size=(COUNT, 4))},
        groups=[f"actor{i % 6}" for i in range(COUNT)],
    )


def write(folder, text):
    path = folder / "people.csv"
    path.write_text(text)
    return f"{path}:sex"


def test_scores_of_a_group_are_those_of_its_rows_alone(examples, tmp_path):
    from sklearn.metrics import accuracy_score, f1_score

    by = write(tmp_path, "subject,sex\n" + "".join(f"actor{i},{('woman', 'man')[i % 2]}\n" for i in range(6)))
    groups = by_group.read_groups(examples, by)
    order = np.random.default_rng(1).permutation(COUNT)[:50]  # rows of a split come in another order
    logits = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    columns = {
        "expression": examples.columns["expression"][order],
        "id": examples.ids[order],
        "check": examples.checks[order],
    }
    found = by_group.score({"expression": logits}, columns, CLASSES, examples, groups)
    assert list(found) == ["man", "woman"]
    for name, parity in (("man", 1), ("woman", 0)):
        rows = order % 2 == parity
        true, said = columns["expression"][rows], logits[rows].argmax(1)
        scores = found[name]["expression"]
        assert found[name]["examples"] == rows.sum()
        assert scores["accuracy"] == pytest.approx(accuracy_score(true, said))
        assert scores["macro_f1"] == pytest.approx(f1_score(true, said, average="macro", labels=[0, 1, 2]))
        low, high = scores["accuracy_interval"]
        assert low < scores["accuracy"] < high


def test_two_spellings_are_two_groups_which_is_said(examples, tmp_path, caplog):
    by = write(tmp_path, "subject,sex\n" + "".join(f"actor{i},{('Woman', 'woman')[i % 2]}\n" for i in range(6)))
    assert set(by_group.read_groups(examples, by)) == {"Woman", "woman"}
    assert "Woman, woman are scored as different groups" in caplog.text


def test_own_groups_need_no_table(examples):
    assert by_group.read_groups(examples, "group").tolist() == [f"actor{i % 6}" for i in range(COUNT)]


def test_what_the_table_does_not_say_is_counted_and_a_group_of_its_own(examples, tmp_path, caplog):
    by = write(tmp_path, "key,sex\nclip0,woman\nclip1,\nclip2,man\nsomebody else,man\n")
    groups = by_group.read_groups(examples, by)
    assert groups[:3].tolist() == ["woman", by_group.NOT_STATED, "man"]
    assert (groups == by_group.NOT_STATED).sum() == COUNT - 2
    assert "says nothing about 58 of 60 examples, (not stated): 57 names are not in the table (clip10" in caplog.text


def test_paths_are_read_as_a_manifest_reads_them(tmp_path):
    faces = array_examples("faces", ["a/one.png", "a/two.png"], {}, {}, {"features/eye": np.array([[0.0], [1.0]])})
    by = write(tmp_path, "path,subject,sex\n./a/one.png,7,man\na\\two.png,8,woman\n")
    assert by_group.read_groups(faces, by).tolist() == ["man", "woman"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,age\nclip0,3\n", "people.csv has no column 'sex'. It has key, age"),
        ("name,sex\nclip0,man\n", "does not say whom its rows are about. Give it a column 'key' .* such as 'clip0'"),
        ("id,sex\n1,man\n", "does not say whom its rows are about"),
        ("key,sex\n0,man\n1,man\n", "column 'key' holds 0, 1, but clips has clip0, clip1"),
        ("subject,sex\nactor0,\nactor1,\n", "column 'sex' is empty for all 60 examples"),
        ("key,sex\nclip0,man\nclip0,woman\n", "line 3: 'clip0' is 'woman' here and 'man' above"),
        ("subject,sex\nactor0,man\nactor0,\n", "line 3: 'actor0' is '' here and 'man' above"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(examples, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        by_group.read_groups(examples, write(tmp_path, text))


def test_a_column_of_numbers_is_no_column_of_groups(tmp_path):
    count = by_group.MOST_GROUPS + 1
    names = [f"p{i}" for i in range(count)]
    people = array_examples(
        "people", names, {}, {}, {"features/eye": np.arange(count, dtype=float)[:, None]}, groups=names
    )
    by = write(tmp_path, "key,sex\n" + "".join(f"p{i},{i / 7}\n" for i in range(count)))
    with pytest.raises(InputError, match="column 'sex' holds 101 groups, more than 100. Write bands"):
        by_group.read_groups(people, by)
    with pytest.raises(InputError, match="people has 101 groups"):
        by_group.read_groups(people, "group")


@pytest.mark.parametrize("by", ["sex", "people.csv:", ":sex"])
def test_an_option_that_names_no_column_is_refused(examples, by):
    with pytest.raises(InputError, match="--by is .*; give 'group' .* or TABLE.csv:COLUMN"):
        by_group.read_groups(examples, by)


def test_a_table_that_is_not_there_is_refused(examples, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        by_group.read_groups(examples, f"{tmp_path}/none.csv:sex")
