"""What is estimated for TPUs that are not here; where their compiler is installed, by itself."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from small_jobs import paint

from emokd.benchmarking import estimate_page, page
from emokd.benchmarking.estimate import estimate
from emokd.benchmarking.memory import largest_arrays, read_refusal
from emokd.benchmarking.stand_ins import stand_in_data, stand_in_weights
from emokd.benchmarking.targets import find_target
from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.parts import part
from emokd.recipes import smkd, supervised
from emokd.weights import model_folder

ROWS = 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5f:2x2", "no TPU 'v5f'. Did you mean 'v5"),
        ("h100", "no TPU 'h100'. .*Known: v2, v3"),
        ("v5e", "v5e is no TPU with its topology"),
        ("v5e:2", "is no TPU with its topology"),
        ("v5e:0x2", "has no chip"),
    ],
)
def test_targets_that_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        find_target(name)


def test_a_missing_compiler_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'emokd\[tpu_compile\]'"):
        find_target("v5e:2x2")


def test_what_the_compiler_says_of_memory():
    found = read_refusal(
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (48.01G) exceeds "
        "available HBM (15.75G)."
    )
    assert (found["wanted_bytes"], found["available_bytes"]) == (48.01 * 2**30, 15.75 * 2**30)
    other = read_refusal("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.5M of 500K hbm.")
    assert (other["wanted_bytes"], other["available_bytes"]) == (512.5 * 2**20, 500 * 2**10)
    unknown = read_refusal("RESOURCE_EXHAUSTED: no room")
    assert unknown == {"wanted_bytes": None, "available_bytes": None, "message": "RESOURCE_EXHAUSTED: no room"}


def test_the_largest_arrays_are_found_inside_loops_and_under_their_part():
    def step(x):  # [8, 3]
        with part("transport"):
            y = jax.lax.fori_loop(0, 3, lambda i, y: y + (x @ x.T).sum(), jnp.zeros(()))
        return jnp.tanh(x) * y

    largest = largest_arrays(jax.make_jaxpr(step)(jnp.ones((8, 3))).jaxpr)
    assert largest[0] == {"shape": "f32[8,8]", "part": "transport", "bytes": 8 * 8 * 4, "count": 1}
    assert {"shape": "f32[8,3]", "part": "rest", "bytes": 8 * 3 * 4, "count": 2} in largest


def test_data_that_are_not_there_are_made_up(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOKD_DATA", str(tmp_path))
    config = supervised.default_config()
    config.batch_size = 100
    config.data.source, config.data.options = "biovid", {"segments": 2}
    (parts, extra), notes = stand_in_data(config)
    assert extra is None and notes == ["Made-up examples of the shapes of biovid stand for it."]
    assert {name: len(split) for name, split in parts.items()} == {"train": 100, "validation": 100, "test": 100}
    assert parts["train"].inputs["video"](3).shape == (2, 112, 112, 3)


def test_a_training_split_smaller_than_the_batch_is_repeated():
    config = configuration.locked(paint(supervised.default_config(), steps=1), {"batch_size": 64})
    (parts, _), notes = stand_in_data(config)
    assert len(parts["train"]) == 64 and notes == ["24 training examples are repeated to fill a batch of 64."]
    assert parts["train"].keys[:24] == parts["train"].keys[24:48]


def test_weights_that_are_not_there_are_stood_in_for(tmp_path):
    config = smkd.default_config()
    config.student.init = "nowhere.pth"
    config.teachers.faces = defaults.teacher("mini_xception", checkpoint="nowhere.hdf5")
    changed, notes = stand_in_weights(config.lock(), tmp_path)
    assert changed.student.init == "" and [note.split(" is not")[0] for note in notes] == [
        "nowhere.pth",
        "nowhere.hdf5",
    ]
    model = model_folder.load_trained(changed.teachers.faces.checkpoint)
    assert (model.spec.backbone, dict(model.spec.heads)) == ("mini_xception", {"pretrained": 1000})
    config = configuration.locked(config, {"teachers.faces.backbone": ""})
    with pytest.raises(InputError, match="config.teachers.faces.checkpoint: there is no nowhere.hdf5"):
        stand_in_weights(config, tmp_path)


@pytest.fixture(scope="module")
def target():
    pytest.importorskip("libtpu", reason="the TPU's compiler is not installed: pip install -e '.[tpu_compile]'")
    return find_target("v5e:2x2")


@pytest.fixture(scope="module")
def results(target):
    return estimate(paint(supervised.default_config(), steps=2).lock(), target, rows=ROWS)


def test_a_phase_for_four_chips_that_are_not_here(results):
    (phase,) = results["phases"]
    assert phase["fits"] and phase["one_device"]["fits"]
    assert (results["batch_size"], results["target"]["devices"]) == (4 * ROWS, 4)
    # Four times the examples are four times the work, which is divided.
    assert phase["macs"] == 4 * phase["one_device"]["macs"]
    assert {"student", "optimiser"} <= set(phase["parts"]) and phase["cycles"] == sum(phase["parts"].values()) > 0
    assert {each["kind"] for each in phase["collectives"]} == {"all-reduce"}
    assert {each["axis"] for each in phase["collectives"]} == {"data"}
    assert phase["one_device"]["collectives"] == []
    assert phase["step_seconds"] > phase["computing_seconds"] == pytest.approx(phase["cycles"] / 1.503e9, rel=1e-3)
    assert phase["examples_per_second"] == pytest.approx(4 * ROWS / phase["step_seconds"])
    assert phase["efficiency"] == pytest.approx(phase["one_device"]["step_seconds"] / phase["step_seconds"])


def test_parts_reach_their_share_of_the_peak(results):
    (phase,) = results["phases"]
    shares, parts = phase["part_shares_of_peak"], phase["parts"]
    assert shares["optimiser"] == 0 < shares["student"] < 1
    together = sum(shares[part] * cycles for part, cycles in parts.items()) / phase["cycles"]
    assert together == pytest.approx(phase["share_of_peak"] * phase["step_seconds"] / phase["computing_seconds"])


@pytest.mark.slow  # each compiles for about a minute on a busy machine of two cores
@pytest.mark.parametrize(
    ("recipe", "phase", "changes", "parts"),
    [
        ("smkd", "distill", {}, {"student", "expression", "identity", "scene", "augmentation", "optimiser"}),
        ("bounded", "distill", {}, {"student", "painter", "augmentation", "optimiser"}),
        ("mtpkdot", "hallucinate", {"structure.k": 3}, {"student", "joint", "optimiser"}),
    ],
)
def test_a_phase_of_every_recipe_compiles_for_one_chip_of_four(target, recipe, phase, changes, parts):
    config = configuration.load(f"configs/{recipe}/quickstart.py:small")
    config = configuration.locked(config, {"baseline.enabled": False, "devices": 1, **changes})
    (found,) = estimate(config, target, rows=ROWS, phases=[phase])["phases"]
    assert found["name"] == phase and found["fits"] and parts <= set(found["parts"])
    assert found["cycles"] == pytest.approx(sum(found["parts"].values())) and found["collectives"] == []


def test_a_phase_that_is_not_there(target):
    with pytest.raises(InputError, match="no phase 'trian'. Did you mean 'train'"):
        estimate(paint(supervised.default_config(), steps=2).lock(), target, rows=ROWS, phases=["trian"])


def test_the_page_calls_its_numbers_estimated(results):
    text = estimate_page.page(results)
    assert "estimated by the TPU compiler" in text and "Nothing ran" in text and "v5e:2x2, 4 x TPU v5" in text
    assert json.loads(page.to_json(results)) == results
    refused = {**read_refusal("RESOURCE_EXHAUSTED: (2G) exceeds available HBM (1G)"), "fits": False, "largest": []}
    entry = {"name": "distill", "compile_seconds": 1.0, "macs": 5, **refused}
    too_large = estimate_page.page({**results, "phases": [entry]})
    assert "2 GiB: does not fit" in too_large and "exceeds available HBM" in too_large
