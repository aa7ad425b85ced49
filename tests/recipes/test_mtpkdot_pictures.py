"""What MT-PKDOT shows of its networks, and the pictures that a run leaves."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.data.pipeline import evaluation_batches
from emokd.recipes import mtpkdot
from emokd.recipes.common.task import Task
from emokd.reporting import observations
from emokd.reporting.report import write_report
from emokd.training import loop
from emokd.training.programs import Programs

ROWS = 12


def make_examples(target="expression") -> Examples:
    """Tables of two modalities; the heart of the fourth example is missing."""
    rng = np.random.default_rng(0)
    tables = {f"features/{name}": rng.normal(size=(ROWS, 3)).astype(np.float32) for name in ("eye", "heart")}
    tables["features/heart"][3] = np.nan
    columns = {
        "expression": np.array([-1, *(i % 3 for i in range(1, ROWS))], np.int32),
        "valence_arousal": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
    }
    return Examples(
        name="tables",
        keys=[f"row{i}" for i in range(ROWS)],
        columns={target: columns[target]},
        classes={"expression": ("no", "some", "much")} if target == "expression" else {},
        inputs={name: table.__getitem__ for name, table in tables.items()},
        content=str,
    )


def make_config():
    config = mtpkdot.default_config()
    config.batch_size = 8
    for name, privileged in (("eye", False), ("heart", True)):
        config.modalities[name] = defaults.modality(f"features/{name}", "mlp", privileged=privileged, widths=(4,))
    config.width, config.adapter_width = 4, 2
    config.fusion.name = "concatenation"
    config.objective.transport = 0.0
    config.phases.hallucinate.enabled = False
    for name in ("teach", "joint", "align", "student"):
        config.phases[name] = defaults.phase(steps=1, learning_rate=1e-2, warmup_percent=0.0)
    return config


def build(config, examples):
    inputs = {name: read(0).shape for name, read in examples.inputs.items()}
    sizes = {"labelled": ROWS}
    return mtpkdot.build(
        config, Task(examples.classes, tuple(examples.columns), sizes, config.batch_size, inputs=inputs), {}
    )


def asked(recipe, examples):
    """What a fresh recipe shows of all examples, its answers, its parameters, and the batch; padding is last."""
    stream = evaluation_batches(examples, batch_size=ROWS + 1, canvas=8, fit="crop", num_threads=0)
    batch = jax.tree.map(jnp.asarray, next(stream))
    params, stats = jax.jit(recipe.init)(jax.random.key(0))
    found, answers = jax.jit(lambda b: (recipe.observe(params, stats, {}, b), recipe.predict(params, stats, {}, b)))(
        batch
    )
    return jax.device_get((found, answers, params, batch))


def test_what_is_observed_is_what_teaches_and_what_was_aligned():
    found, answers, params, batch = asked(build(make_config(), make_examples()), make_examples())
    names = ("eye", "heart")
    kinds = ("teacher", "before", "error")
    assert set(found) == {"student", "teacher/joint", "error/joint", *(f"{k}/{n}" for k in kinds for n in names)}
    np.testing.assert_allclose(found["student"], answers["student"].features, atol=1e-6)
    for name in (*names, "joint"):
        missing = {ROWS, 3} if name == "heart" else {ROWS}
        assert set(np.flatnonzero(np.isnan(found[f"teacher/{name}"]).all(1))) == missing
        assert set(np.flatnonzero(np.isnan(found[f"error/{name}"]))) == missing | {0}  # which has no label
        there = [i for i in range(ROWS) if i not in missing]
        np.testing.assert_allclose(found[f"teacher/{name}"][there], answers[name].features[there], atol=1e-6)
        if name != "joint":
            adapter = params["adapters"][name]
            inner = found[f"before/{name}"][there] @ adapter["down"]["kernel"] + adapter["down"]["bias"]
            expected = inner @ adapter["up"]["kernel"] + adapter["up"]["bias"]
            np.testing.assert_allclose(found[f"teacher/{name}"][there], expected, atol=1e-5)
        z = answers[name].logits[there[1:]].astype(np.float64)
        errors = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), batch["expression"][there[1:]]]
        np.testing.assert_allclose(found[f"error/{name}"][there[1:]], errors, atol=1e-5)


def test_of_one_teacher_without_alignment_there_is_less_to_see():
    config, examples = make_config(), make_examples("valence_arousal")
    config.pool = "joint"
    config.phases.align.enabled = False
    found, answers, _, batch = asked(build(config, examples), examples)
    assert set(found) == {"student", "teacher/eye", "teacher/heart", "teacher/joint", "error/joint"}
    expected = ((answers["joint"].valence_arousal - batch["valence_arousal"]) ** 2).sum(1)
    np.testing.assert_allclose(found["error/joint"][:ROWS], expected[:ROWS], rtol=1e-5)
    for name in ("teach", "joint"):
        config.phases[name].enabled = False
    assert build(config, examples).observe is None


def test_a_run_leaves_its_pictures(tmp_path):
    config, examples = make_config(), make_examples()
    config.devices = 1
    config.data.num_threads = 0
    config.log.every_steps = 1
    config.evaluation = defaults.every(steps=1)
    splits = dict.fromkeys(("train", "validation", "test"), examples)
    recipe = build(config, examples)
    programs = Programs(recipe, config, len(examples.classes["expression"]))
    loop.train(loop.Job(config, recipe, splits, None, programs), tmp_path)
    found = observations.read(tmp_path)
    assert [(o.phase, o.step) for o in found] == [
        ("teach", 1), ("joint", 2), ("align", 3), ("student", 3), ("student", 4),
    ]  # fmt: skip
    shown = sorted(sorted(range(ROWS), key=lambda i: examples.ids[i])[:8])  # a batch of those of lowest id
    labels = [label if label >= 0 else np.nan for label in examples.columns["expression"][shown].tolist()]
    np.testing.assert_array_equal(found[0].labels, labels)
    assert np.isfinite(found[-1].arrays["teacher/joint"]).all()
    assert write_report(tmp_path).read_text().count("data:image/png") == 4  # teacher and student, first and last
    for name in (observations.SIMILARITY, observations.REPRESENTATIONS):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
