"""SMKD as a whole run: interruptions, unlabelled pictures, and that each phase compiles once."""

import contextlib
import dataclasses
import json
import pathlib

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image
from scipy import special
from small_jobs import SIZE
from smkd_jobs_setup import STEPS, make_job_config, make_teacher, save_teachers

from emokd.benchmarking.compilations import count_compilations
from emokd.configuration import defaults
from emokd.data.augment import Augmentation
from emokd.jobs import job
from emokd.models.network import functional
from emokd.recipes.common import views
from emokd.reporting.metrics_log import read_metrics
from emokd.reporting.progress import Progress
from emokd.training import loop
from emokd.training.programs import PhaseStep, Programs
from emokd.training.state import State

PHASES = ("probe", "distill", "classify", "finetune")
DECAY = 0.7
WIDTH = 16


class Killed(Exception):
    """Stands for the power cut."""


def run(config, workdir, shared):
    workdir.mkdir(exist_ok=True)
    state, scores = loop.train(job.create_job(config, None, shared), workdir)
    return jax.device_get(dataclasses.replace(state, key=jax.random.key_data(state.key))), scores


def kill_at(monkeypatch, phase, step):
    """Raises when the run has taken this step of this phase, before anything is written about it."""
    place = []
    begin, count = Progress.begin, Progress.step

    def begun(self, name, done=0):
        place[:] = name, done
        begin(self, name, done)

    def counted(self, **options):
        place[1] += 1
        if place == [phase, step]:
            raise Killed
        count(self, **options)

    monkeypatch.setattr(Progress, "begin", begun)
    monkeypatch.setattr(Progress, "step", counted)


@dataclasses.dataclass
class Watched:
    """XLA's compilations while a phase's step is asked for and in each step taken; the batches by phase."""

    asked: list = dataclasses.field(default_factory=list)
    taken: list = dataclasses.field(default_factory=list)
    batches: dict = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def watch_steps():
    watched, ask, take = Watched(), Programs.step, PhaseStep.__call__
    with pytest.MonkeyPatch.context() as patch, count_compilations() as compiled:

        def asked(self, *args):
            before = len(compiled)
            step = ask(self, *args)
            watched.asked.append(len(compiled) - before)
            return step

        def taken(self, leaves, constants, batch):
            before = len(compiled)
            result = take(self, leaves, constants, batch)
            watched.taken.append(len(compiled) - before)
            watched.batches.setdefault(id(self), []).append(batch)
            return result

        patch.setattr(Programs, "step", asked)
        patch.setattr(PhaseStep, "__call__", taken)
        yield watched


def paint_folder(folder, count):
    """Class folders of noise: their labels are to be ignored."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path)
    return str(folder)


@dataclasses.dataclass(frozen=True)
class Finished:
    config: ml_collections.ConfigDict
    models: dict
    shared: dict
    job: loop.Job
    workdir: pathlib.Path
    state: State
    scores: dict
    watched: Watched
    batches: dict


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts: unlabelled pictures, dropout, a teacher that learns, weights with a memory."""
    folder = tmp_path_factory.mktemp("whole")
    models = {"one": make_teacher(1, WIDTH), "two": make_teacher(2, WIDTH)}
    config = make_job_config(save_teachers(folder, models))
    config.evaluation = defaults.every(steps=2)
    config.student.options.width = WIDTH
    config.student.dropout = 0.2
    config.teachers.two.tuning = "full"
    config.data.extra.update({"source": "image_folder", "dir": paint_folder(folder / "pictures", 8)})
    labelled = {"name": "relevance", "temperature": 0.5}
    config.weighting = (
        {"name": "where_unlabelled", "labelled": labelled, "unlabelled": "ebkd"},
        {"name": "smooth", "decay": DECAY},
    )
    shared = {}
    with watch_steps() as watched:
        state, scores = run(config, folder / "run", shared)
    batches = dict(zip(PHASES, jax.device_get(list(watched.batches.values())), strict=True))
    made = job.create_job(config, None, shared)
    return Finished(config, models, shared, made, folder / "run", state, scores, watched, batches)


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def logged(workdir):
    """What the log says of a run, but for times and memory."""
    vary = {"time", "examples_per_second_per_device", "data_wait_share", "host_peak_bytes"}
    rows = [row for row in read_metrics(workdir) if "compile_seconds" not in row]
    return [{name: value for name, value in row.items() if name not in vary} for row in rows]


def last_iterator(workdir):
    (stored,) = (workdir / "checkpoints" / str(4 * STEPS) / "data").glob("process_0-of-*.json")
    return json.loads(stored.read_text())


@pytest.mark.slow
def test_a_run_killed_three_times_in_each_phase_ends_bit_for_bit_as_without(whole, tmp_path, monkeypatch):
    rng = np.random.default_rng(7)
    places = [(p, s) for p in PHASES for s in sorted(rng.choice(np.arange(1, STEPS + 1), 3, replace=False).tolist())]
    with watch_steps() as watched:
        for phase, step in places:
            with monkeypatch.context() as patch:
                kill_at(patch, phase, step)
                with pytest.raises(Killed):
                    run(whole.config, tmp_path / "run", whole.shared)
        state, scores = run(whole.config, tmp_path / "run", whole.shared)
    assert sum(watched.asked) == sum(watched.taken) == 0
    for part in dataclasses.fields(state):
        assert_same(getattr(state, part.name), getattr(whole.state, part.name))
    assert scores == whole.scores
    assert logged(tmp_path / "run") == logged(whole.workdir)
    assert last_iterator(tmp_path / "run") == last_iterator(whole.workdir) == {"next_index": STEPS}


def test_the_uninterrupted_run_moves_all_that_a_resumption_must_restore(whole):
    fresh = whole.job.programs.create(jax.random.key(whole.config.seed))
    for before, after in ((fresh.params, whole.state.params), (fresh.stats, whole.state.stats)):
        moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), before, after)
        for model in moved.get("teachers", {}).values():
            model.pop("heads", None)  # of the teacher's own task, which nobody asks
        assert all(jax.tree.leaves(moved)), moved
    smooth = whole.state.weighting[-1]
    assert smooth.batches == STEPS and np.ptp(smooth.average) > 1e-3
    states = whole.state.optimizer.inner_states
    counts = {group: [leaf for leaf in jax.tree.leaves(states[group]) if leaf.dtype == np.int32] for group in states}
    expected = {"student_backbone": 2, "student_head": 2, "adapters": 1, "probes": 1, "teacher_two": 1}
    assert counts == {group: [phases * STEPS] for group, phases in expected.items()}


def test_a_whole_run_compiles_the_step_of_each_phase_once(whole):
    assert whole.watched.asked == [1] * len(PHASES)
    assert whole.watched.taken == [0] * (len(PHASES) * STEPS)


def joined(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def test_the_distill_phase_alone_reads_the_extra_pictures(whole):
    labelled, extra = whole.job.splits["train"].ids.tolist(), whole.job.extra.ids.tolist()
    assert len(labelled) == 21 and len(extra) == 8
    for phase, batches in whole.batches.items():
        expected = labelled + extra if phase == "distill" else labelled
        ids = joined(batches, "id").tolist()
        assert len(ids) == STEPS * whole.config.batch_size and set(ids) == set(expected)
        assert sorted(ids[: len(expected)]) == sorted(expected)  # an epoch


def test_extra_pictures_have_no_labels_although_their_folders_have(whole):
    extra, batches = whole.job.extra, whole.batches["distill"]
    assert sorted(extra.columns["expression"].tolist()) == [0] * 4 + [1] * 4
    place = {id_: i for i, id_ in enumerate(extra.ids.tolist())}
    columns = [joined(batches, name) for name in ("id", "expression", "image")]
    for id_, label, image in zip(*columns, strict=True):
        assert (label == -1) == (int(id_) in place)
        if label == -1:
            np.testing.assert_array_equal(image, extra.inputs["image"](place[int(id_)]))
    assert joined(batches, "mask").all()


def teachers_answers(whole, batches):
    """Logits of the probed teachers on the batches' augmented views, each batch's [B, K, C], in float64."""
    params, stats = whole.state.params, whole.state.stats
    one, augmentation = whole.models["one"], Augmentation(**whole.config.data.augment)
    weights = {
        "one": (one.params, one.stats),
        "two": (params["teachers"]["two"], stats["teachers"]["two"]),
    }

    @jax.jit
    def features(batch):
        view = views.create_views(batch, augmentation, whole.config.data.view_seed)
        specs = {name: model.spec for name, model in whole.models.items()}
        return {n: functional(s)(*weights[n], views.see(s, batch, view))[0].features for n, s in specs.items()}

    for found in [jax.device_get(features(batch)) for batch in batches]:
        scales, probes = stats["standardizer"], params["probes"]
        z = {name: (f.astype(np.float64) - scales[name]["mean"]) / scales[name]["std"] for name, f in found.items()}
        yield np.stack([z[n] @ probes[n]["kernel"] + probes[n]["bias"] for n in ("one", "two")], 1)


def row_weights(logits, labels):
    """Relevance at temperature 0.5 where there is a label, EBKD where there is none."""
    log_p = special.log_softmax(logits, -1)
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    by_entropy = 1 - entropy / entropy.sum(-1, keepdims=True)
    given = np.take_along_axis(log_p, np.maximum(labels, 0)[:, None, None], -1)[..., 0]
    return np.where((labels < 0)[:, None], by_entropy, special.softmax(given / 0.5, -1))


def test_unlabelled_rows_are_weighed_by_entropy_and_labelled_ones_by_relevance(whole):
    batches, average, expected = whole.batches["distill"], np.zeros(2), []
    for turn, (logits, batch) in enumerate(zip(teachers_answers(whole, batches), batches, strict=True)):
        kept = DECAY * (1 - DECAY**turn) / (1 - DECAY ** (turn + 1))
        expected.append(kept * average + (1 - kept) * row_weights(logits, batch["expression"]))
        average = expected[-1].mean(0)
    expected, labels = np.concatenate(expected), joined(batches, "expression")
    np.testing.assert_allclose(whole.state.weighting[-1].average, average, rtol=1e-4)
    assert set(whole.scores["weights"]) == {"distill"}
    by_class = whole.scores["weights"]["distill"]["by_class"]
    names = [*whole.job.splits["train"].classes["expression"], "unlabelled"]
    assert set(by_class) == {names[label] for label in labels}
    for label in np.unique(labels):
        found = by_class[names[label]]
        np.testing.assert_allclose([found["one"], found["two"]], expected[labels == label].mean(0), rtol=1e-4)
    assert np.ptp(expected[labels == -1]) > 0.01
