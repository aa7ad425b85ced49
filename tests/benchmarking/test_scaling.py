"""The forecast follows its model: worked out here by hand."""

import copy
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import scaling  # noqa: E402

from emokd.errors import InputError  # noqa: E402

MACHINE = scaling.Machine("eight", devices=8, per_host=4, flops=1e12, link=1e9)
PHASE = {
    "name": "train",
    "macs": 10**9,
    "share_of_matmul_peak": 0.5,
    "split": [{"part": "rest", "share": 0.25}],
    "program": {"collectives": {"all-reduce": {"count": 3, "bytes": 10**6}}},
}
RESULTS = {"batch_size": 4, "devices": {"count": 1}, "data": {"name": "faces"}, "phases": [PHASE]}


def test_gradients_take_as_long_as_their_bytes_twice():
    found = scaling.forecast(PHASE, PHASE, batch=4, rows=4, machine=MACHINE, share=0.5)
    assert found.compute == pytest.approx(4e-3)  # 2 GFLOP at 0.5 TFLOP/s
    assert found.exchange == pytest.approx(3 * 20e-6 + 2e-3)
    assert found.rate == pytest.approx(32 / 6.06e-3)
    assert found.efficiency == pytest.approx(4 / 6.06)


def test_gathered_rows_and_what_is_computed_of_them_grow_with_the_devices():
    several = copy.deepcopy(PHASE)
    several["program"]["collectives"] = {"all-gather": {"count": 1, "bytes": 10**4}}
    found = scaling.forecast(PHASE, several, batch=4, rows=16, machine=MACHINE, share=0.5)
    assert found.exchange == pytest.approx(20e-6 + 2 * 10**4 / 1e9)  # 32 rows, where 16 were gathered
    assert found.compute == pytest.approx(4e-3 * (1 + 0.25 * 64))
    assert found.efficiency == pytest.approx(4e-3 / (found.compute + found.exchange))


def test_what_the_measured_step_says_nothing_of_is_named():
    several = copy.deepcopy(RESULTS)
    several["phases"][0]["program"]["collectives"] = {"all-gather": {"count": 1, "bytes": 10**4}}
    assert scaling.remark(RESULTS, several) == ""  # its share is there
    one = copy.deepcopy(RESULTS)
    one["phases"][0]["split"][0]["share"] = -0.1
    assert scaling.remark(one, RESULTS) == ""  # nothing is gathered
    # 4 examples on each of 256 devices: 1024 x 1024 floats are 4 MiB.
    assert scaling.remark(one, several).endswith("Of 1,024 rows one similarity matrix takes 0.0 GiB.")
    assert scaling.remark(one, several).startswith("Not counted in train: ")


def test_a_page_of_two_results(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(RESULTS))
    text = scaling.page([str(path)], [str(path)])
    assert text.count("TPU v5e-256") == text.count("64 H100") == 2  # the measured share of the peak, and the other


def test_results_that_do_not_belong_together_are_refused(tmp_path):
    for name, phase in (("one", "train"), ("other", "distill")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**RESULTS, "phases": [{**PHASE, "name": phase}]}))
    with pytest.raises(InputError, match="other.json is of another configuration"):
        scaling.page([str(tmp_path / "one.json")], [str(tmp_path / "other.json")])
    with pytest.raises(InputError, match="give them in pairs"):
        scaling.page([str(tmp_path / "one.json")], [])
    with pytest.raises(InputError, match="none.json: .*Make it with"):
        scaling.page([str(tmp_path / "none.json")], [str(tmp_path / "one.json")])
