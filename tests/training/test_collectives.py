"""What the devices exchange in a step: each gradient once, BatchNorm's sums, sums for the log, and two gathers.

Every array that is exchanged is accounted for by its bytes, and none is exchanged inside a loop, so that no reduction
of activations or similarities can pass. The exception is a solver whose group of rows lies on several devices: its
loops exchange points and potentials, whose size does not grow with the square of the rows.
"""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
import small_steps
from jax.sharding import PartitionSpec as P

from emokd.benchmarking.program import find_collectives, shape_bytes
from emokd.training.sharding import AXES, batch_sharding, create_mesh

DEVICES = 8
# Of BatchNorm, forward: the sums of x and x^2; backward, beside its parameters' gradients: those of mean and variance.
SUMS_OF_A_STATISTIC = 2
# A correlation's means, variances, covariance, squares and number of labels, and their gradients.
SUMS_OF_A_CORRELATION = 12
# Of a divergence: the mass that its three plans move. All else that is summed in its loops is smaller.
SUMS_OF_A_PROBLEM = 3
# Of the similarities to a teacher: the columns' sums, and their gradient.
SUMS_OF_A_CENTROID = 2
# Of a logged number the sum and the number of rows, in the log and in the total.
SUMS_OF_A_METRIC = 4


@dataclasses.dataclass
class Case:
    """A phase, and what it exchanges beside its gradients.

    Attributes:
      recipe: its name.
      phase: its name.
      batch_norm: the networks that are in training mode, among the statistics.
      correlations: how many of valence and arousal there are.
      gathered: of each example, the numbers that are compared and have gradients, and the others; of none, none.
      weighted: the teachers that are weighed.
      encoders: of arrays in training mode, whose BatchNorm counts the rows that have their modality.
      anchors: coordinates of the points that a solver exchanges in its loops; 0 without a solver.
    """

    recipe: str
    phase: str
    batch_norm: tuple[str, ...] = ()
    correlations: int = 0
    gathered: tuple[int, int] = (0, 0)
    weighted: int = 0
    encoders: int = 0
    anchors: int = 0


ENCODED = 7  # features of an encoder's norm; see small_steps
WIDTH, JOINT = 6, 3 * 6  # of a token, and of the joint features; see small_steps
STUDENT = ("student",)
CASES = [
    Case("supervised", "train", STUDENT, correlations=1),
    Case("bounded", "distill", STUDENT, correlations=2, weighted=1),
    Case("smkd", "distill", STUDENT, weighted=2),
    # Two modalities are imagined; beside a true token stands whether there is one.
    Case("mtpkdot", "hallucinate", gathered=(2 * WIDTH, 2 * (WIDTH + 1))),
    # Beside a teacher's features stand whether it has the example's modality and whether it counts.
    Case("mtpkdot", "student", STUDENT, 1, gathered=(JOINT, 4 * (JOINT + 2)), weighted=4, encoders=1, anchors=4),
]
# They compare no more than the others do, or nothing.
SLOW = [
    Case("smkd", "probe"),
    Case("smkd", "classify"),
    Case("smkd", "finetune", STUDENT),
    Case("mtpkdot", "teach", ("teacher",), correlations=3, encoders=3),
    Case("mtpkdot", "joint", correlations=1),
    Case("mtpkdot", "align", correlations=4),
]


def computations(hlo: str) -> dict[str, str]:
    """The text of each computation of a program, by name."""
    found, name = collections.defaultdict(list), ""
    for line in hlo.splitlines():
        header = re.match(r"(?:ENTRY )?%(\S+) \(.*\) -> .*\{$", line)
        name = header[1] if header else name
        found[name].append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


def apart(hlo: str) -> tuple[str, str]:
    """The text of all that loops run, conditions and whatever they call included; and of the rest."""
    parts = computations(hlo)
    waiting = set(re.findall(r"(?:condition|body)=%([\w.-]+)", hlo))
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        reached.add(name)
        # Whatever the attribute is called: calls, to_apply, branch_computations, ...
        called = re.findall(r"=(%[\w.-]+|\{%[^}]*\})", parts[name])
        waiting |= {n for some in called for n in re.findall(r"%([\w.-]+)", some) if n in parts} - reached
    inside, outside = (
        "\n".join(text for name, text in parts.items() if (name in reached) is looped) for looped in (True, False)
    )
    return inside, outside


def inside_loops(hlo: str) -> str:
    return apart(hlo)[0]


def reduced(hlo: str) -> collections.Counter[int]:
    """How many arrays of each number of bytes are summed over the devices."""
    shapes = re.findall(r" = (.*?) all-reduce(?:-done)?\(", hlo)
    return collections.Counter(shape_bytes(array) for shape in shapes for array in re.findall(r"\w+\[[\d,]*\]", shape))


def gathered(hlo: str) -> list[int]:
    """The bytes of each array that is gathered."""
    return [shape_bytes(shape) for shape in re.findall(r" = (\S+) all-gather\(", hlo)]


def leaf_bytes(tree) -> list[int]:
    return [x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda case: f"{case.recipe}-{case.phase}",
)
def test_what_the_devices_exchange_in_a_step(case):
    small = small_steps.create(case.recipe, DEVICES)
    state, phase = small.programs.abstract, small.phase(case.phase)
    step = small.step(case.phase, small.state())
    hlo = step.compiled.as_text()
    found = find_collectives(hlo)
    loops, rest = apart(hlo)
    assert loops or case.recipe == "mtpkdot" and case.phase != "student"  # a solver's, or the augmentation's keys'
    if case.anchors:  # all that is exchanged in a solver's loops
        points = 4 * small_steps.ROWS * case.anchors
        assert max(gathered(loops)) == points < 4 * small_steps.ROWS**2
        assert max(reduced(loops)) <= 4 * SUMS_OF_A_PROBLEM
        hlo, found = rest, find_collectives(rest)
    else:
        assert not find_collectives(loops)

    wanted = {}
    if any(case.gathered):
        own, others = case.gathered
        wanted["all-gather"] = {"count": 2, "bytes": 4 * small_steps.ROWS * (own + others)}
        wanted["reduce-scatter"] = {"count": 1, "bytes": 4 * small_steps.ROWS // DEVICES * own}
    assert {name: entry for name, entry in found.items() if name != "all-reduce"} == wanted

    labels = small.programs.labels
    learns = [label in phase.learns for label in jax.tree.leaves(labels)]
    gradients = [size for size, moves in zip(leaf_bytes(state.params), learns, strict=True) if moves]
    sums = reduced(hlo)
    assert not collections.Counter(gradients) - sums  # every one of them
    allowed = collections.Counter(gradients)
    for network in case.batch_norm:
        for size in leaf_bytes(state.stats[network]):
            allowed[size] += SUMS_OF_A_STATISTIC
    # How many rows have the modality, for each of the norm's features, and whether any has.
    allowed.update([4 * ENCODED, 1] * case.encoders)
    allowed[2 * 4] += SUMS_OF_A_CORRELATION * case.correlations
    allowed.update(leaf_bytes(state.tally) if case.weighted else [])
    # Of each teacher its losses' sum, by which the most confident one is chosen, its rows', and whether it counts.
    allowed.update([4 * case.weighted] * 2 + [1] * case.weighted)
    if case.anchors:  # the centroids, and the ranges of all teachers' and the student's similarities
        allowed[4 * small_steps.ROWS] += SUMS_OF_A_CENTROID * case.weighted
        allowed[4] += 2 * (case.weighted + 1)
    allowed[4] += SUMS_OF_A_METRIC * len(jax.tree.leaves(step.compiled.out_info[1]))
    assert not sums - allowed
    assert sum(size * count for size, count in sums.items()) == found["all-reduce"]["bytes"]


def by_hand(x):
    """A sum over the devices in every iteration, under a condition."""

    def more(x):
        return jax.lax.cond(x[0] > 1, lambda x: x + jax.lax.psum(x, AXES), lambda x: x + 1, x)

    return jax.shard_map(
        lambda x: jax.lax.while_loop(lambda x: x[0] < 9, more, x), in_specs=P(AXES), out_specs=P(AXES), check_vma=False
    )(x)


def by_the_compiler(x):
    """A loop whose condition asks for all rows."""
    return jax.lax.while_loop(lambda x: x.sum() < 99, lambda x: x + 1, x)


def before_the_loop(x):
    return jax.lax.while_loop(lambda x: x[0] < 9, lambda x: x + 1, x.sum(keepdims=True))


@pytest.mark.parametrize(("function", "looped"), [(by_hand, True), (by_the_compiler, True), (before_the_loop, False)])
def test_a_sum_inside_a_loop_is_found_and_one_before_it_is_not(function, looped):
    mesh = create_mesh(DEVICES)
    x = jax.ShapeDtypeStruct((DEVICES,), jnp.float32, sharding=batch_sharding(mesh))
    with jax.set_mesh(mesh):
        hlo = jax.jit(function).lower(x).compile().as_text()
    assert set(find_collectives(hlo)) == {"all-reduce"}
    assert bool(find_collectives(inside_loops(hlo))) is looped


def test_every_array_of_a_sum_counts():
    hlo = """
      %ar.1 = (f32[2]{0}, f32[4,9]{1,0}, /*index=2*/f32[2]{0}) all-reduce(%a, %b, %c), to_apply=%sum
      %ar.2 = s32[] all-reduce(%d), to_apply=%sum
      %fusion = f32[5]{0} fusion(%ar.2), calls=%all-reduce.1
    """
    assert reduced(hlo) == {8: 2, 144: 1, 4: 1}
