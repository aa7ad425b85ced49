"""Configurations of sets that must be asked for: their steps are traced and lowered where none of their files is."""

import jax
import pytest

from emokd.benchmarking.estimate import described_job, trace_phase
from emokd.benchmarking.program import live
from emokd.benchmarking.stand_ins import stand_in_cache, stand_in_weights
from emokd.configuration import config as configuration
from emokd.errors import InputError
from emokd.models.cost import describe
from emokd.models.macs import count_macs_by_part
from emokd.training.sharding import create_mesh

ROWS, DEVICES = 2, 2


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds the job of a configuration for two devices, where there are neither data nor weights."""
    monkeypatch.setenv("EMOKD_DATA", str(tmp_path / "empty"))

    def build(file, **changes):
        config = configuration.locked(configuration.load(file), changes)
        config, notes = stand_in_weights(config, tmp_path / "weights")
        job, more = described_job(config, ROWS, create_mesh(DEVICES), tmp_path / "teachers")
        return job, [*notes, *more]

    return build


def traced(job, phase):
    """A phase's step, and the shapes of its batch by their number of axes, the largest first."""
    index = [each.name for each in job.recipe.phases].index(phase)
    step = trace_phase(job, index)
    batch = jax.tree.leaves(step.args_info[0][3])
    return step, sorted((x.shape for x in batch), key=len, reverse=True)


def lowered(job, step):
    with jax.set_mesh(job.programs.mesh):
        return step.lower().as_text()


@pytest.mark.slow
def test_bounded_on_affectnet(build):
    job, notes = build("configs/bounded/affectnet.py:small")
    assert notes == [
        "weights/emonet_8.pth is not there: an untrained emonet stands for it.",
        "Made-up examples of the shapes of affectnet stand for it.",
    ]
    step, (pictures, *_) = traced(job, "distill")
    assert pictures == (ROWS * DEVICES, 64, 64, 3)
    # A live teacher is asked once about each picture.
    macs = count_macs_by_part(live(step.jaxpr.jaxpr))
    assert macs["emonet"] == ROWS * DEVICES * describe(job.recipe.networks["emonet"])["macs"]
    assert f"mhlo.num_partitions = {DEVICES}" in lowered(job, step)


@pytest.mark.slow
def test_smkd_on_fi_and_with_a_cache_that_is_not_there(build):
    job, notes = build("configs/smkd/fi.py:small")
    assert [note.split()[0] for note in notes] == ["weights/efficientnet-lite0-57934424.pth"] + [
        "weights/mobilenet_v2-b0353104.pth",
        "Made-up",
    ]
    teachers = ("affect", "faces", "lite0", "mobilenet")
    assert sorted(job.recipe.networks) == [*teachers, "student"]
    step, (pictures, *_) = traced(job, "distill")
    assert pictures == (ROWS * DEVICES, 80, 80, 3)
    macs, widths = count_macs_by_part(live(step.jaxpr.jaxpr)), feature_widths(job)
    for name in teachers:  # asked for features alone: heads of their own do not run
        spec = job.recipe.networks[name]
        alone = describe(spec)["macs"] - widths[name] * sum(spec.heads.values())
        assert macs[name] == ROWS * DEVICES * alone

    job, notes = build("configs/smkd/fi.py:small", **{"cache.dir": "runs/cache/fi", "data.views": 8})
    assert notes[-1] == "runs/cache/fi is not read: made-up features stand for the teachers'."
    step, _ = traced(job, "distill")
    batch = step.args_info[0][3]
    for name in teachers:
        assert batch[f"features/{name}"].shape == (ROWS * DEVICES, widths[name])
        assert batch[f"features/{name}"].dtype == "float16"
    assert not set(count_macs_by_part(live(step.jaxpr.jaxpr))) & set(teachers)


def feature_widths(job):
    """The number of features of each teacher, by the shape of the adapter that leads to them."""
    params, _ = jax.eval_shape(job.recipe.init, jax.random.key(0))
    return {name: adapter["kernel"].shape[1] for name, adapter in params["adapters"].items()}


@pytest.mark.parametrize("name", ["biovid", "affwild2"])
def test_mtpkdot(build, name):
    job, notes = build(f"configs/mtpkdot/{name}.py:small")
    assert notes == [f"Made-up examples of the shapes of {name} stand for it."]
    step, (video, *_) = traced(job, "joint")
    side = {"biovid": 112, "affwild2": 32}[name]
    assert video == (ROWS * DEVICES, 2, side, side, 3)
    assert f"mhlo.num_partitions = {DEVICES}" in lowered(job, step)


def test_a_cache_needs_a_frozen_teacher(build):
    job, _ = build("configs/mtpkdot/affwild2.py:small")
    with pytest.raises(InputError, match="No teacher of this configuration is frozen"):
        stand_in_cache(job)
