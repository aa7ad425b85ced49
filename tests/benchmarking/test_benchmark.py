"""A benchmark from a configuration to its page, on networks of a few thousand parameters."""

import json
import pathlib

import jax
import numpy as np
import pytest

from emokd.benchmarking import page
from emokd.benchmarking.batches import create_batches, fake_batch
from emokd.benchmarking.phases import benchmark
from emokd.benchmarking.stand_ins import untrained_teachers
from emokd.benchmarking.timing import Rule
from emokd.configuration import defaults
from emokd.configuration.config import locked
from emokd.errors import InputError
from emokd.jobs.job import create_job
from emokd.models.cost import describe
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import smkd
from emokd.reporting.provenance import commit, versions
from emokd.training.sharding import create_mesh
from emokd.weights import model_folder

SIZE, BATCH, CLASSES = 16, 8, 8
TEACHER = NetworkSpec("basic_cnn", {"width": 3, "size": SIZE}, {"pretrained": 5}, preprocessing=Preprocessing(SIZE))
OWN = NetworkSpec("basic_cnn", {"width": 2, "size": SIZE}, {"scene": 8}, preprocessing=Preprocessing(SIZE))
PEAK = {"matmul_flops": 1e9, "copy_bytes": 1e9, "dtype": "bfloat16", "side": 1, "size_bytes": 4}


def make_config(folder):
    """Two phases of SMKD with a teacher that is frozen and one among the parameters of the run, which rests."""
    for name, spec in (("frozen", TEACHER), ("own", OWN)):
        params, stats = functional(spec).init(jax.random.key(0))
        model_folder.save_model(folder / name, spec, params, stats, {"source": "test"})
    config = smkd.default_config()
    config.batch_size = BATCH
    config.devices = 1
    config.data.source = "painter"
    config.data.options = {"size": SIZE, "train": 24, "validation": 9, "test": 11, "seed": 0}
    config.data.canvas = SIZE
    config.data.num_threads = 1
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    config.teachers.frozen = defaults.teacher(checkpoint=str(folder / "frozen"))
    config.teachers.own = defaults.teacher(checkpoint=str(folder / "own"))
    config.teachers.own.tuning = "full"
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=3, learning_rate=1e-2, warmup_percent=0.0)
    for name in ("teach", "probe", "finetune"):
        config.phases[name].enabled = False
    config.data.augment.update({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0})
    config.weighting = ({"name": "uniform"},)
    return config.lock()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_config(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def results(config):
    return benchmark(config, data="fake", rule=Rule(warmup=1, steps=2), peak=PEAK)


def parts_of(results, phase):
    (found,) = [p for p in results["phases"] if p["name"] == phase]
    return {part["part"]: part for part in found["split"]}


def layers(width):
    """MACs of each convolution of basic_cnn for one example, by hand."""
    channels = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
    return [(SIZE // 2**layer) ** 2 * 9 * channels[layer] * channels[layer + 1] for layer in range(5)]


def test_every_phase_is_measured(results):
    assert [phase["name"] for phase in results["phases"]] == ["distill", "classify"]
    for phase in results["phases"]:
        assert phase["compilations"] == 1 and phase["loss_is_finite"]
        assert phase["compile_seconds"] > 0 and phase["step_seconds"] > 0 and 0 <= phase["share_waiting"] <= 1
        assert phase["examples_per_second_per_device"] > 0
        assert phase["share_of_matmul_peak"] == pytest.approx(2 * phase["macs"] / phase["step_seconds"] / 1e9)
        program = phase["program"]
        assert program["collectives"] == {}
        assert program["peak_bytes"] > 0 and program["argument_bytes"] > BATCH * SIZE * SIZE * 3
        # The state is donated: its results take over its memory.
        assert 0 < program["aliased_bytes"] <= program["output_bytes"]


def test_parts_are_those_that_the_phase_runs(results):
    distill, classify = (parts_of(results, phase) for phase in ("distill", "classify"))
    assert set(distill) == {"augmentation", "student", "frozen", "own", "losses", "optimiser"}
    assert set(classify) == {"augmentation", "student", "losses", "optimiser"}
    what = {name: part["what"] for name, part in distill.items()}
    assert (what["student"], what["frozen"], what["own"]) == ("forward and backward", "forward", "forward")
    for part in (*distill.values(), *classify.values()):
        assert part["share"] <= 1 and part["seconds"] < 10


def test_macs_of_the_parts_by_hand(results):
    student, teacher = layers(2), layers(3)
    student_head, teacher_head = 16 * CLASSES, 24 * 5
    distill, classify = (parts_of(results, phase) for phase in ("distill", "classify"))
    # Nobody asks the teacher's head.
    assert distill["frozen"]["macs"] == BATCH * sum(teacher)
    assert distill["frozen"]["macs"] == BATCH * (describe(TEACHER)["macs"] - teacher_head)
    assert results["networks"]["student"]["macs"] == sum(student) + student_head
    # Backward: the gradients of weights and of inputs cost what the forward pass does, but pictures need none. Features
    # are taught, not the head.
    assert distill["student"]["macs"] == BATCH * (3 * sum(student) - student[0])
    # The head alone learns.
    assert classify["student"]["macs"] == BATCH * (sum(student) + 2 * student_head)
    # Of a view, two products for each of three colours, for each of three networks.
    assert distill["augmentation"]["macs"] == BATCH * 3 * 3 * 2 * SIZE**3
    # Adapters: forward, and the gradients of weights and features. Uniform weights ask no probe. The tally of the two
    # teachers' weights by class, or none, is a product as well.
    assert distill["losses"]["macs"] == BATCH * (3 * 16 * (24 + 16) + (CLASSES + 1) * 2)
    assert distill["optimiser"]["macs"] == classify["losses"]["macs"] == 0


def test_the_step_has_the_macs_of_its_parts(results):
    for phase in results["phases"]:
        assert phase["macs"] == sum(part["macs"] for part in phase["split"])


def test_the_peak_is_of_the_precision_of_the_networks(config, monkeypatch):
    class Asked(Exception):
        pass

    def measure_peak(rule, dtype, **options):
        raise Asked(dtype)

    monkeypatch.setattr("emokd.benchmarking.phases.measure_peak", measure_peak)
    for precision in ("float32", "bfloat16"):
        with pytest.raises(Asked, match=precision):
            benchmark(locked(config, {"precision": precision}), data="fake")


def test_the_page_says_where_the_numbers_come_from(results):
    text = page.page(results)
    assert commit() in text and versions() in text and results["rule"]["text"] in text
    assert "synthetic" in text and "Fake data" in text and "No program has a collective." in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows if row[0] in ("distill", "classify")].count("distill") == 2 + 6
    assert "bfloat16 matrix product of side 1" in text and "All parts together: distill " in text
    assert json.loads(page.to_json(results)) == results


def test_fake_batches_have_the_shapes_of_real_ones(config, tmp_path):
    job = create_job(config, untrained_teachers(tmp_path))
    mesh = create_mesh(2)
    real, fake = (next(create_batches(job, 0, kind, mesh)) for kind in ("real", "fake"))
    describe_arrays = lambda batch: {k: (v.shape, v.dtype, v.sharding) for k, v in batch.items()}  # noqa: E731
    assert describe_arrays(fake) == describe_arrays(real)
    assert fake["mask"].all()
    for name, names in job.splits["train"].classes.items():
        assert 0 <= int(fake[name].min()) and int(fake[name].max()) < len(names)
    assert np.asarray(fake["image"]).std() > 50  # uniform bytes have 74


def test_fake_votes_are_distributions():
    like = {"votes": jax.ShapeDtypeStruct((4, 5), np.float32)}
    votes = fake_batch(like, {}, create_mesh(1))["votes"]
    assert (np.asarray(votes) >= 0).all() and np.allclose(votes.sum(-1), 1, atol=1e-6)


def test_a_teacher_that_would_be_trained_is_stood_in_for(tmp_path):
    file = tmp_path / "teacher.py"
    file.write_text(
        "from emokd.configuration import defaults\n"
        "from emokd.recipes import supervised\n"
        "def get_config(arg=''):\n"
        "    config = supervised.default_config()\n"
        "    config.batch_size = 4\n"
        "    config.data.source = 'painter'\n"
        f"    config.data.options = {{'size': {SIZE}, 'train': 8, 'validation': 2, 'test': 2, 'seed': 0}}\n"
        f"    config.student = defaults.network('basic_cnn', size={SIZE}, width=2)\n"
        "    return config\n"
    )
    folder = untrained_teachers(tmp_path / "made")(str(file), pathlib.Path("teacher"))
    model = model_folder.load_trained(folder)
    assert (model.spec.backbone, dict(model.spec.heads)) == ("basic_cnn", {"expression": CLASSES})
    assert sum(w.size for w in jax.tree.leaves(model.params)) == describe(model.spec)["parameters"]


def test_unknown_data_is_refused(config, tmp_path):
    job = create_job(config, untrained_teachers(tmp_path))
    with pytest.raises(InputError, match="Did you mean 'fake'"):
        create_batches(job, 0, "fakes", create_mesh(1))
