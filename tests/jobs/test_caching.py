"""Cached teachers against live ones; what makes a cache stale; caches that are interrupted or shared by processes."""

import itertools
import json
import shutil
import zipfile

import jax
import numpy as np
import pytest
from absl import logging
from cached_jobs import SIZE, make_config, no_training, save_teacher
from PIL import Image

from emokd.configuration import config as configuration
from emokd.data.cache import writer as cache_writer
from emokd.data.painter.state import EXPRESSIONS
from emokd.errors import InputError
from emokd.jobs import caching, datasets, job
from emokd.phase import Context
from emokd.recipes import bounded, smkd
from emokd.reporting.metrics_log import read_metrics
from emokd.training.sharding import create_mesh
from emokd.training.streams import Streams
from emokd.weights import model_folder


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return {name: save_teacher(folder / name, seed) for seed, name in enumerate(("one", "two"))}


def write(config, folder):
    return job.write_cache(config, folder, no_training)


@pytest.fixture(scope="module")
def written(tmp_path_factory, teachers):
    """A finished cache of SMKD, its configuration and what it says of itself."""
    folder = tmp_path_factory.mktemp("cache") / "whole"
    config = make_config(smkd, teachers)
    return config, folder, write(config, folder)


def batches_of(config, made):
    """A batch of each of the first three epochs, which are views 0, 1 and 0, and one of the evaluation view."""
    streams = Streams(config, create_mesh(config.devices), made.attach)
    training = list(itertools.islice(streams.training(made.splits["train"], (), 0), 7))[::3]
    return [*training, next(streams.evaluation(made.splits["test"]))]


@pytest.mark.parametrize(
    ("recipe", "dtype", "tolerance"),
    [
        (smkd, "float16", 5e-3),
        pytest.param(smkd, "bfloat16", 4e-2, marks=pytest.mark.slow),
        pytest.param(bounded, "float32", 1e-4, marks=pytest.mark.slow),
        pytest.param(bounded, "float16", 5e-3, marks=pytest.mark.slow),
    ],
)
def test_losses_and_scores_with_cached_teachers_are_those_with_live_ones(teachers, tmp_path, recipe, dtype, tolerance):
    """With crops, flips and all colours: what a phase says of a batch, and what the teachers are scored on.

    Parameters are random throughout, so that probes and adapters matter.
    """
    changes = {"cache.dtype": dtype} | ({"mirror": True} if recipe is bounded else {})
    config = make_config(recipe, teachers, **changes)
    write(config, tmp_path)
    live = job.create_job(config, no_training)
    cached = job.create_job(configuration.locked(config, {"cache.dir": str(tmp_path)}), no_training)
    params, stats = live.recipe.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten(
        [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )
    weights = (params, stats, live.recipe.constants)
    pairs = list(zip(batches_of(config, live), batches_of(config, cached), strict=True))
    assert [set(np.asarray(batch["view"]).tolist()) for batch, _ in pairs] == [{0}, {1}, {0}, {-1}]
    answers = []
    for phase in live.recipe.phases:
        if phase.name in ("probe", "distill"):
            compute = jax.jit(phase.objective)
            for ours, theirs in pairs[:3]:
                assert ours.keys() == theirs.keys() - {"features/one", "features/two"}
                answers.append([compute(*weights, batch, Context(jax.random.key(2))) for batch in (ours, theirs)])
    predict = jax.jit(live.recipe.predict)
    answers.append([predict(*weights, batch) for batch in pairs[3]])
    for by_live, by_cache in answers:
        for ours, theirs in zip(jax.tree.leaves(by_live), jax.tree.leaves(by_cache), strict=True):
            scale = np.abs(np.asarray(ours, np.float64)).max()
            np.testing.assert_allclose(theirs, ours, rtol=tolerance, atol=tolerance * max(scale, 1e-3))
    if dtype != "float32":  # the cache was read
        leaves = zip(*map(jax.tree.leaves, answers[0]), strict=True)
        assert any((np.asarray(ours) != np.asarray(theirs)).any() for ours, theirs in leaves)


@pytest.mark.slow
def test_a_run_with_cached_teachers_is_that_with_live_ones(teachers, tmp_path):
    live = make_config(smkd, teachers, **{"cache.dtype": "float32"})
    size = write(live, tmp_path / "cache")["bytes"]
    assert size == 44 * 3 * 2 * 24 * 4
    assert size == (tmp_path / "cache" / "features.npy").stat().st_size - 128  # NumPy's header
    job.train(live, tmp_path / "live", report=False)
    job.train(configuration.locked(live, {"cache.dir": str(tmp_path / "cache")}), tmp_path / "cached", report=False)
    losses = [[row["loss"] for row in read_metrics(tmp_path / n) if "loss" in row] for n in ("live", "cached")]
    assert len(losses[0]) == 8
    np.testing.assert_allclose(*losses, rtol=1e-4)
    ours, theirs = (json.loads((tmp_path / n / "scores.json").read_text())["teachers"] for n in ("live", "cached"))
    for name in ("one", "two"):
        assert theirs[name]["expression"]["nll"] == pytest.approx(ours[name]["expression"]["nll"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teachers.one.checkpoint": "OTHER"},
            r"teachers.one.weights \(was one \(sha256 \w+\), now other \(sha256 \w+",
        ),
        (
            {"teachers.one.checkpoint": "OPTIONS"},
            r"since it was made: teachers.one.network.options.size \(was 16, now 20\)\.",
        ),
        ({"precision": "bfloat16"}, r"since it was made: precision \(was float32, now bfloat16\)\."),
        ({"teachers.two.size": 20}, r"teachers.two.preprocessing.size \(was 16, now 20\)"),
        ({"data.options.seed": 1}, r"examples.labelled.names \(was 44 \(\w+\), now 44 \(\w+\)\)"),
        ({"data.options.train": 25}, r"examples.labelled.names \(was 44 \(\w+\), now 45 \(\w+\)\)"),
        (
            {"data.options.size": 32},
            r"labelled.pixels \(was \w+, now \w+\), examples.labelled.pictures.\S+ \(was \w{8}, now \w{8}\), .* more",
        ),
        ({"data.canvas": 20}, r"canvas \(was 16, now 20\)"),
        ({"data.fit": "pad"}, r"fit \(was crop, now pad\)"),
        ({"data.augment.flip": 0.1}, r"since it was made: augment.flip \(was 0.5, now 0.1\)\."),
        ({"data.augment.crop_area": (0.5, 1.0)}, r"augment.crop_area \(was \[0.35, 1.0\], now \[0.5, 1.0\]\)"),
        ({"data.augment.hue": 0.2}, r"augment.hue \(was 0.1, now 0.2\)"),
        ({"data.views": 3}, r"since it was made: views \(was 2, now 3\)\."),
        ({"data.view_seed": 7}, r"since it was made: view_seed \(was 0, now 7\)\."),
        ({"cache.dtype": "bfloat16"}, r"since it was made: dtype \(was float16, now bfloat16\)\."),
        ({"data.extra.source": "painter"}, r"examples.extra \(was absent, now"),
    ],
)
def test_a_stale_cache_is_refused_naming_what_changed(written, tmp_path, changes, message):
    config, folder, _ = written
    if changes == {"teachers.one.checkpoint": "OTHER"}:
        changes = {"teachers.one.checkpoint": save_teacher(tmp_path / "other", 7)}
    if changes == {"teachers.one.checkpoint": "OPTIONS"}:
        changes = {"teachers.one.checkpoint": save_teacher(tmp_path / "one", 0, size=20)}
    if "data.extra.source" in changes:
        changes = {**changes, "data.extra.options": {"size": SIZE, "train": 2, "validation": 0, "test": 0, "seed": 5}}
    stale = configuration.locked(config, {"cache.dir": str(folder), **changes})
    with pytest.raises(InputError, match=rf"The teacher cache .* is stale; .*{message}"):
        job.create_job(stale, no_training)


def make_pictures(folder):
    """Class folders of uncompressed pictures: no two files of one size."""
    for label, name in enumerate(EXPRESSIONS):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            paint_noise(folder / name / f"{i}.bmp", seed=label * 6 + i, side=SIZE + label * 6 + i)


def paint_noise(path, seed, side=SIZE):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)


def pack(folder):
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.rglob("*.bmp")):
            archive.write(path, path.relative_to(folder))


@pytest.mark.parametrize("compare", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_picture_replaced_by_one_of_the_same_size_makes_a_cache_stale_and_is_named(teachers, tmp_path, compare):
    """One whose pixels the key does not hold; in a folder and, of the same bytes, in an archive."""
    folder = tmp_path / "set"
    make_pictures(folder)
    pack(folder)
    config = make_config(smkd, teachers, **{"cache.dir": str(tmp_path / "cache")}).unlock()
    config.data.source, config.data.options, config.data.dir = "image_folder", {}, str(folder)
    config.data.split.compare_copies = compare
    write(config, tmp_path / "cache")
    packed = configuration.locked(config, {"data.dir": f"{folder}.zip"})
    for same in (config, packed):
        job.create_job(same, no_training)
    unseen = caching._pictures(datasets.load_splits(config).values()).keys[2]
    size = (folder / unseen).stat().st_size
    with Image.open(folder / unseen) as picture:
        side = picture.width
    paint_noise(folder / unseen, seed=100, side=side)
    assert (folder / unseen).stat().st_size == size
    pack(folder)
    named = rf"since it was made: examples.labelled.pictures.{unseen} \(was \w+, now \w+\)\. Restore that, or make"
    for changed in (config, packed):
        with pytest.raises(InputError, match=named):
            job.create_job(changed, no_training)
    with pytest.raises(
        InputError, match=rf"another key \(examples.labelled.pictures.{unseen} .*; restore that, or use"
    ):
        write(config, tmp_path / "cache")


def test_a_cache_whose_key_holds_no_contents_is_stale(written, tmp_path):
    """As those that were made before it held them."""
    config, folder, _ = written
    shutil.copytree(folder, tmp_path / "old")
    path = tmp_path / "old" / "cache.json"
    description = json.loads(path.read_text())
    del description["key"]["examples"]["labelled"]["pictures"], description["blocks"], description["sha256"]
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"since it was made: examples.labelled.pictures \(was absent, now there\)\."):
        job.create_job(configuration.locked(config, {"cache.dir": str(tmp_path / "old")}), no_training)


def test_a_teacher_that_the_cache_does_not_have_makes_it_stale(written, teachers, tmp_path):
    _, folder, _ = written
    more = make_config(smkd, {**teachers, "three": teachers["one"]}, **{"cache.dir": str(folder)})
    with pytest.raises(InputError, match=r"teachers.three \(was absent, now"):
        job.create_job(more, no_training)


def test_what_does_not_touch_the_features_leaves_the_cache_as_it_is(written, teachers):
    """Another batch size or student; one teacher less, or one that learns and is therefore asked live."""
    config, folder, _ = written
    changes = {"batch_size": 4, "student.options.width": 3, "seed": 1}
    job.create_job(configuration.locked(config, {"cache.dir": str(folder), **changes}), no_training)
    alone = make_config(smkd, {"two": teachers["two"]}, **{"cache.dir": str(folder)})
    tuned = configuration.locked(config, {"cache.dir": str(folder), "teachers.one.tuning": "full"})
    for less in (alone, tuned):
        made = job.create_job(less, no_training)
        batch = next(Streams(less, create_mesh(1), made.attach).evaluation(made.splits["test"]))
        assert [name for name in batch if name.startswith("features/")] == ["features/two"]


def test_however_the_set_is_split_the_cache_and_its_order_are_the_same(teachers):
    changes = {"data.options.train": 300, "data.split.use_prescribed": False, "data.split.folds": 2}
    config = make_config(smkd, teachers, **changes)
    changed = configuration.locked(config, {"data.split.validation_is_test": True})
    other = configuration.locked(config, {"data.split.fold": 1})
    honest, optimistic, fold = (datasets.load_splits(c) for c in (config, changed, other))
    assert list(optimistic["validation"].keys) == list(optimistic["test"].keys) == list(honest["test"].keys)
    assert list(fold["test"].keys) != list(honest["test"].keys)
    keys = [caching.cache_key(config, {}, parts, None) for parts in (honest, optimistic, fold)]
    assert keys[0] == keys[1] == keys[2]
    orders = [caching._pictures(parts.values()).keys for parts in (honest, optimistic, fold)]
    assert orders[0] == orders[1] == orders[2]


def test_a_cache_needs_a_limited_number_of_views(teachers, tmp_path):
    with pytest.raises(InputError, match="set config.data.views"):
        write(make_config(smkd, teachers, **{"data.views": 0}), tmp_path)


def test_a_type_that_features_are_not_stored_in_is_refused(teachers, tmp_path):
    with pytest.raises(InputError, match=r"config.cache.dtype is 'float61'. Did you mean 'float16'\?"):
        write(make_config(smkd, teachers, **{"cache.dtype": "float61"}), tmp_path)


def test_a_recipe_without_frozen_teachers_has_nothing_to_cache(teachers, tmp_path):
    tuned = {f"teachers.{name}.tuning": "full" for name in teachers}
    with pytest.raises(InputError, match="No teacher of this configuration is frozen"):
        write(make_config(smkd, teachers, **tuned), tmp_path)


def test_features_beyond_the_stored_type_are_refused_naming_the_teacher(teachers, tmp_path):
    spec, params, stats, _ = model_folder.load_model(teachers["two"])
    last = params["backbone"]
    large = jax.tree.map(lambda leaf: leaf * 60 if leaf.ndim > 1 else leaf, last)
    model_folder.save_model(tmp_path / "two", spec, {**params, "backbone": large}, stats, {"source": "test"})
    config = make_config(smkd, {**teachers, "two": str(tmp_path / "two")}, **{"cache.dtype": "float16"})
    with pytest.raises(InputError, match="Features of teacher 'two' are infinite .* Set config.cache.dtype=bfloat16"):
        write(config, tmp_path / "cache")
    write(configuration.locked(config, {"cache.dtype": "bfloat16"}), tmp_path / "larger")


def test_the_size_is_said_before_any_teacher_is_asked(teachers, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *args: said.append(text % args))

    def stop(*arguments):
        raise InterruptedError

    monkeypatch.setattr(caching, "_ask", stop)
    with pytest.raises(InterruptedError):
        write(make_config(smkd, teachers), tmp_path / "cache")
    # 44 examples x 3 views x 48 features x 2 bytes
    assert any("will take 12.7 kB: 3 views of 44 examples by one, two." in line for line in said), said


class Stopped(Exception):
    """Stands for an interruption."""


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_an_interrupted_cache_goes_on_where_it_was(written, tmp_path, monkeypatch, parts):
    config, whole, _ = written
    write_part, done = cache_writer.write_part, []

    def count(folder, plan, part, features):
        write_part(folder, plan, part, features)
        done.append(part)
        if len(done) == parts:
            raise Stopped

    monkeypatch.setattr(cache_writer, "write_part", count)
    with pytest.raises(Stopped):
        write(config, tmp_path)
    write(config, tmp_path)
    assert done == list(range(6))  # 44 examples in batches of 8; none twice
    assert contents(tmp_path) == contents(whole)


def test_a_finished_cache_says_so_and_asks_nobody(written, monkeypatch):
    """Also where a process was killed when all was written but the marker was still there."""
    config, folder, first = written
    before, said = contents(folder), []
    (folder / cache_writer.UNFINISHED).write_text("{}")
    monkeypatch.setattr(logging, "info", lambda text, *args: said.append(text % args))
    monkeypatch.setattr(caching, "_ask", None)
    assert write(config, folder) == first
    assert any("is finished already" in line for line in said)
    assert contents(folder) == before


def test_two_processes_write_what_one_writes(written, tmp_path, monkeypatch):
    """Without real ones: the second does its share, then the first, which makes the cache of the parts."""
    config, whole, _ = written
    mesh = create_mesh(config.devices)
    made = job._create_job(config, no_training, cached=False, shared={})
    monkeypatch.setattr(caching, "create_local_mesh", lambda devices: mesh)
    monkeypatch.setattr(caching, "together", lambda name: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    caching.write_cache(*made, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("part*")) == [f"part-{part:05d}.bin" for part in (1, 3, 5)]
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    caching.write_cache(*made, tmp_path)
    assert contents(tmp_path) == contents(whole)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda x: x, 0),
        (lambda x: x * 1e-2, 0),
        (lambda x: x * np.where(np.arange(6) < 2, 1e-9, 1.0), 2),  # flushed to zero
        (lambda x: x + np.where(np.arange(6) < 2, 3e3, 0.0), 2),  # rounded to multiples of 2
        (lambda x: x * 1e-9, 6),
        (lambda x: x * np.where(np.arange(6) < 5, 0.0, 1.0), 0),  # dead anyway
    ],
)
def test_features_that_float16_rounds_away_are_said_and_refused_where_they_are_most(change, lost, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    x = change(np.random.default_rng(0).standard_normal((50, 6))).astype(np.float32)
    both = np.concatenate([np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32), x], axis=1)
    plan = cache_writer.create_plan({"views": 1, "dtype": "float16"}, {"one": 3, "two": 6}, 50, 50)
    moments = caching._moments(both), caching._moments(both.astype(np.float16).astype(np.float64) - both)
    if lost == 6:
        with pytest.raises(InputError, match=r"6 of 6 features of teacher 'two' .*0, 1, 2.*cache\.dtype=float32"):
            caching._check_rounding(*moments, plan)
    else:
        caching._check_rounding(*moments, plan)
        assert len(said) == (lost > 0)
        assert not said or "2 of 6 features of teacher 'two'" in said[0] and ": 0, 1 (from 0)" in said[0]
