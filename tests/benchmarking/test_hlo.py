"""Programs for TPUs read from their text: one written by hand, whose numbers can be added up by eye."""

import jax
import numpy as np
import pytest

from emokd.benchmarking import interconnect
from emokd.benchmarking.chips import CHIPS
from emokd.benchmarking.hlo import Collective, Loop, first_group, read_profile
from emokd.training.sharding import create_mesh

# A convolution in `student`; a loop in `transport` of unknown length, which holds one of ten passes; a condition whose
# second branch is the dearer one; an all-gather in two halves; a fused reduce-scatter.
PROGRAM = """\
HloModule jit_function, is_scheduled=true, num_partitions=4

%inner_body (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.1 = (s32[]{:T(128)}, f32[8]{0:T(256)}) parameter(0)
  ROOT %f.1 = (s32[]{:T(128)}, f32[8]{0:T(256)}) fusion(%p.1), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/part.transport/while/body/while/body/add"}, backend_config={"estimated_cycles":"100"}
}

%inner_condition (p.2: (s32[], f32[8])) -> pred[] {
  %p.2 = (s32[]{:T(128)}, f32[8]{0:T(256)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %waste.2 = s32[]{:T(128)} fusion(%i.2), kind=kLoop, calls=%fused.lt, backend_config={"estimated_cycles":"10"}
  %constant.2 = s32[]{:T(128)} constant(10)
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.2, %constant.2), direction=LT
}

%body (p.3: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.3 = (s32[]{:T(128)}, f32[8]{0:T(256)}) parameter(0)
  %while.1 = (s32[]{:T(128)}, f32[8]{0:T(256)}) while(%p.3), condition=%inner_condition, body=%inner_body, metadata={op_name="jit(f)/part.transport/while/body/while"}
  ROOT %f.2 = (s32[]{:T(128)}, f32[8]{0:T(256)}) fusion(%while.1), kind=kLoop, calls=%fused.2, metadata={op_name="jit(f)/transpose(part.transport)/exp"}, backend_config={"estimated_cycles":"400"}
}

%condition (p.4: (s32[], f32[8])) -> pred[] {
  %p.4 = (s32[]{:T(128)}, f32[8]{0:T(256)}) parameter(0)
  ROOT %lt.2 = pred[]{:T(512)} fusion(%p.4), kind=kLoop, calls=%fused.lt, metadata={op_name="jit(f)/part.transport/while/cond/lt"}, backend_config={"estimated_cycles":"50"}
}

%cheap (p.5: f32[8]) -> f32[8] {
  ROOT %p.5 = f32[8]{0:T(256)} parameter(0)
}

%dear (p.6: f32[8]) -> f32[8] {
  %p.6 = f32[8]{0:T(256)} parameter(0)
  ROOT %f.3 = f32[8]{0:T(256)} fusion(%p.6), kind=kLoop, calls=%fused.3, metadata={op_name="jit(f)/part.optimiser/mul"}, backend_config={"estimated_cycles":"2000"}
}

%all-reduce-scatter (p.7: f32[32]) -> f32[8] {
  %p.7 = f32[32]{0:T(256)} parameter(0)
  ROOT %reduce-scatter.1 = f32[8]{0:T(256)} reduce-scatter(%p.7), channel_id=2, replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}, to_apply=%add
}

ENTRY %main (arg.0: f32[8], arg.1: bf16[8,4]) -> f32[8] {
  %arg.0 = f32[8]{0:T(256)} parameter(0)
  %arg.1 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(1)
  %convolution.1 = bf16[8,4]{1,0:T(8,128)(2,1)} convolution(%arg.1), window={size=1}, metadata={op_name="jit(f)/jvp(part.student)/conv"}, backend_config={"estimated_cycles":"9000"}
  %all-gather-start.1 = (f32[8]{0:T(256)}, f32[32]{0:T(256)}) all-gather-start(%arg.0), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  %all-gather-done.1 = f32[32]{0:T(256)} all-gather-done(%all-gather-start.1)
  %fusion.9 = f32[8]{0:T(256)} fusion(%all-gather-done.1), kind=kCustom, calls=%all-reduce-scatter, backend_config={"estimated_cycles":"30"}
  %tuple.1 = (s32[]{:T(128)}, /*index=1*/f32[8]{0:T(256)}) tuple(%fusion.9)
  %while.2 = (s32[]{:T(128)}, /*index=1*/f32[8]{0:T(256)}) while(%tuple.1), condition=%condition, body=%body, metadata={op_name="jit(f)/part.transport/while"}
  ROOT %conditional.1 = f32[8]{0:T(256)} conditional(%while.2), branch_computations={%cheap, %dear}, metadata={op_name="jit(f)/cond"}
}
"""  # noqa: E501


def test_cycles_by_part_with_loops_counted_once():
    profile = read_profile(PROGRAM)
    assert profile.parts == {
        "student": 9000,
        "rest": 30 + 10 * 10,  # the inner loop's condition has no name
        "transport": 50 + 400 + 10 * 100,
        "optimiser": 2000,
    }
    assert profile.cycles == sum(profile.parts.values())
    assert profile.operations == 1 + 1 + (1 + 1 + 10 + 10) + 1
    assert profile.small == profile.cycles - 9000


def test_loops_of_unknown_length_run_as_often_as_is_said():
    once, often = read_profile(PROGRAM), read_profile(PROGRAM, trips=60)
    inside = 50 + 400 + 10 * (100 + 10)
    assert often.cycles - once.cycles == 59 * inside
    assert once.loops == [Loop("transport", inside, 1, False), Loop("transport", 110, 10, True)]
    assert often.loops == [Loop("transport", inside, 60, False), Loop("transport", 110, 10, True)]


def test_a_program_may_say_how_often_a_loop_runs():
    loop = "while(%tuple.1), condition=%condition, body=%body"
    stated = PROGRAM.replace(loop, loop + ', backend_config={"known_trip_count":{"n":"3"}}')
    assert read_profile(stated, trips=60).loops[0] == Loop("transport", 1550, 3, True)


def test_a_loop_that_counts_to_what_is_computed_has_no_known_length():
    text = PROGRAM.replace("compare(%i.2, %constant.2), direction=LT", "compare(%i.2, %waste.2), direction=LT")
    assert [loop.known for loop in read_profile(text).loops] == [False, False]


def test_collectives_are_found_in_two_halves_and_in_fusions():
    assert read_profile(PROGRAM).collectives == [
        Collective("all-gather", 32 * 4, (0, 1, 2, 3), 1),
        Collective("reduce-scatter", 8 * 4, (0, 2), 1),
    ]


CARRIED = """\
%async_collective_fusion.1 (p.9: f32[8]) -> f32[32] {
  %p.9 = f32[8]{0:T(256)} parameter(0)
  ROOT %all-gather.9 = f32[32]{0:T(256)} all-gather(%p.9), channel_id=1, replica_groups={}, dimensions={0}
}

%begin (p.10: f32[8]) -> f32[32] {
  %p.10 = f32[8]{0:T(256)} parameter(0)
  %all-gather.10 = f32[32]{0:T(256)} all-gather(%p.10), channel_id=1, replica_groups={}, dimensions={0}
  ROOT %custom-call.10 = f32[32]{0:T(256)} custom-call(%all-gather.10), custom_call_target="AsyncCollectiveStart"
}

%end (p.11: f32[8]) -> f32[32] {
  %p.11 = f32[8]{0:T(256)} parameter(0)
  %all-gather.11 = f32[32]{0:T(256)} all-gather(%p.11), channel_id=1, replica_groups={}, dimensions={0}
  ROOT %custom-call.11 = f32[32]{0:T(256)} custom-call(%all-gather.11), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (arg.0: f32[8]) -> f32[32] {
  %arg.0 = f32[8]{0:T(256)} parameter(0)
  %start = f32[32]{0:T(256)} fusion(%arg.0), kind=kCustom, calls=%begin
  %beside = f32[32]{0:T(256)} fusion(%start), kind=kOutput, calls=%async_collective_fusion.1
  %done = f32[32]{0:T(256)} fusion(%beside), kind=kCustom, calls=%end
  ROOT %all-gather.12 = f32[32]{0:T(256)} all-gather(%arg.0), channel_id=1, replica_groups={}, dimensions={0}
}
"""


def test_a_collective_beside_other_operations_counts_once():
    """Two all-gathers on one channel; the first is written down three times."""
    assert read_profile(CARRIED).collectives == [Collective("all-gather", 128, (), 1)] * 2


def test_a_fusion_without_a_name_belongs_where_its_operations_do():
    name = ', metadata={op_name="jit(f)/jvp(part.student)/conv"}'
    inside = 'ROOT %mul.1 = f32[8]{0:T(256)} multiply(%p.8, %p.8), metadata={op_name="jit(f)/part.face/mul"}'
    fused = f"\n%fused.8 (p.8: f32[8]) -> f32[8] {{\n  %p.8 = f32[8]{{0:T(256)}} parameter(0)\n  {inside}\n}}\n\nENTRY"
    text = PROGRAM.replace(name, ", calls=%fused.8").replace("\nENTRY", fused)
    assert read_profile(text).parts["face"] == 9000 and "student" not in read_profile(text).parts


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}, x", (0, 2)),
        ("replica_groups={}", ()),
        ("replica_groups=[1,8]<=[8]", tuple(range(8))),
        ("replica_groups=[4,2]<=[8]", (0, 1)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, x", (0, 2, 4, 6)),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, x", (0, 1)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0','axis_1'}, x", (0, 1, 2, 3)),
    ],
)
def test_groups(text, group):
    assert first_group(text) == group


def test_axes_of_the_mesh():
    mesh = create_mesh(8, data=4, fsdp=2)
    axes = {(): "data, fsdp", (0, 1): "fsdp", (0, 2, 4, 6): "data", (0, 4): "other"}
    assert {group: interconnect.axis_of(Collective("all-reduce", 4, group, 1), mesh) for group in axes} == axes
    assert interconnect.axis_of(Collective("all-reduce", 4, (), 1), create_mesh(8)) == "data"


def test_time_on_the_interconnect_by_hand():
    v5e = CHIPS["v5e"]
    # 256 chips of 16x16: 8 + 8 hops; twice round the ring for an all-reduce, at 2 x 50 GB/s.
    reduced = interconnect.seconds(Collective("all-reduce", 2**20, (), 1), 256, (16, 16), v5e)
    assert reduced == pytest.approx(2 * (16e-6 + 2**20 * 255 / 256 / 100e9))
    gathered = interconnect.seconds(Collective("all-gather", 2**20, (0, 1, 2, 3), 1), 4, (2, 2), v5e)
    scattered = interconnect.seconds(Collective("reduce-scatter", 2**18, (0, 1, 2, 3), 1), 4, (2, 2), v5e)
    assert gathered == pytest.approx(2e-6 + 2**20 * 3 / 4 / 100e9) == scattered
    assert interconnect.seconds(Collective("all-reduce", 2**20, (0,), 1), 4, (2, 2), v5e) == 0


def test_clocks_are_those_that_are_published():
    """The peak over what the matrix units do in a cycle: 700, 940 and 1050 MHz by the papers on v2, v3 and v4."""
    clocks = [CHIPS[name].clock for name in ("v2", "v3", "v4")]
    np.testing.assert_allclose(clocks, [700e6, 940e6, 1050e6], rtol=0.005)


def test_what_the_cpu_compiles_has_no_cycles():
    compiled = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((4, 4), np.float32)).compile()
    assert read_profile(compiled.as_text()).cycles == 0
