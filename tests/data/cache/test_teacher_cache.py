"""The cache's files: interrupted anywhere, shared by processes, looked up in batches, stored in each type."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import types
from zlib import crc32 as zlib_crc32

import ml_dtypes
import numpy as np
import pytest

from emokd.data.cache import description
from emokd.data.cache import reader as teacher_cache
from emokd.data.cache import writer as cache_writer
from emokd.data.cache.reader import CENTRE, TeacherCache, differences, long_ids
from emokd.data.examples import Examples
from emokd.errors import InputError

WIDTHS = {"one": 3, "two": 2}
ROWS, BATCH = 23, 4


def make_key(views=2, dtype="float32", teachers=WIDTHS):
    return {"teachers": {name: {"weights": f"{name} (sha256 0)"} for name in teachers}, "views": views, "dtype": dtype}


def make_features(plan, seed=0):
    """Features of all rows, [N, V + 1, D]."""
    return np.random.default_rng(seed).normal(size=(plan.rows, *plan.row_shape)).astype(plan.dtype)


def make_ids(rows=ROWS):
    ids = np.random.default_rng(1).choice(2**32, rows, replace=False).astype(np.uint32)
    return ids[np.argsort(ids)], np.arange(rows, dtype=np.uint32)


def write(folder, plan, process=0, processes=1, finish=True):
    """What a process does, with features that are there already."""
    if cache_writer.is_finished(folder, plan.key):
        return
    features = make_features(plan)
    plan = cache_writer.begin(folder, plan)
    for part in cache_writer.missing_parts(folder, plan):
        if part % processes == process:
            rows = plan.rows_of(part)
            cache_writer.write_part(folder, plan, part, features[rows.start : rows.stop])
    if finish:
        cache_writer.finish(folder, plan, long_ids(*make_ids(plan.rows)))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def plan():
    return cache_writer.create_plan(make_key(), WIDTHS, ROWS, BATCH)


@pytest.fixture
def whole(tmp_path_factory, plan):
    """What is in the folder of a cache that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, plan)
    found = contents(folder)
    assert found.keys() == {"cache.json", "index.npy", "features.npy"}
    return found


def make_batch(rows, views, mask=None):
    ids, checks = make_ids()
    return {
        "id": ids[rows],
        "check": checks[rows],
        "view": np.asarray(views, np.int32),
        "mask": np.ones(len(rows), bool) if mask is None else np.asarray(mask),
    }


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 24), ("float16", 11), ("bfloat16", 8)])
def test_what_is_read_is_what_was_written(tmp_path, dtype, bits):
    plan = cache_writer.create_plan(make_key(dtype=dtype), WIDTHS, ROWS, BATCH)
    write(tmp_path, plan)
    rows, views = [5, 0, 22, 5], [1, 0, CENTRE, CENTRE]
    found = TeacherCache(tmp_path, make_key(dtype=dtype)).attach(make_batch(rows, views))
    exact = np.random.default_rng(0).normal(size=(ROWS, 3, 5))[rows, [1, 0, 2, 2]]
    for name, columns in (("one", slice(0, 3)), ("two", slice(3, 5))):
        values = found[f"features/{name}"]
        assert values.dtype == {"bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype)
        np.testing.assert_allclose(values.astype(np.float64), exact[:, columns], rtol=2.0**-bits)


def test_a_run_with_fewer_teachers_reads_its_own(tmp_path, plan):
    write(tmp_path, plan)
    found = TeacherCache(tmp_path, make_key(teachers=["two"])).attach(make_batch([7], [0]))
    assert [name for name in found if name.startswith("features/")] == ["features/two"]
    np.testing.assert_array_equal(found["features/two"], make_features(plan)[[7], 0, 3:])


def test_padding_may_have_any_id_but_an_unknown_example_is_an_error(tmp_path, plan):
    write(tmp_path, plan)
    cache = TeacherCache(tmp_path, make_key())
    batch = make_batch([1, 2], [0, 0], mask=[True, False])
    batch["id"][1] = 7
    np.testing.assert_array_equal(cache.attach(batch)["features/one"][0], make_features(plan)[1, 0, :3])
    with pytest.raises(InputError, match="lacks examples of this run"):
        cache.attach({**batch, "mask": np.ones(2, bool)})


def test_examples_of_the_same_id_are_told_apart(tmp_path, plan):
    ids, checks = np.full(ROWS, 9, np.uint32), np.arange(100, 100 + ROWS, dtype=np.uint32)
    write(tmp_path, plan, finish=False)
    cache_writer.finish(tmp_path, plan, long_ids(ids, checks))
    batch = make_batch([0, 0], [1, 1]) | {"id": ids[:2], "check": checks[[20, 3]]}
    found = TeacherCache(tmp_path, make_key()).attach(batch)["features/one"]
    np.testing.assert_array_equal(found, make_features(plan)[[20, 3], 1, :3])


def test_keys_that_share_an_id_have_other_checks():
    """Two keys found by search; a set of 100,000 pictures is likely to have such a pair."""
    seen, i = {}, 0
    while True:
        key = f"pictures/{i}.jpg"
        one = make_examples([key]).ids[0]
        if one in seen:
            break
        seen[one], i = key, i + 1
    pair = make_examples([seen[one], key])
    assert pair.ids[0] == pair.ids[1] and pair.checks[0] != pair.checks[1]


def make_examples(keys):
    return Examples("set", keys, {}, {}, {}, content=keys.__getitem__)


# Runs in a process of its own, without JAX, so that it may fork. Every child writes the cache and kills itself before
# its k-th change of a file; the next one goes on where it was. `step` changes are what each may make.
KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[3:]
import test_teacher_cache as tests
from emokd.data.cache import writer as cache_writer

folder, step = pathlib.Path(sys.argv[1]), int(sys.argv[2])
plan = cache_writer.create_plan(tests.make_key(), tests.WIDTHS, tests.ROWS, tests.BATCH)

def changes(event, arguments):
    if event == "open":
        return arguments[2] & (os.O_WRONLY | os.O_RDWR)
    return event in ("os.rename", "os.remove", "os.truncate")

def write_and_die():
    seen = [0]
    def watch(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.truncate") and str(folder) in str(arguments[0]):
            seen[0] += bool(changes(event, arguments))
            if seen[0] > step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    tests.write(folder, plan)
    os._exit(0)

for kills in range(100):
    child = os.fork()
    if child == 0:
        write_and_die()
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        print(kills)
        sys.exit(os.WEXITSTATUS(status))
sys.exit("no progress")
"""


@pytest.mark.parametrize("step", [4, 5, 6, 7, 11])
def test_killed_again_and_again_it_ends_as_if_it_had_never_been(tmp_path, whole, step):
    """The last two files need four changes within one life."""
    root = pathlib.Path(__file__).parents[3]
    here = pathlib.Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(step), str(root), str(here)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    found = contents(tmp_path / "killed")
    found.pop("unfinished.json", None)  # when the last change of all was too many
    assert found == whole


def test_a_copy_that_stopped_halfway_is_made_again(tmp_path, plan, whole):
    """All parts are there, two are joined, and half of the third, before anything of it was removed."""
    write(tmp_path, plan, finish=False)
    third = (tmp_path / "part-00002.bin").read_bytes()
    header = whole["features.npy"][: -plan.rows * plan.row_bytes]
    joined = header + (tmp_path / "part-00000.bin").read_bytes() + (tmp_path / "part-00001.bin").read_bytes()
    (tmp_path / "features.partial").write_bytes(joined + third[: len(third) // 2])
    for part in (0, 1):
        (tmp_path / f"part-{part:05d}.bin").unlink()
    assert cache_writer.missing_parts(tmp_path, plan) == []
    write(tmp_path, plan)
    assert contents(tmp_path) == whole


def test_a_part_that_is_too_short_is_written_again(tmp_path, plan, whole):
    write(tmp_path, plan, finish=False)
    os.truncate(tmp_path / "part-00003.bin", 7)
    assert cache_writer.missing_parts(tmp_path, plan) == [3]
    write(tmp_path, plan)
    assert contents(tmp_path) == whole


def test_processes_share_the_parts_and_their_number_may_change(tmp_path, plan, whole):
    begun = cache_writer.begin(tmp_path, plan)
    assert begun.parts == 6
    write(tmp_path, plan, 1, 2, finish=False)
    assert cache_writer.missing_parts(tmp_path, plan) == [0, 2, 4]
    write(tmp_path, plan, 0, 3, finish=False)
    assert cache_writer.missing_parts(tmp_path, plan) == [2, 4]
    with pytest.raises(ValueError, match="lacks the parts 2, 4"):
        cache_writer.finish(tmp_path, plan, long_ids(*make_ids()))
    write(tmp_path, plan, 0, 2, finish=False)
    write(tmp_path, plan)
    assert contents(tmp_path) == whole


def test_another_batch_size_goes_on_with_the_parts_of_the_first(tmp_path, plan, whole):
    write(tmp_path, plan, 0, 2, finish=False)
    write(tmp_path, cache_writer.create_plan(make_key(), WIDTHS, ROWS, BATCH + 3))
    assert contents(tmp_path) == whole


def test_there_are_no_more_than_a_thousand_parts():
    plan = cache_writer.create_plan(make_key(), WIDTHS, 400_001, 64)
    assert plan.parts <= 1000 and plan.rows_per_part == 7 * 64
    rows = [row for part in range(plan.parts) for row in plan.rows_of(part)]
    assert rows == list(range(400_001))


def test_an_unfinished_cache_of_another_key_is_refused(tmp_path, plan):
    cache_writer.begin(tmp_path, plan)
    other = cache_writer.create_plan(make_key(teachers=["one"]), {"one": 3}, ROWS, BATCH)
    with pytest.raises(InputError, match=r"unfinished .* another key \(teachers.two .* now absent\)"):
        cache_writer.begin(tmp_path, other)


def test_a_finished_cache_says_so_and_refuses_another_key(tmp_path, plan):
    assert not cache_writer.is_finished(tmp_path, plan.key)
    write(tmp_path, plan)
    assert cache_writer.is_finished(tmp_path, plan.key)
    with pytest.raises(InputError, match=r"another key \(dtype \(was float32, now float16\)\)"):
        cache_writer.is_finished(tmp_path, make_key(dtype="float16"))


def test_a_disk_with_too_little_room_is_refused_before_anything_is_written(tmp_path, plan, monkeypatch):
    """23 rows of 15 float32 and one part of 4 more: 1620 bytes, in which the second half is less than a part."""
    needed = (ROWS + BATCH) * 15 * 4
    free = [needed - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free[0]))
    with pytest.raises(InputError, match="needs another 1.6 kB in .*, but only 1.6 kB are free. Make room"):
        cache_writer.begin(tmp_path, plan)
    assert not list(tmp_path.iterdir())
    free[0] = needed
    write(tmp_path, plan, 0, 2, finish=False)  # parts 0, 2, 4; what is left are the 11 rows of the others
    free[0] = (4 + 4 + 3 + BATCH) * 15 * 4 - 1
    with pytest.raises(InputError, match="Make room"):
        cache_writer.begin(tmp_path, plan)
    free[0] += 1
    write(tmp_path, plan)


def test_a_folder_without_a_finished_cache_is_an_error(tmp_path, plan):
    write(tmp_path, plan, finish=False)
    with pytest.raises(InputError, match="no finished teacher cache. Make it with python -m emokd.cache_teachers"):
        TeacherCache(tmp_path, make_key())


def read_all(folder):
    """What a run reads of the whole cache."""
    cache = TeacherCache(folder, make_key())
    return [cache.attach(make_batch(list(range(ROWS)), [view] * ROWS)) for view in (0, 1, CENTRE)]


def change(path, edit):
    path.write_bytes(bytes(edit(bytearray(path.read_bytes()))))


def flip_last(content):
    content[-3] ^= 1
    return content


DAMAGES = {
    "cut": lambda content: content[:300],
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros at the end": lambda content: content[:-40] + bytes(40),
    "a bit": flip_last,
    "longer": lambda content: content + b" 1",
    "brackets": lambda content: content[:11] + b"(" * 40 + content[51:],
    "all brackets": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize("name", ["features.npy", "index.npy", "cache.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_noticed_before_it_is_used(tmp_path, plan, name, damage):
    write(tmp_path, plan)
    read_all(tmp_path)
    change(tmp_path / name, DAMAGES[damage])
    with pytest.raises(InputError, match="is damaged .*; make it again in another folder"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", '{"key": 3}', '{"key": {"views": 2}}', '{"key": {}, "widths": {"one": 3}}'),
        '{"key": {"views": 2}, "widths": {"one": 3}, "blocks": {"bytes": 5}}',
    ],
)
def test_a_description_that_lacks_something_is_damage(tmp_path, plan, text):
    write(tmp_path, plan)
    (tmp_path / "cache.json").write_text(text)
    with pytest.raises(InputError, match="is damaged"):
        read_all(tmp_path)
    with pytest.raises(InputError, match=r"is damaged|another key"):
        cache_writer.is_finished(tmp_path, plan.key)


@pytest.mark.parametrize("name", ["features.npy", "index.npy"])
def test_a_file_that_is_gone_is_damage(tmp_path, plan, name):
    write(tmp_path, plan)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"is damaged .{name} cannot be read"):
        read_all(tmp_path)


def test_a_damaged_plan_is_refused(tmp_path, plan):
    write(tmp_path, plan, finish=False)
    for text in ("{", '{"key": {}}', "3"):
        (tmp_path / "unfinished.json").write_text(text)
        with pytest.raises(InputError, match=r"is damaged|another key"):
            cache_writer.begin(tmp_path, plan)


def test_only_the_blocks_that_are_read_are_compared_and_each_once(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(description, "BLOCK", 128)  # two rows of 60 bytes, or a part of them
    write(tmp_path, plan)
    change(tmp_path / "features.npy", flip_last)
    cache = TeacherCache(tmp_path, make_key())
    counted = []
    monkeypatch.setattr(description.zlib, "crc32", lambda block: counted.append(1) or zlib_crc32(block))
    for _ in range(2):
        np.testing.assert_array_equal(
            cache.attach(make_batch([3], [0]))["features/one"], make_features(plan)[[3], 0, :3]
        )
        assert 1 <= len(counted) <= 3
    with pytest.raises(InputError, match="features.npy is not what was written, about byte 1,[0-9]+"):
        cache.attach(make_batch([ROWS - 1], [0]))


def test_a_cache_without_checksums_is_read(tmp_path, plan):
    write(tmp_path, plan)
    content = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({name: content[name] for name in ("key", "widths")}))
    np.testing.assert_array_equal(read_all(tmp_path)[0]["features/two"], make_features(plan)[:, 0, 3:])


def test_differences_name_the_key_and_both_values():
    stored = {"teachers": {"one": {"weights": "a"}, "two": {"weights": "b"}}, "views": 2, "canvas": 8}
    assert differences(stored, {"teachers": {"two": {"weights": "b"}}, "views": 2}) == []
    assert differences(stored, {"teachers": {"one": {"weights": "c"}}, "views": 3, "fit": "pad"}) == [
        "teachers.one.weights (was a, now c)",
        "views (was 2, now 3)",
        "fit (was absent, now pad)",
    ]


@pytest.mark.parametrize(
    ("name", "message"), [("bfloat61", "Did you mean 'bfloat16'"), ("int8", "Choose one of float32, float16, bfloat16")]
)
def test_other_types_are_refused(name, message):
    with pytest.raises(InputError, match=f"config.cache.dtype is '{name}'.*{message}"):
        teacher_cache.check_dtype(name)
