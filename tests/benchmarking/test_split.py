"""Steps without one of their parts: what is left is what it was, and nothing else is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_steps
from jax.extend import core
from small_steps import ROWS

from emokd.benchmarking.split import LOSSES, Dissection, split_step
from emokd.benchmarking.timing import Rule
from emokd.models.cost import describe
from emokd.models.network import functional
from emokd.parts import OPTIMISER, part, part_of
from emokd.training.step import gradients, split_parameters

TRANSPORT = "transport, centroid"


class Setup:
    """A phase's step on one device, apart."""

    def __init__(self, name, phase):
        small = small_steps.create(name, 1)
        self.recipe, self.programs, self.mesh = small.recipe, small.programs, small.programs.mesh
        self.phase, self.constants, self.batch = small.phase(phase), small.constants, small.sharded()
        self.state = small.state()
        leaves = small.step(phase, self.state).flatten(self.state)
        self.arguments = (*leaves, self.constants, self.batch)
        index = self.recipe.phases.index(self.phase)
        self.dissection = Dissection(self.programs.trace(index, self.state, self.constants, self.batch), self.arguments)

    @functools.cache  # noqa: B019
    def run(self, name):
        """What the step computes without this part: variables and values."""
        piece = self.dissection.without(name)
        with jax.set_mesh(self.mesh):
            found = self.dissection.compile(piece)(jax.tree.map(jnp.copy, self.arguments[0]))
        return dict(zip(piece.given, found, strict=True))

    def gradients(self):
        """Of what learns, as the step has them."""
        labels = self.programs.labels
        with jax.set_mesh(self.mesh):
            found = jax.jit(lambda *given: gradients(self.recipe, self.phase, labels, *given)[0])(
                self.state, self.constants, self.batch
            )
        return split_parameters(found, labels, set(self.phase.learns))[0]


@pytest.fixture(scope="module")
def smkd():
    return Setup("smkd", "distill")


@pytest.fixture(scope="module")
def mtpkdot():
    return Setup("mtpkdot", "student")


def primitives(jaxpr):
    """The names of all operations in it, wherever they lie."""
    found = set()
    for equation in jaxpr.eqns:
        found |= {equation.primitive.name}.union(*map(primitives, core.jaxprs_in_params(equation.params)))
    return found


def test_parts_are_those_of_the_phase(smkd, mtpkdot):
    assert set(smkd.dissection.parts) == {"augmentation", "one", "two", "student", OPTIMISER, LOSSES}
    assert set(mtpkdot.dissection.parts) == {"joint", "student", TRANSPORT, OPTIMISER, LOSSES}
    assert smkd.dissection.entangled == mtpkdot.dissection.entangled == []


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("smkd", ("augmentation", "one", "student")),
        ("mtpkdot", ("joint", "student", TRANSPORT, OPTIMISER, LOSSES)),
    ],
)
@pytest.mark.slow
def test_what_is_left_computes_what_the_step_computes(request, name, parts):
    """What parts pass on and what the step returns; and no variant changes the step's state."""
    setup = request.getfixturevalue(name)
    before = [np.array(leaf) for leaf in setup.arguments[0]]
    expected = {**setup.dissection.values, **setup.run("no part")}
    for taken in parts:
        for variable, value in setup.run(taken).items():
            if jnp.issubdtype(value.dtype, jnp.number):
                np.testing.assert_allclose(value, expected[variable], rtol=1e-3, atol=1e-5)
    for leaf, then in zip(setup.arguments[0], before, strict=True):
        np.testing.assert_array_equal(leaf, then)


@pytest.mark.slow
def test_the_step_without_optimiser_returns_the_gradients(mtpkdot):
    found = mtpkdot.run(OPTIMISER).values()
    for gradient in mtpkdot.gradients():
        alike = [x for x in found if x.shape == gradient.shape and x.dtype == gradient.dtype]
        assert any(np.allclose(x, gradient, rtol=1e-3, atol=1e-5) for x in alike)


def test_without_transport_there_is_no_loop(mtpkdot):
    whole, piece = mtpkdot.dissection, mtpkdot.dissection.without(TRANSPORT)
    assert piece.macs < whole.macs
    assert "while" in primitives(whole.alone(TRANSPORT).jaxpr.jaxpr)
    assert not {"while", "scan"} & primitives(piece.jaxpr.jaxpr)


def test_without_a_teacher_its_forward_pass_is_missing(smkd, mtpkdot):
    dead_head = {}
    for name in ("one", "two"):
        spec = smkd.recipe.networks[name]
        dead_head[name] = functional(spec).module.backbone.feature_size * 5
        expected = ROWS * (describe(spec)["macs"] - dead_head[name])
        assert smkd.dissection.macs - smkd.dissection.without(name).macs == expected
    spec = mtpkdot.recipe.networks["joint"]
    dead_head = 2 * functional(spec).module.feature_size  # by expressions alone it is judged how much a teacher counts
    expected = ROWS * (describe(spec)["macs"] - dead_head)
    assert mtpkdot.dissection.macs - mtpkdot.dissection.without("joint").macs == expected


def test_a_step_is_its_parts(smkd, mtpkdot):
    for whole in (smkd.dissection, mtpkdot.dissection):
        for name in whole.parts:
            assert whole.macs - whole.without(name).macs == whole.alone(name).macs
        assert sum(whole.alone(name).macs for name in whole.parts) == whole.macs


def trace(function, *arguments):
    jitted = jax.jit(lambda moving, resting, constants, batch: function(*moving, *resting), donate_argnums=0)
    given = (list(arguments[:1]), list(arguments[1:]), {}, {})
    return Dissection(jitted.trace(*given), given), jitted.trace(*given).lower().compile(), given


def test_a_step_by_hand():
    """a = x w, b = (a - 1)^2 summed with a constant that nobody feeds; x moves by b's gradient."""

    def step(x, w):
        def loss(x):
            with part("a"):
                a = x @ w
            with part("b"):
                return ((a - jnp.ones((2, 5)) * jnp.eye(2, 5)) ** 2).sum()

        value, slope = jax.value_and_grad(loss)(x)
        with part("c"):
            return [x - slope], {"loss": value}

    x, w = jnp.arange(6.0).reshape(2, 3), jnp.ones((3, 5))
    dissection, compiled, given = trace(step, x, w)
    assert dissection.parts == {"a": "forward and backward", "b": "forward and backward", "c": "forward"} | {
        LOSSES: dissection.parts[LOSSES]
    }
    shapes = {
        name: [[v.aval.shape for v in variables] for variables in (piece.fed, piece.given)]
        for name, piece in ((name, dissection.without(name)) for name in "abc")
    }
    assert shapes["a"] == [[(2, 5), (2, 3)], [(), (2, 5), (2, 3)]]  # a, slope -> loss, cotangent of a, new x
    assert shapes["b"] == [[(2, 5)], [(2, 5), (2, 3)]]  # cotangent of a -> a, new x
    assert shapes["c"] == [[], [(), (2, 3)]]  # nothing -> loss, slope
    (found,) = [v for v in split_step(dissection, compiled, given, Rule(0, 1)) if v["part"] == "a"]
    assert found["macs"] == 2 * 2 * 3 * 5
    np.testing.assert_array_equal(given[0][0], x)


def test_a_part_inside_a_loop_is_not_taken_apart():
    def step(x):
        def body(total, _):
            with part("inner"):
                return total * 2, None

        return [jax.lax.scan(body, x, None, length=3)[0]], {"loss": x.sum()}

    dissection, compiled, given = trace(step, jnp.ones(3))
    assert dissection.entangled == ["inner"] and list(dissection.parts) == [LOSSES]
    last = split_step(dissection, compiled, given, Rule(0, 1))[-1]
    assert last == {"part": "inner", "what": "not taken apart", "seconds": None, "share": None, "macs": None}


def test_names_of_parts():
    assert part_of("transpose(jvp(part.student))/part.augmentation/dot") == "student"
    assert part_of("jvp()") is None
