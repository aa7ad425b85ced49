"""Data, caches, checkpoints and configurations with seeded damage: each file is read right, skipped or refused.

Weights files and model folders: tests/weights/test_damaged_files.py. All kinds together are about 200 files by default
and 1,100 in the slow tests. Never a traceback, a hang, more than 1 GiB, or a label that its line does not say.
"""

import dataclasses
import io
import json
import pathlib
import shutil
import zipfile
from collections.abc import Iterator

import damages
import jax.numpy as jnp
import numpy as np
import pytest
from damages import amounts, damaged, refused, try_all
from PIL import Image

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.data.arrays import as_features, check_rows, read_names, read_npz
from emokd.data.cache import writer as cache_writer
from emokd.data.cache.answers import AnswersFile
from emokd.data.cache.reader import CENTRE, TeacherCache, long_ids
from emokd.data.decode import DecodeError, decode
from emokd.data.files.store import Archive, FileError
from emokd.data.sources import feature_tables, manifest
from emokd.data.tables.class_list import read_classes
from emokd.jobs import workdir
from emokd.training.checkpoints import Checkpoints
from emokd.training.selection import Best
from emokd.training.state import State


@pytest.fixture(autouse=True)
def within_bounds() -> Iterator[None]:
    with damages.bounded():
        yield


def picture(kind: str, seed: int = 0, side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "count"), amounts(["PNG", "JPEG", "WEBP"]))
def test_pictures(kind, count):
    whole = decode(picture(kind), "x")
    outcomes = set()
    for content in damaged(picture(kind), count, seed=1):
        try:
            found = decode(content, "x")
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
            outcomes.add("as it was" if np.array_equal(found, whole) else "another")
        except DecodeError as error:
            assert "object at 0x" not in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes


def read_archive(path: pathlib.Path, whole: dict[str, bytes]) -> None:
    """Every member that is read holds its bytes; the others are refused one by one."""
    files = Archive(str(path))
    for name in files.names:
        try:
            content = files.read(name)
        except FileError:
            continue
        assert content == whole.get(name, content) and content in whole.values()


@pytest.mark.parametrize(("method", "count"), amounts(["stored", "deflated"]))
def test_archives(tmp_path, method, count):
    whole = {f"{name}/{i}.png": picture("PNG", i, 8) for i, name in enumerate(("glad", "sad", "sad"))}
    kind = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}[method]
    with zipfile.ZipFile(tmp_path / "x.zip", "w", kind) as archive:
        for name, content in whole.items():
            archive.writestr(name, content)
    assert any(try_all(tmp_path / "x.zip", lambda: read_archive(tmp_path / "x.zip", whole), count, seed=2))


TABLE = "path,label,valence,arousal,split,subject\n" + "".join(
    f"{i}.png,{('glad', 'sad', 'none')[i % 3]},{i / 10},-0.{i},{('train', 'test')[i % 2]},s{i // 2}\n" for i in range(8)
)


def write_set(folder: pathlib.Path) -> pathlib.Path:
    for i in range(8):
        (folder / f"{i}.png").write_bytes(picture("PNG", i, 8))
    (folder / "labels.csv").write_text(TABLE)
    return folder / "labels.csv"


def labels_of(folder: pathlib.Path) -> dict[str, tuple]:
    found = manifest.load(str(folder), {})
    ids, names = found.columns.get("expression", np.full(len(found), -1)), found.classes.get("expression", ())
    affect = found.columns["valence_arousal"].tolist() if "valence_arousal" in found.columns else [None] * len(found)
    return {key: (names[i] if i >= 0 else None, v) for key, i, v in zip(found.keys, ids, affect, strict=True)}


@pytest.mark.parametrize(("what", "count"), amounts(["a table"]))
def test_tables_keep_the_labels_of_lines_that_are_as_they_were(tmp_path, what, count):
    path = write_set(tmp_path)
    whole, lines = labels_of(tmp_path), TABLE.encode().splitlines()
    outcomes = set()
    for content in damaged(path.read_bytes(), count, seed=3):
        path.write_bytes(content)
        if refused(lambda: outcomes.add(str(labels_of(tmp_path)))):
            continue
        found = labels_of(tmp_path)
        header, *rest = content.splitlines()
        untouched = {line.split(b",")[0].decode() for line in set(rest) & set(lines)}
        for key in untouched & found.keys() if header == lines[0] else ():
            assert found[key] == whole[key], (key, content)
        if header != lines[0]:  # a column of another name is not read, and says so or is not needed
            assert all(label in (None, whole[key][0]) for key, (label, _) in found.items()), content
    assert outcomes


def write_features(folder: pathlib.Path) -> pathlib.Path:
    (folder / "labels.csv").write_text("id,label\n" + "".join(f"e{i},{'ab'[i % 2]}\n" for i in range(4)))
    np.savez(folder / "x.npz", id=[f"e{i}" for i in range(4)], x=np.arange(12, dtype=np.float32).reshape(4, 3))
    return folder / "x.npz"


def read_features(folder: pathlib.Path) -> None:
    feature_tables.load(str(folder), {"tables": {"x": "x.npz:x"}})
    arrays = read_npz(str(folder / "x.npz"), ["id", "x"])
    check_rows(str(folder / "x.npz"), arrays)
    read_names("x.npz", arrays["id"])
    as_features(arrays["x"], "x.npz:x")


@pytest.mark.parametrize(("what", "count"), amounts(["npz"]))
def test_arrays(tmp_path, what, count):
    path = write_features(tmp_path)
    assert any(try_all(path, lambda: read_features(tmp_path), count, seed=4))


def write_answers(folder: pathlib.Path) -> pathlib.Path:
    arrays = {"names": [f"{i}.png" for i in range(4)], "classes": ["a", "b"], "logits": np.eye(4, 2, dtype=np.float32)}
    np.savez(folder / "answers.npz", **arrays, features=np.ones((4, 3), np.float32))
    return folder / "answers.npz"


@pytest.mark.parametrize(("what", "count"), amounts(["answers"]))
def test_answers_files(tmp_path, what, count):
    path = write_answers(tmp_path)
    assert any(try_all(path, lambda: AnswersFile(path), count, seed=5))


@pytest.mark.parametrize(("what", "count"), amounts(["a class list"]))
def test_class_lists(tmp_path, what, count):
    path = tmp_path / "classes.txt"
    path.write_text("neutral\nhappy\nsad\n")
    assert any(try_all(path, lambda: read_classes(str(path)), count, seed=6))


KEY = {"teachers": {"one": {"weights": "one (sha256 0)"}}, "views": 2, "dtype": "float32"}


def write_cache(folder: pathlib.Path) -> np.ndarray:
    """A cache of 9 examples in parts; its features."""
    plan = cache_writer.create_plan(KEY, {"one": 3}, 9, 4)
    features = np.random.default_rng(0).normal(size=(plan.rows, *plan.row_shape)).astype(plan.dtype)
    plan = cache_writer.begin(folder, plan)
    for part in cache_writer.missing_parts(folder, plan):
        rows = plan.rows_of(part)
        cache_writer.write_part(folder, plan, part, features[rows.start : rows.stop])
    numbers = np.arange(plan.rows, dtype=np.uint32)
    cache_writer.finish(folder, plan, long_ids(numbers, numbers))
    return features


@pytest.mark.parametrize(("name", "count"), amounts(["features.npy", "index.npy", "cache.json"]))
def test_caches(tmp_path, name, count):
    features, numbers = write_cache(tmp_path), np.arange(9, dtype=np.uint32)
    batch = {"id": numbers, "check": numbers, "mask": np.ones(9, bool)}

    def read():
        cache = TeacherCache(tmp_path, KEY)
        for view in (0, 1, CENTRE):
            found = cache.attach({**batch, "view": np.full(9, view, np.int32)})["features/one"]
            np.testing.assert_array_equal(found, features[:, view])

    assert any(try_all(tmp_path / name, read, count, seed=7))


class Stream:
    def get_state(self) -> bytes:
        return b'{"next_index": 0}'


def state_at(step: int) -> State:
    empty: dict = {field.name: {} for field in dataclasses.fields(State)}
    return State(**{**empty, "step": jnp.int32(step), "params": {"w": jnp.full((300,), float(step))}})


@pytest.mark.parametrize(("what", "count"), amounts(["checkpoints"]))
def test_checkpoints(tmp_path, what, count):
    """Any file of the newest: it is read as it was, the one before is, or a message says what is damaged."""
    original, place = tmp_path / "original", tmp_path / "run"
    checkpoints = Checkpoints(original, keep=2)
    for step in (1, 2):
        checkpoints.save(state_at(step), Stream(), Best(1, 0.5))
    checkpoints.close()
    inside = (original / "checkpoints" / "2").rglob("*")
    names = sorted(p.relative_to(original) for p in inside if p.is_file() and p.stat().st_size)
    rng = np.random.default_rng(8)
    found = []
    for seed in range(count):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(original, place)
        name = names[rng.integers(len(names))]
        [content] = damaged((place / name).read_bytes(), 1, seed) if seed % 2 else [(place / name).read_bytes()[:7]]
        (place / name).write_bytes(content)

        def read():
            opened = Checkpoints(place, keep=2)
            step = opened.latest()
            state, best = opened.restore(step, state_at(0))
            opened.close()
            assert best == Best(1, 0.5) and int(state.step) == step and (state.params["w"] == step).all()
            found.append(step)

        refused(read)
    assert set(found) == {1, 2}


@pytest.mark.parametrize(("what", "count"), amounts(["config.json"]))
def test_configurations(tmp_path, what, count):
    path = tmp_path / "config.json"
    path.write_text(configuration.to_json(recipes.find("supervised").default_config()))
    assert any(try_all(path, lambda: workdir.read_config(path), count, seed=9))


OTHERS = (None, -1, 0, 2.5, 1e308, float("nan"), "", "os:system", "<b>", [], {}, {"name": "x"}, True, [3], 10**6)


@pytest.mark.parametrize(("what", "count"), amounts(["any value"]))
def test_any_value_in_the_place_of_any_other_of_a_stored_configuration(tmp_path, what, count):
    path, rng = tmp_path / "config.json", np.random.default_rng(10)
    original = configuration.to_json(recipes.find("supervised").default_config())
    for _ in range(count):
        values = json.loads(original)
        places = list(_places(values))
        parent, key = places[rng.integers(len(places))]
        parent[key] = OTHERS[rng.integers(len(OTHERS))]
        path.write_text(json.dumps(values))
        refused(lambda: workdir.read_config(path))


def _places(value) -> Iterator[tuple]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
