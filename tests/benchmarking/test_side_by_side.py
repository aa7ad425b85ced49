"""The benchmarks compare like with like: both sides compute the same losses from the same weights and inputs."""

import ast
import dataclasses
import pathlib
import sys

import jax
import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import input_pipeline  # noqa: E402
import memory  # noqa: E402
import mtpkdot_step  # noqa: E402
import side_by_side  # noqa: E402
import sinkhorn  # noqa: E402
import smkd_step  # noqa: E402
import supervised_step  # noqa: E402
from lazily import Lazily  # noqa: E402
from training_step import create_task  # noqa: E402

from emokd.benchmarking.timing import Rule, Timing  # noqa: E402
from emokd.data import sources  # noqa: E402
from emokd.models.cost import describe  # noqa: E402
from emokd.phase import Context  # noqa: E402
from emokd.recipes import supervised  # noqa: E402
from emokd.training.sharding import replicated  # noqa: E402

torch = Lazily("torch")
torch_networks = Lazily("torch_networks")
torch_pictures = Lazily("torch_pictures")

STEPS = 3
SETTINGS = side_by_side.Settings(Rule(0, 2), small=True, compiled=False, rest=0.0)


def losses(step):
    """Ours, over a few steps."""
    found = []
    for _ in range(STEPS):
        step()
        found.append(float(step.metrics["loss"]))
    return np.array(found)


def assert_same(ours, theirs, rtol=2e-4):
    """The same first loss, and the same way down."""
    np.testing.assert_allclose(ours[0], theirs[0], rtol=rtol)
    assert ours[-1] < ours[0]
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], rtol=0.1)


@pytest.mark.slow
def test_supervised_steps_of_mobilenet_have_the_same_loss():
    """The loss alone, which compiles sooner than the step."""
    step = supervised_step.create_step("mobilenet_v2", 32, 4)
    state, batch = step.state, step.batch
    outcome = jax.jit(step.recipe.phases[0].objective)(state.params, state.stats, {}, batch, Context(state.key))
    call = supervised_step.create_torch_call(step, "mobilenet_v2", "eager")
    np.testing.assert_allclose(outcome.terms["expression"].values.mean(), call(), rtol=1e-3)


@pytest.mark.parametrize("backbone", supervised_step.NETWORKS)
def test_networks_have_as_many_parameters_as_ours(backbone):
    config = supervised_step.create_config(backbone, 32, 4)
    recipe = supervised.build(config, create_task(4), {})
    theirs = torch_networks.Network(backbone, {"expression": 8})
    assert torch_networks.count(theirs) == describe(recipe.student_spec)["parameters"]


@pytest.mark.slow
def test_supervised_steps_learn_alike():
    step = supervised_step.create_step("resnet18", 32, 4)
    call = supervised_step.create_torch_call(step, "resnet18", "eager channels_last")
    assert_same(losses(step), np.array([call() for _ in range(STEPS)]), rtol=1e-3)


def know_something(step):
    """Gives the probes random weights: untrained ones are zero, and all teachers' weights then equal."""
    rng = np.random.default_rng(0)
    probes = step.initial[0]["probes"]
    for probe in probes.values():
        probe["kernel"] = rng.normal(size=probe["kernel"].shape).astype(np.float32)
    params = {**step.state.params, "probes": jax.device_put(probes, replicated(step.programs.mesh))}
    step.state = dataclasses.replace(step.state, params=params)


@pytest.mark.parametrize("cached", [pytest.param(False, marks=pytest.mark.slow), True])
def test_smkd_steps_learn_alike(monkeypatch, cached):
    monkeypatch.setattr(smkd_step, "TEACHERS", dict.fromkeys(smkd_step.TEACHERS, "basic_cnn"))
    models = smkd_step.create_teachers(16)
    step = smkd_step.create_step(models, 16, 6, cached=cached)
    know_something(step)
    call = smkd_step.create_torch_call(step, models, cached, "eager")
    assert_same(losses(step), np.array([call() for _ in range(STEPS)]))
    weights = [float(step.metrics[f"weight/{name}"]) for name in models]
    assert np.isclose(sum(weights), 1) and np.ptp(weights) > 0.01


@pytest.mark.slow
def test_mtpkdot_steps_learn_alike():
    """With GeomLoss's solver, sorted anchors and no dropout."""
    step = mtpkdot_step.create_step(mtpkdot_step.create_config(16, "geomloss", dropout=0.0))
    call = mtpkdot_step.create_torch_call(step, "eager", sort=True)
    assert_same(losses(step), np.array([call() for _ in range(STEPS)]))
    assert sum(float(step.metrics[f"weight/{name}"]) == 1 for name in step.recipe.teachers) == 1


def test_sinkhorn_values_and_gradients_agree():
    clouds = sinkhorn.create_clouds(24, 5)
    value, slope = sinkhorn.create_call(clouds, "geomloss")()
    for variant in ("eager", "eager, diameter given"):
        expected, expected_slope = sinkhorn.create_torch_call(clouds, variant)()
        np.testing.assert_allclose(value, expected, rtol=2e-5)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-3, atol=2e-5 * np.abs(expected_slope).max())


def test_pipelines_give_the_same_canvases(tmp_path):
    paths = input_pipeline.write_pictures(tmp_path, 6, 300)
    examples = sources.load("image_folder", str(tmp_path), {}, min_side=input_pipeline.CANVAS)
    ours = np.concatenate(input_pipeline.create_pipeline(examples, 3, 2)())
    theirs = np.concatenate(input_pipeline.create_loader(paths, 3, 2, pillow=False, workers=0)())
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs)) and len(set(map(bytes, ours))) == 6
    pixels = [
        torch_pictures.Pictures(paths, input_pipeline.CANVAS, pillow)[0].numpy().astype(float)
        for pillow in (True, False)
    ]
    # A picture decoded at a reduced size is not quite one that is reduced afterwards.
    assert np.abs(pixels[0] - pixels[1]).mean() < 2 < np.abs(pixels[0] - pixels[0].mean()).mean()


def test_the_peak_of_pytorch_by_hand():
    count = 2**18
    size = 4 * count

    def make():
        kept = torch.zeros(count)

        def call():
            a = kept + 1
            b = a + 1
            del a
            return (b + 1).sum().item()

        torch.zeros(8 * count)  # gone before the step
        return call

    assert size * 3 <= memory.peak_of(make) <= size * 3 + 1024


@pytest.mark.slow
def test_host_memory_is_read_at_every_training_batch(tmp_path):
    seen, epochs = memory.train_and_watch(6, tmp_path)
    assert len(seen) == 6 and epochs == 3
    assert (seen > 2**26).all()  # JAX alone takes more
    theirs = memory.watch_torch(6, tmp_path)
    assert len(theirs) == 6 and (theirs > 2**26).all()
    assert (tmp_path / "0.pt").exists() and (tmp_path / "1.pt").exists()


def test_growth_is_that_of_the_second_half():
    seen = np.concatenate([np.arange(100) * 1e6, 2.0**30 + np.arange(100) * 2.0**20])
    told = memory.growth(seen)
    assert "1048576 bytes a step: 100.00 MiB, or 9.77%" in told


def test_a_side_that_fails_is_named_with_its_reason():
    def broken():
        raise RuntimeError("no compiler\nand a long trace")

    sides = side_by_side.Comparison()
    sides.add("ours", lambda: lambda: None)
    sides.attempt_variants("theirs", lambda variant: broken(), side_by_side.PICTURES, compiled=False)
    times = sides.measure(SETTINGS)
    text = sides.table(times, "ours", "Title").markdown()
    assert list(times) == ["ours"] and len(times["ours"].seconds) == 2
    assert "theirs, eager (not measured: RuntimeError: no compiler)" in text
    assert "theirs, compiled channels_last (not measured: --nocompiled)" in text


def test_sums_and_ratios_are_taken_round_by_round():
    times = {"a": Timing((1.0, 10.0)), "b": Timing((2.0, 20.0)), "whole": Timing((6.0, 60.0))}
    times["both"] = side_by_side.total(times, ["a", "b"])
    assert times["both"].seconds == (3.0, 30.0)
    sides = side_by_side.Comparison()
    text = sides.table(times, "both", "Title", names=["whole", "both"]).markdown()
    assert "2.000" in text and "1.000" in text


def test_the_page_says_where_the_numbers_come_from():
    text = side_by_side.Page("Title", [], {"batch": "8"}).markdown()
    assert "Commit: " in text and torch.__version__.split("+")[0] in text and "Batch: 8" in text


def test_importing_a_script_defines_no_flags():
    """Read, not imported: one of them may need a package that is not here."""
    for path in BENCHMARKS.glob("*.py"):
        for statement in ast.parse(path.read_text()).body:
            later = isinstance(statement, ast.FunctionDef | ast.ClassDef) or "__main__" in ast.unparse(statement)
            assert later or "flags.DEFINE" not in ast.unparse(statement), f"{path.name}: {ast.unparse(statement)}"
