"""The forecast follows its model: worked out here by hand, and its counts against the programs' own."""

import copy
import json
import math
import pathlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import compiled_share  # noqa: E402
import scaling  # noqa: E402
from live_macs import count_live_macs  # noqa: E402

from emokd.errors import InputError  # noqa: E402
from emokd.losses import mmd, transport  # noqa: E402
from emokd.recipes import mtpkdot  # noqa: E402
from emokd.recipes.common import imitation  # noqa: E402

MACHINE = scaling.Machine("eight", devices=8, per_host=4, flops=1e12, link=1e9, bandwidth=1e11, memory=1e9)
PHASE = {
    "name": "student",
    "macs": 10**9,
    "split": [{"part": "student", "macs": 10**8}, {"part": "losses", "macs": 9 * 10**8, "seconds": 1.0, "share": 0.2}],
    "program": {"collectives": {"all-reduce": {"count": 3, "bytes": 10**6}}},
}
GATHERING = {**PHASE, "program": {"collectives": {"all-gather": {"count": 1, "bytes": 10**4}}}}


def configuration(**objective):
    """Four teachers of 64 columns, two of their three modalities privileged."""
    config = mtpkdot.default_config()
    config.width = 64
    config.structure.rows = 0
    config.objective.update(objective)
    found = json.loads(config.to_json())
    return found | {"modalities": {name: {"privileged": name != "face"} for name in ("face", "sound", "pulse")}}


def results(**changes):
    """A result of `emokd.benchmark` with the phase `PHASE`."""
    return {
        "batch_size": 128,
        "devices": {"count": 8, "kind": "cpu"},
        "data": {"name": "faces"},
        "config": configuration(),
        "networks": {"student": {}},
        "provenance": {"command": "python -m emokd.benchmark --json=runs/x.json", "commit": "abc", "date": "today"},
        "phases": [GATHERING],
    } | changes


def test_gradients_take_as_long_as_their_bytes_twice():
    found = scaling.forecast(results(batch_size=4), PHASE, None, MACHINE, local=False)
    assert found.compute == pytest.approx(40e-3)  # 2 GFLOP at 0.05 TFLOP/s
    assert found.exchange == pytest.approx(3 * 20e-6 + 2e-3)
    assert found.rate == pytest.approx(32 / 42.06e-3)
    assert found.efficiency == pytest.approx(40 / 42.06)
    assert found.rows == found.held == found.relations == 0


def test_gathered_rows_grow_with_the_devices_and_all_parts_of_a_gradient_travel():
    both = copy.deepcopy(GATHERING)
    both["program"]["collectives"]["reduce-scatter"] = {"count": 1, "bytes": 100}
    work = scaling.Relations(macs=0, passes=0)
    found = scaling.forecast(results(devices={"count": 2}), both, work, MACHINE, local=False)
    assert found.exchange == pytest.approx(2 * 20e-6 + (8 * 10**4 + 8 * 2 * 100) / 1e9)


def test_comparing_grows_with_the_square_of_all_rows_and_local_with_none():
    work = scaling.Relations(macs=100, passes=10, side=2, sorts=1, matrices=3)
    rows = 8 * 128
    products = 2 * 100 * rows**2 * 6 / (0.25 * 1e12)
    passes = (10 + 10) * 4 * (2 * rows) ** 2 / (0.8 * 1e11)  # sorting 1024 rows: 10
    found = scaling.forecast(results(), GATHERING, work, MACHINE, local=False)
    assert found.rows == rows
    assert found.relations == pytest.approx(products + passes)
    assert found.held == 4 * 3 * (2 * rows) ** 2
    assert found.compute == pytest.approx(4e-3)  # of the network alone: 200 MFLOP at 0.05 TFLOP/s
    local = scaling.forecast(results(), GATHERING, work, MACHINE, local=True)
    assert local.rows == 128
    assert local.exchange == 0  # nothing is gathered
    assert local.relations == work.seconds(128, MACHINE) < found.relations / 20


def test_a_pass_takes_a_launch_at_least():
    assert scaling.Relations(macs=0, passes=10).seconds(2, MACHINE) == pytest.approx(10 * 5e-6)


@pytest.mark.parametrize("share", [-1.5, -0.1, 0.0, None])
def test_transport_is_never_free_whatever_the_measured_rest_says(share):
    phase = copy.deepcopy(GATHERING)
    phase["split"][-1] |= {"share": share, "seconds": share}
    work = scaling.relations(configuration(), "student", 60)
    found = scaling.forecast(results(), phase, work, scaling.MACHINES[0], local=False)
    assert found == scaling.forecast(results(), GATHERING, work, scaling.MACHINES[0], local=False)
    assert found.relations > 1  # 32,768 rows: seconds, not microseconds
    assert found.held > scaling.MACHINES[0].memory


def test_more_iterations_take_longer():
    few, many = (scaling.relations(configuration(), "student", n).passes for n in (60, 100))
    assert many - few == 2 * (2 * 40 + 4)  # two passes each: two softmins an iteration, one more every ten


def test_a_chosen_teacher_alone_is_transported_to():
    config = configuration()
    one = scaling.relations(config, "student", 60)
    config["weighting"] = [{"name": "most_confident", "per": "sample"}]
    four = scaling.relations(config, "student", 60)
    assert (one.sorts, four.sorts) == (1, 4)
    assert four.passes > 3 * one.passes


def test_what_compares_nothing_and_what_cannot_be_told():
    assert scaling.relations(configuration(transport=0, centroid=0), "student", 60) is None
    assert scaling.relations(configuration(), "align", 60) is None
    assert scaling.relations({"recipe": "smkd"}, "distill", 60) is None
    for name, value in (("solver", "geomloss"), ("anchors", "all")):
        config = configuration()
        config["structure"][name] = value
        with pytest.raises(InputError, match=f"{value}' .*not counted"):
            scaling.relations(config, "student", 60)
    with pytest.raises(InputError, match="'student' gathers arrays"):
        scaling.forecast(results(), GATHERING, None, MACHINE, local=False)


ROWS, WIDTH = 80, 64


def exponentials(jaxpr, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Of each exponential of a matrix of `ROWS`^2, the loops and conditions around it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "exp" and math.prod(equation.outvars[0].aval.shape) == ROWS**2:
            yield inside
        deeper = (*inside, equation.primitive.name) if equation.primitive.name in ("while", "cond") else inside
        for inner in core.jaxprs_in_params(equation.params):
            yield from exponentials(inner, deeper)


def test_softmins_are_those_of_the_solver():
    cloud = jax.ShapeDtypeStruct((ROWS, 30), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x, y: transport.sinkhorn_divergence(x, y).values)(cloud, cloud).jaxpr
    found = list(exponentials(jaxpr))
    assert found.count(("while",)) == 3 * 2  # two in each iteration of each of the three problems
    assert found.count(("while", "cond")) == 1 + 2 * 2  # for the marginals
    assert found.count(()) == 3  # the mass
    assert scaling.softmins(60) == 2 * 60 + 6 + 1 + 2 * (2 * 10 + 2 + 1)


def test_products_are_those_of_the_losses():
    rows = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)

    def gradient(loss):
        return count_live_macs(jax.grad(lambda own, theirs: loss(own, theirs).sum()), rows, rows) / ROWS**2

    assert scaling.relations(configuration(), "hallucinate", 60).macs == 2 * gradient(mmd.gaussian_mmd)
    config = mtpkdot.default_config()
    config.objective.transport = 0.0
    everyone = jnp.ones((ROWS, 1), bool)

    def centroid(own, theirs):
        return imitation.imitate(config, ["only"], own, [(theirs, everyone[:, 0])], everyone)[0]

    assert scaling.relations(configuration(transport=0), "student", 60).macs == 4 * gradient(centroid)


def test_a_page_names_the_commands_of_its_inputs(tmp_path):
    path = tmp_path / "several.json"
    path.write_text(json.dumps(results()))
    text = scaling.page([str(path)], 60)
    assert "device_count=8 python -m emokd.benchmark --json=runs/x.json`, commit abc, today" in text
    assert text.count("TPU v5e-256") == text.count("64 H100") == 2  # all rows, and each device's alone
    assert text.count("128 local") == 2
    assert "60 iterations between student and teacher" in text


PROGRAM = {
    "fits": True,
    "parts": {"student": 200.0, "transport, centroid": 700.0, "rest": 100.0},
    "part_shares_of_peak": {"student": 0.2, "transport, centroid": 0.01, "rest": 0.0},
    "shares": {"compute": 0.047},
}


def compiled(tmp_path, name="v5e:2x2", **changes):
    """A result of `emokd.benchmark --target`."""
    phases = [{"name": "student", "fits": True, "one_device": PROGRAM}]
    found = {"target": {"name": name}, "config": configuration(), "data": "faces", "phases": phases, **changes}
    (tmp_path / "compiled.json").write_text(json.dumps(found))
    return str(tmp_path / "compiled.json")


def test_a_program_stands_in_the_place_of_the_assumed_share(tmp_path):
    programs = compiled_share.read_programs([compiled(tmp_path)])
    old = scaling.tables(results(), 60, {})
    *tables, comparison = scaling.tables(results(), 60, programs)
    assert len(tables) == len(old)
    column = tables[0].header.index("networks ms")
    before, after = ({tuple(row[1:3]): float(row[column]) for row in found[0].rows} for found in (old, tables))
    for place, milliseconds in after.items():  # .05 and, of the student alone, .2 of the peak
        assert milliseconds == pytest.approx(before[place] / (4 if "v5e" in place[0] else 1), rel=0.01)
    assert comparison.rows == [["student", comparison.rows[0][1], "20.0%", comparison.rows[0][3], "0.25"]]
    whole = compiled_share.share_of_peak(PROGRAM, None)
    assert whole == PROGRAM["shares"]["compute"]


def test_programs_of_other_phases_and_of_other_machines(tmp_path):
    other = compiled_share.read_programs([compiled(tmp_path, data="voices")])
    assert [t.rows for t in scaling.tables(results(), 60, other)] == [t.rows for t in scaling.tables(results(), 60, {})]
    with pytest.raises(InputError, match="is compiled for v6e:2x4"):
        compiled_share.read_programs([compiled(tmp_path, name="v6e:2x4")])
    with pytest.raises(InputError, match=r"none.json: .*--target=v5e:2x2"):
        compiled_share.read_programs([str(tmp_path / "none.json")])


def test_results_that_say_nothing_of_many_devices_are_refused(tmp_path):
    local = configuration()
    local["structure"]["rows"] = 128
    for name, change in (("one", {"devices": {"count": 1}}), ("local", {"config": local})):
        (tmp_path / f"{name}.json").write_text(json.dumps(results(**change)))
    with pytest.raises(InputError, match="one.json is of one device"):
        scaling.read([str(tmp_path / "one.json")])
    with pytest.raises(InputError, match="local.json compares groups of 128 rows"):
        scaling.read([str(tmp_path / "local.json")])
    with pytest.raises(InputError, match="none.json: .*Make it with"):
        scaling.read([str(tmp_path / "none.json")])
