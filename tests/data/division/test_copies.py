"""Pictures and rows that are copies in other bytes: found, kept together, and left out where they leak."""

import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from emokd.data import sources
from emokd.data.arrays import array_examples
from emokd.data.division.apart import leave_out_copies
from emokd.data.division.duplicates import find_duplicates
from emokd.data.division.likeness import find_copies
from emokd.data.division.neighbours import Ties, close_pairs
from emokd.data.division.splits import split
from emokd.errors import InputError

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def scene(i, height=60, width=72):
    """A smooth picture of its own, with some grain."""
    rng = np.random.default_rng(i)
    rough = rng.integers(0, 255, (7, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC).astype(float)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


def note():
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "viewer")
    return info


EQUAL = {
    "level": lambda picture, path: picture.save(path.with_suffix(".png"), compress_level=9),
    "text": lambda picture, path: picture.save(path.with_suffix(".png"), pnginfo=note()),
    "bmp": lambda picture, path: picture.save(path.with_suffix(".bmp")),
    "webp": lambda picture, path: picture.save(path.with_suffix(".webp"), lossless=True, exact=True),
}
NEAR = {
    "jpeg": lambda picture, path: picture.save(path.with_suffix(".jpg"), quality=80),
    "half": lambda picture, path: picture.resize((36, 30)).save(path.with_suffix(".png")),
    "larger": lambda picture, path: picture.resize((150, 125)).save(path.with_suffix(".png")),
    "grey": lambda picture, path: picture.convert("L").save(path.with_suffix(".png")),
    "mirrored": lambda picture, path: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_suffix(".png")),
}


def twice(folder, again, n=24, part=""):
    """A folder of two classes in which each picture is saved a second time by `again`."""
    for i in range(n):
        place = folder / part / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        scene(i).save(place / f"{i:02d}.png", compress_level=1)
        again(scene(i), place / f"{i:02d}_again")
    return sources.load("image_folder", str(folder), {}, 32)


def pairs_of(examples):
    names = [pathlib.PurePath(key).stem for key in examples.keys]
    return {tuple(sorted((names.index(name), names.index(f"{name}_again")))) for name in names if "_" not in name}


@pytest.mark.parametrize("kind", [*EQUAL, *NEAR])
def test_a_picture_saved_again_stays_with_itself(kind, tmp_path):
    examples = twice(tmp_path, {**EQUAL, **NEAR}[kind])
    found = find_duplicates(examples)
    sets, others = (found.sets, found.near) if kind in EQUAL else (found.near, found.sets)
    assert set(sets) == pairs_of(examples) and not others
    parts = split(examples, FRACTIONS, 0)
    home = {key.split(".")[0]: name for name, part in parts.items() for key in part.keys}
    assert all(home[key] == home[f"{key}_again"] for key in home if "_" not in key)
    assert find_duplicates(examples, compare=False).sets == ()


def test_a_jpeg_and_its_decoded_pixels_are_equal(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(4):
        scene(i, 300, 400).save(tmp_path / "a" / f"{i}.jpg", quality=90)
    Image.open(tmp_path / "a" / "2.jpg").save(tmp_path / "a" / "copy.png")
    examples = sources.load("image_folder", str(tmp_path), {}, 32)
    found = find_copies(examples, range(len(examples)))
    # simplejpeg and Pillow may decode a level apart; then the copy is a near one
    assert (2, 4) in (*found.same, *found.near)


def test_flat_and_unreadable_pictures_are_copies_only_where_they_are_equal(tmp_path):
    (tmp_path / "a").mkdir()
    for name, grey in (("black", 0), ("grey", 90), ("dark", 1)):
        Image.new("L", (20, 20), grey).save(tmp_path / "a" / f"{name}.png")
    Image.new("L", (20, 20), 90).save(tmp_path / "a" / "grey2.bmp")
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    (tmp_path / "a" / "y.png").write_bytes(b"none either")
    examples = sources.load("image_folder", str(tmp_path), {}, 32)
    assert [examples.keys[i] for i in find_duplicates(examples).sets[0]] == ["a/grey.png", "a/grey2.bmp"]
    assert find_duplicates(examples).near == () and len(find_duplicates(examples).sets) == 1


def test_copies_across_prescribed_splits_leak_and_near_ones_are_named(tmp_path, caplog):
    for part in ("train", "test"):
        for i in range(12):
            place = tmp_path / part / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            scene(i if part == "train" else i + 50).save(place / f"{i}.png")
    scene(50).save(tmp_path / "train" / "a" / "equal.bmp")
    scene(51).save(tmp_path / "train" / "b" / "near.jpg", quality=80)
    examples = sources.load("image_folder", str(tmp_path), {}, 32)
    with caplog.at_level("WARNING"):
        parts = split(examples, {"train": 0.8, "test": 0.2}, 0)
    learned = parts["train"].keys
    assert "train/a/equal.bmp" not in learned and "train/b/near.jpg" in learned and len(learned) == 13
    assert "1 examples of train or validation have equal ones in a later split" in caplog.text
    assert "1 of 1 sets of near copies are in several splits (test and train: 1)" in caplog.text
    kept = split(examples, {"train": 0.8, "test": 0.2}, 0, keep_leaks=True)
    assert "train/a/equal.bmp" in kept["train"].keys


def test_near_copies_that_chain_a_set_together_are_parted_and_said(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for i in range(30):
        picture = np.asarray(scene(0)).astype(float) + np.random.default_rng(i).normal(0, 3, (60, 72, 3))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    examples = sources.load("image_folder", str(tmp_path), {}, 32)
    with caplog.at_level("WARNING"):
        parts = split(examples, FRACTIONS, 0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 18, "validation": 6, "test": 6}
    assert "1 sets of near copies (30 examples) are not kept together" in caplog.text


def rows(values, keys=None):
    keys = [f"r{i}" for i in range(len(values))] if keys is None else keys
    labels = np.arange(len(values), dtype=np.int32) % 2
    arrays = {"features/x": np.asarray(values, np.float32)}
    return array_examples("table", keys, {"expression": labels}, {"expression": ("a", "b")}, arrays)


def test_rows_written_with_fewer_digits_stay_together():
    rng = np.random.default_rng(0)
    scale, offset = 10.0 ** np.arange(-3, 5), np.array([0, 0, 1e3, 0, 5, 0, 0, 1e6])
    values = rng.normal(size=(60, 8)) * scale + offset
    values[5, 3] = np.nan
    single = values * (1 + 1e-7)
    short = values + scale * rng.uniform(-5e-3, 5e-3, values.shape)
    found = find_duplicates(rows(np.concatenate([values, single[:20], short[20:40]])))
    assert set(found.sets) == {(i, 60 + i) for i in range(20)}
    assert set(found.near) == {(i, 60 + i) for i in range(20, 40)}


@pytest.mark.parametrize("columns", [1, 2, 40])
def test_rows_of_few_columns_are_no_copies_by_chance(columns):
    found = find_duplicates(rows(np.random.default_rng(1).normal(size=(800, columns))))
    assert len(found.near) <= 1 and len(found.sets) <= 1


@pytest.mark.parametrize(
    "values",
    [
        lambda rng: rng.integers(1, 6, (300, 2)),  # ratings
        lambda rng: rng.random((300, 12)) < 0.15,  # action units
        lambda rng: np.where(rng.random((300, 6)) < 0.9, 0, rng.normal(size=(300, 6))),  # mostly zeros
    ],
)
def test_rows_of_few_different_values_are_no_copies_though_they_are_equal(values, caplog):
    table = rows(values(np.random.default_rng(2)))
    parts = split(table, FRACTIONS, 0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 180, "validation": 60, "test": 60}
    assert "sets of equal rows" in caplog.text and "agree by chance" in caplog.text
    assert sum(map(len, find_duplicates(table).sets)) <= 2


def test_equal_rows_are_copies_where_one_column_tells_them_apart_from_all_others():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.integers(0, 2, (80, 5)), rng.normal(size=(80, 1))], axis=1)
    found = find_duplicates(rows(np.concatenate([values, values[:10]])))
    assert found.sets == tuple((i, 80 + i) for i in range(10)) and not found.chance
    constant = np.repeat(rng.normal(size=(12, 4)), 6, axis=0)  # each person's own, in each of six trials
    assert len(find_duplicates(rows(constant)).sets) == 12


def test_what_rows_lack_does_not_make_them_alike():
    rng = np.random.default_rng(4)
    values = np.full((400, 30), np.nan)
    values[:, 0] = rng.normal(size=400)
    values[[3, 7, 9], [5, 5, 6]] = 1.0, 2.0, 3.0
    found = find_duplicates(rows(values))
    assert len(found.near) <= 1 and not found.sets


def test_close_pairs_are_those_of_all_distances():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(1500, 3)).astype(np.float32)
    signed = rng.normal(size=(1500, 1)).astype(np.float32)
    found = {tuple(sorted(pair)) for some in close_pairs(points, 0.1, signed) for pair in some.tolist()}
    gap = ((points[:, None].astype(float) - points[None]) ** 2).sum(2)
    sign = np.minimum((signed - signed.T) ** 2, (signed + signed.T) ** 2)
    near = {tuple(pair) for pair in np.argwhere(np.triu(gap + sign <= 0.0999**2, 1)).tolist()}
    loose = {tuple(pair) for pair in np.argwhere(np.triu(gap + sign <= 0.1001**2, 1)).tolist()}
    assert near and near <= found <= loose


def test_ties():
    ties = Ties(6)
    ties.tie_all((0, 3, 5))
    ties.tie(1, 2)
    ties.tie(5, 2)
    assert ties.sets() == [(0, 1, 2, 3, 5)] and ties.root(4) == 4


def test_what_is_held_out_is_left_out_in_any_bytes(tmp_path, caplog):
    held = twice(tmp_path / "held", lambda picture, path: None, n=6)
    (tmp_path / "extra" / "x").mkdir(parents=True)
    for i in range(20, 30):
        scene(i).save(tmp_path / "extra" / "x" / f"{i}.png")
    scene(1).save(tmp_path / "extra" / "x" / "equal.bmp")
    scene(2).save(tmp_path / "extra" / "x" / "near.jpg", quality=80)
    extra = sources.load("image_folder", str(tmp_path / "extra"), {}, 32)
    with caplog.at_level("WARNING"):
        left = leave_out_copies(extra, [held], "config.data.extra", "the test split")
    assert set(extra.keys) - set(left.keys) == {"x/equal.bmp", "x/near.jpg"}
    assert "2 of 12 examples of config.data.extra are left out" in caplog.text
    with pytest.raises(InputError, match="every example of config.data.extra is in the test split.*Give other"):
        leave_out_copies(held, [held], "config.data.extra", "the test split", same_set=True)


def test_held_out_rows_are_left_out_by_their_names_or_by_what_they_hold():
    values = np.random.default_rng(0).normal(size=(20, 6))
    whole = rows(values)
    other = rows(values[5:15] * (1 + 1e-7), keys=[f"other{i}" for i in range(10)])
    held = whole.select(np.arange(8))
    assert leave_out_copies(whole, [held], "train", "test", same_set=True).keys == [f"r{i}" for i in range(8, 20)]
    assert leave_out_copies(other, [held], "train", "test").keys == [f"other{i}" for i in range(3, 10)]


def test_sets_that_cannot_be_compared_are_said(caplog):
    table, other = rows(np.eye(4)), array_examples("b", ["x"], {}, {}, {"features/y": np.ones((1, 3), np.float32)})
    with caplog.at_level("WARNING"):
        assert leave_out_copies(other, [table], "config.data.extra", "the test split") is other
    assert "cannot be compared with the test split" in caplog.text
