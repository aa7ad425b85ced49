"""SMKD as whole runs: interruptions, unlabelled pictures, what each network sees, and what each phase costs."""

import contextlib
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from PIL import Image
from recipes_setup import build, make_config
from scipy import optimize, special
from small_jobs import SIZE, paint

from emokd import defaults, job
from emokd.benchmarking.compilations import count_compilations
from emokd.benchmarking.program import count_live_macs
from emokd.data.augment import Augmentation, render, sample_views
from emokd.data.pipeline import train_batches
from emokd.models.network import Functional, NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import common, smkd
from emokd.reporting.metrics_log import read_metrics
from emokd.reporting.progress import Progress
from emokd.training import loop
from emokd.training.programs import PhaseStep, Programs
from emokd.training.state import State, create_state
from emokd.training.step import create_train_step, parameter_labels
from emokd.weights import model_folder

PHASES = ("probe", "distill", "classify", "finetune")
CLASSES, STEPS, DECAY = 8, 6, 0.7
WIDTH = 16  # so that networks outweigh the drawing of views


class Killed(Exception):
    """Stands for the power cut."""


def make_teacher(seed, width, size=SIZE, normalisation=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))):
    """A network with random weights whose BatchNorm statistics keep its features alive."""
    spec = NetworkSpec(
        "basic_cnn",
        {"width": width, "size": SIZE},
        {"pretrained": 5},
        preprocessing=Preprocessing(size, *normalisation),
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(lambda s: (0.1 * s + rng.uniform(0.0, 0.1, s.shape)).astype(np.float32), stats)
    return TrainedModel(spec, params, stats, origin=f"random {seed}")


def save_teachers(folder, models):
    for name, model in models.items():
        model_folder.save_model(folder / name, model.spec, model.params, model.stats, {"source": "test"})
    return {name: str(folder / name) for name in models}


def make_job_config(teachers):
    config = paint(smkd.default_config(), steps=STEPS)
    config.devices = 1
    config.data.options.train = 21  # batches run across the ends of epochs
    config.checkpoint.min_seconds = 0.0
    config.select.which = "last"
    for name, folder in teachers.items():
        config.teachers[name] = defaults.teacher(checkpoint=folder)
    return config


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


def first_batch(examples, config):
    stream = train_batches(
        examples, batch_size=config.batch_size, seed=0, canvas=config.data.canvas, fit="crop", num_threads=0
    )
    return jax.tree.map(jnp.asarray, next(stream))


def shortest_mixture(gradients, bound):
    """AEKD's weights by SLSQP in float64, from gradients [K, anything]."""
    rows = np.asarray(gradients, np.float64).reshape(len(gradients), -1)
    gram = rows @ rows.T
    gram = gram / np.trace(gram)
    found = optimize.minimize(
        lambda a: a @ gram @ a / 2,
        np.full(len(gram), 1 / len(gram)),
        jac=lambda a: gram @ a,
        bounds=[(0, bound)] * len(gram),
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


def random_state(recipe, config):
    """A state of the recipe, drawn in NumPy: nothing is compiled."""
    abstract = jax.eval_shape(lambda key: create_state(recipe, config, CLASSES, key), jax.random.key(0))
    rng = np.random.default_rng(3)

    def filled(tree, low, high):
        return jax.tree.map(lambda x: jnp.asarray(rng.uniform(low, high, x.shape), x.dtype), tree)

    ranges = {"params": (-0.4, 0.6), "stats": (0.5, 1.5)}
    names = [part.name for part in dataclasses.fields(abstract) if part.name != "key"]
    parts = {name: filled(getattr(abstract, name), *ranges.get(name, (0, 0))) for name in names}
    return dataclasses.replace(abstract, key=jax.random.key(0), **parts)


def test_aekd_weighs_teachers_by_the_shortest_mixture_of_their_gradients(examples):
    config = make_config()
    models = {name: make_teacher(seed, 2) for seed, name in enumerate(("one", "three", "two"))}
    config.teachers.three = defaults.teacher("basic_cnn", checkpoint="unused")
    config.weighting = ({"name": "aekd", "bound": 0.4},)
    config.optimizer.update({"name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "clip_norm": 0.0})
    config.phases.probe.enabled = False
    config.phases.distill = defaults.phase(steps=1, learning_rate=1.0, warmup_percent=0.0, schedule="constant")
    recipe = build(config, models, examples)
    state = random_state(recipe, config)
    rows = np.arange(config.batch_size) != 2
    batch = {**first_batch(examples, config), "mask": jnp.asarray(rows)}
    spec, counts = recipe.student_spec, jnp.asarray(rows / rows.sum(), jnp.float32)

    def losses(features, adapters, targets):
        """Each teacher's, over the rows that count."""
        maps = [features @ adapters[name]["kernel"] + adapters[name]["bias"][None] for name in sorted(models)]
        return jnp.stack([(((m - z) ** 2).mean(-1) * counts).sum() for m, z in zip(maps, targets, strict=True)])

    twins = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[(models[n].params, models[n].stats) for n in sorted(models)]
    )
    seen, alike = models["one"].spec, functional(models["one"].spec)

    def of_parameters(params, stats, twins, choice):
        view = common.create_views(batch, Augmentation(**config.data.augment), config.data.view_seed)
        pixels = common.see(seen, batch, view)
        found = jax.vmap(lambda weights: alike(*weights, pixels)[0].features)(twins)
        scales = [stats["standardizer"][name] for name in sorted(models)]
        targets = [(z - s["mean"][None]) / s["std"][None] for z, s in zip(found, scales, strict=True)]
        pixels = common.see(spec, batch, view)
        features = functional(spec)(params["student"], stats["student"], pixels, train=True)[0].features
        return (losses(features, params["adapters"], targets) * choice).sum(), (features, targets)

    gradient, choices = jax.jit(jax.grad(of_parameters, has_aux=True)), np.eye(3, dtype=np.float32)
    found = [gradient(state.params, state.stats, twins, choice) for choice in choices]
    by_parameters, ((features, targets), *_) = zip(*found, strict=True)
    by_features = [
        jax.grad(lambda f, choice: (losses(f, state.params["adapters"], targets) * choice).sum())(features, choice)
        for choice in choices
    ]
    expected = shortest_mixture(by_features, 0.4)
    assert np.isclose(expected, 0.4).any() and np.ptp(expected) > 0.01

    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    after, metrics = step(state, recipe.constants, batch, phase=0)
    np.testing.assert_allclose([metrics[f"weight/{name}"] for name in sorted(models)], expected, atol=1e-4)
    taken = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, after.params)
    mixed = jax.tree.map(lambda *g: np.tensordot(expected, np.stack(g), 1), *by_parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), taken, mixed)
    assert all(map(np.any, jax.tree.leaves((taken["student"]["backbone"], taken["adapters"]))))
    assert not any(map(np.any, jax.tree.leaves((taken["student"]["heads"], taken["probes"]))))
    labels = np.asarray(batch["expression"])[rows]
    np.testing.assert_array_equal(after.tally["rows"], [*np.bincount(labels, minlength=CLASSES), 0])
    np.testing.assert_allclose(after.tally["weights"], after.tally["rows"][:, None] * expected[None], atol=5e-4)


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
        view = common.create_views(batch, augmentation, whole.config.data.view_seed)
        specs = {name: model.spec for name, model in whole.models.items()}
        return {n: functional(s)(*weights[n], common.see(s, batch, view))[0].features for n, s in specs.items()}

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


resize = jax.jit(jax.image.scale_and_translate, static_argnums=(1, 2, 5))


def look(image, view, row, size):
    """A picture in a view at a size: JAX's own resize, then colours as torchvision defines them, in float64."""
    top, left, height, width = np.asarray(view.box[row], np.float64)
    scale = size / (np.array([height, width]) * image.shape[:2])
    pixels = resize(
        image / np.float32(255),
        (size, size, 3),
        (0, 1),
        jnp.asarray(scale, jnp.float32),
        jnp.asarray(-np.array([top, left]) * image.shape[:2] * scale, jnp.float32),
        "linear",
    )
    pixels = np.clip(np.asarray(pixels, np.float64), 0, 1)
    pixels = pixels[:, ::-1] if view.flip[row] else pixels
    luma = np.array([0.2989, 0.587, 0.114])
    brightness, contrast, saturation = (float(f[row]) for f in (view.brightness, view.contrast, view.saturation))
    pixels = np.clip(brightness * pixels, 0, 1)
    pixels = np.clip(contrast * pixels + (1 - contrast) * (pixels @ luma).mean(), 0, 1)
    return np.clip(saturation * pixels + (1 - saturation) * (pixels @ luma)[..., None], 0, 1)


SEEN_AT = {
    16: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    20: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    27: ((0.1, 0.2, 0.3), (1.0, 0.7, 0.4)),
}
"""Mean and deviation of the three networks, the student first, by the side of their pictures."""


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    """A job of teachers that differ in size and normalisation, and a batch."""
    folder = tmp_path_factory.mktemp("differing")
    models = {"one": make_teacher(1, 3, 20, SEEN_AT[20]), "two": make_teacher(2, 2, SIZE, SEEN_AT[27])}
    config = make_job_config(save_teachers(folder, models))
    config.teachers.two.size = 27  # not the one that its folder says
    made = job.create_job(config, None)
    return config, made, first_batch(made.splits["train"], config)


@pytest.mark.parametrize(
    ("phase", "sizes"), [("probe", [20, 27]), ("distill", [16, 20, 27]), ("classify", [16]), ("finetune", [16])]
)
def test_each_network_sees_the_one_view_at_its_own_size_and_normalisation(differing, phase, sizes, monkeypatch):
    config, made, batch = differing
    recipe, state, original = made.recipe, made.programs.abstract, Functional.__call__
    (objective,) = [p.objective for p in recipe.phases if p.name == phase]

    @jax.jit
    def received(batch):
        found = {}

        def spy(self, params, stats, images, **options):
            assert images.shape[1] not in found
            found[images.shape[1]] = images
            answer = jax.eval_shape(lambda *args: original(self, *args, **options), params, stats, images)
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), answer)  # what it makes of them does not matter

        monkeypatch.setattr(Functional, "__call__", spy)
        params, stats = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (state.params, state.stats))
        objective(params, stats, recipe.constants, batch, jax.random.key(0))
        return found

    seen = received(batch)
    assert sorted(seen) == sizes
    view = sample_views(batch["id"], batch["view"], Augmentation(**config.data.augment), config.data.view_seed)
    assert np.ptp(view.box[:, 2]) > 0.1 and 0 < np.mean(view.flip) < 1
    for size, images in seen.items():
        mean, std = SEEN_AT[size]
        expected = np.stack([look(image, view, row, size) for row, image in enumerate(np.asarray(batch["image"]))])
        np.testing.assert_allclose(images, (expected - mean) / std, atol=1e-4)


def rendering_macs(rows, canvas, size):
    """Two products for each channel: along the rows of the canvas, then along its columns."""
    return rows * 3 * (canvas * canvas * size + size * canvas * size)


def network_macs(spec, rows, backward):
    """Those of a network up to its features; with its backward pass, those of every gradient of its parameters."""
    network, size = functional(spec), spec.preprocessing.size
    params, stats = network.abstract
    pixels = jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32)

    def features(params, stats, pixels):
        return network(params, stats, pixels, train=backward)[0].features.sum()

    return count_live_macs(jax.grad(features) if backward else features, params, stats, pixels)


def test_multiply_accumulates_of_each_phase_are_those_of_its_networks_to_the_last_one(differing):
    config, made, batch = differing
    recipe, rows = made.recipe, config.batch_size
    specs = {name: recipe.networks[name] for name in ("student", "one", "two")}
    forward = {
        name: network_macs(spec, rows, False) + rendering_macs(rows, SIZE, spec.preprocessing.size)
        for name, spec in specs.items()
    }
    student = network_macs(specs["student"], rows, True) + rendering_macs(rows, SIZE, SIZE)
    width = {name: functional(spec).module.backbone.feature_size for name, spec in specs.items()}
    teachers = sum(forward[name] for name in ("one", "two"))
    probes = rows * (width["one"] + width["two"]) * CLASSES
    adapters = rows * width["student"] * (width["one"] + width["two"])
    head = rows * width["student"] * CLASSES
    tally = (CLASSES + 1) * rows * 2
    expected = {
        "probe": teachers + 2 * probes,
        "distill": teachers + probes + student + 3 * adapters + tally,
        "classify": forward["student"] + 2 * head,
        "finetune": student + 3 * head,
    }
    step = create_train_step(recipe, config, made.programs.labels)
    state = made.programs.abstract
    found = {
        phase.name: count_live_macs(
            lambda s, c, b, i=index: step(s, c, b, phase=i), state, recipe.constants, dict(batch)
        )
        for index, phase in enumerate(recipe.phases)
    }
    assert found == expected


def compiled_flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def estimated_flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def test_resting_parts_are_absent_from_the_compiled_work_of_each_phase(whole):
    config, batch = whole.config, first_batch(whole.job.splits["train"], whole.config)
    augmentation = Augmentation(**config.data.augment)
    # The backbones are all alike, and see the same picture.
    specs = whole.job.recipe.networks.values()
    assert {functional(spec).module.backbone.feature_size for spec in specs} == {8 * WIDTH}
    (preprocessing,) = {spec.preprocessing for spec in specs}
    network = functional(whole.models["one"].spec)

    def see(batch):
        view = common.create_views(batch, augmentation, config.data.view_seed)
        return preprocessing(render(batch["image"], view, preprocessing.size))

    def features(train):
        def total(*args):
            signals, stats = network(*args, train=train)
            return signals.features.sum(), stats

        return total

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.add_decayed_weights(1e-4), optax.scale(-1e-3)
    )

    def learn(params, state):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(params, state, params)
        return optax.apply_updates(params, updates), state

    view, pixels = estimated_flops(see, batch), jax.eval_shape(see, batch)
    forward = estimated_flops(features(False), *network.abstract, pixels)
    learning = estimated_flops(jax.grad(features(True), has_aux=True), *network.abstract, pixels)
    backbone = network.abstract[0]["backbone"]
    learning += estimated_flops(learn, backbone, jax.eval_shape(optimizer.init, backbone))
    adapters = 2 * 3 * 2 * config.batch_size * (8 * WIDTH) ** 2  # of two teachers, three products of two operations
    expected = {
        "probe": view + forward + learning,  # the second teacher learns
        "distill": view + 2 * forward + learning + adapters,
        "classify": view + forward,
        "finetune": view + learning,
    }
    found = {row["phase"]: row["flops_per_step"] for row in read_metrics(whole.workdir) if "flops_per_step" in row}
    assert set(found) == set(expected)
    for phase, flops in expected.items():
        # What is left over are views drawn twice and small linear maps; one network more or less would be far off.
        assert abs(found[phase] - flops) < 0.15 * forward, (
            phase,
            found[phase] / flops,
            (found[phase] - flops) / forward,
        )
