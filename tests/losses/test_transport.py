"""The Sinkhorn divergence, compared with known answers, GeomLoss, and a long float64 Sinkhorn in NumPy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from lazily import Lazily

from emokd.errors import InputError
from emokd.losses import structure, transport

torch = Lazily("torch")
geomloss = Lazily("geomloss")

SOLVERS = sorted(transport.SOLVERS)
T = np.arange(24).reshape(8, 3)
VECTOR_A = (np.cos(T / 2), np.sin(T))  # student y, teacher x
VECTOR_B = (np.cos(0.23 * np.arange(80) + 0.5).reshape(16, 5), np.sin(0.37 * np.arange(80)).reshape(16, 5))


def random_clouds(points, dimensions, spread=1.0, seed=0):
    """A student's and a teacher's cloud; the teacher's in three clumps, as a batch of classes is."""
    rng = np.random.default_rng(seed)
    clumps = rng.normal(size=(3, dimensions))[np.arange(points) % 3]
    teacher = clumps + 0.2 * rng.normal(size=(points, dimensions))
    student = 0.7 * clumps + 0.4 * rng.normal(size=(points, dimensions)) + 0.1
    return (spread * student).astype(np.float32), (spread * teacher).astype(np.float32)


def structure_clouds(rows, k, seed=0):
    """Clouds of cosines, as the recipe transports them."""
    student, teacher = random_clouds(rows, 24, seed=seed)
    return (np.asarray(cloud) for cloud in structure.clouds(jnp.asarray(student), jnp.asarray(teacher), k=k))


def as_jax(*clouds):
    return [jnp.asarray(cloud, jnp.float32) for cloud in clouds]


@functools.partial(jax.jit, static_argnames="solver")
def solve(student, teacher, mask, solver):
    """The result, and the gradients of the mean over the rows that count, as the trainer takes it.

    The numbers for the log are added to the loss: they must change no gradient.
    """

    def loss(student, teacher):
        result = transport.sinkhorn_divergence(student, teacher, solver=solver, mask=mask)
        rows = mask.astype(result.values.dtype)
        return (result.values * rows).sum() / jnp.maximum(rows.sum(), 1) + sum(result[1:]), result

    slopes, result = jax.grad(loss, argnums=(0, 1), has_aux=True)(student, teacher)
    return result, slopes


def divergence(student, teacher, solver, mask=None):
    """Value and the student's gradient; the teacher has none, whatever the case."""
    mask = np.ones(len(student), bool) if mask is None else mask
    result, slopes = solve(jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(mask), solver)
    np.testing.assert_array_equal(slopes[1], 0)
    return float(result.values[mask][0]), np.asarray(slopes[0])


def of_geomloss(student, teacher, mask=None):
    """GeomLoss's value and gradient, in float64."""
    y = torch.tensor(np.asarray(student, np.float64), requires_grad=True)
    x = torch.tensor(np.asarray(teacher, np.float64))
    weights = np.full(len(y), 1 / len(y)) if mask is None else mask / mask.sum()
    value = geomloss.SamplesLoss("sinkhorn", p=2, blur=0.1)(torch.tensor(weights), x, torch.tensor(weights), y)
    value.backward()
    return value.item(), y.grad.numpy()


def of_newton(student, teacher, blur=0.1):
    """S and its gradient in float64: Sinkhorn, then Newton's method, until the marginals are right to 1e-10."""
    student, teacher = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    epsilon, n = blur**2, len(student)

    def log_sum_exp(exponents):
        highest = exponents.max(1, keepdims=True)
        return highest[:, 0] + np.log(np.exp(exponents - highest).sum(1))

    def plan_and_cost(x, y):
        costs = ((x[:, None] - y[None]) ** 2).sum(-1) / 2 / epsilon + 2 * np.log(n)
        f, g = np.zeros(n), np.zeros(n)
        for _ in range(2000):
            softmins = -log_sum_exp(g[None] - costs) - np.log(n), -log_sum_exp(f[None] - costs.T) - np.log(n)
            f, g = (f + softmins[0]) / 2, (g + softmins[1]) / 2
        for _ in range(50):
            plan = np.exp(f[:, None] + g[None] - costs)
            residual = np.concatenate([1 / n - plan.sum(1), 1 / n - plan.sum(0)])
            if np.abs(residual).sum() < 1e-10:
                return plan, epsilon * (f.mean() + g.mean())
            hessian = np.block([[np.diag(plan.sum(1)), plan], [plan.T, np.diag(plan.sum(0))]])
            move = np.linalg.lstsq(hessian, residual, rcond=1e-15)[0]
            f, g = f + move[:n], g + move[n:]
        raise AssertionError("the reference does not converge")

    between, cost = plan_and_cost(student, teacher)
    itself, own = plan_and_cost(student, student)
    _, theirs = plan_and_cost(teacher, teacher)
    # y_i times the row's mass, 1/n, is in both terms and cancels.
    return cost - own / 2 - theirs / 2, itself @ student - between @ teacher


def cases(name):
    clouds = {
        "structure": lambda: structure_clouds(40, 12),
        "whole rows": lambda: structure.clouds(*as_jax(*VECTOR_B), k=0),
        "few points": lambda: random_clouds(6, 2, 0.5),
        "vector a": lambda: VECTOR_A,
        "vector b": lambda: structure.clouds(*as_jax(*VECTOR_B), k=4),
    }[name]()
    return [np.asarray(cloud, np.float32) for cloud in clouds]


# Known answers


def test_vector_a():
    student, teacher = (points.astype(np.float32) for points in VECTOR_A)
    result, (slope, _) = solve(*as_jax(student, teacher), jnp.ones(8, bool), "geomloss")
    np.testing.assert_allclose(result.values, np.full(8, 0.4423065378092769), atol=1e-6)
    np.testing.assert_allclose(result.cost, 0.4628856323847055, atol=1e-6)
    np.testing.assert_allclose(slope[0], [0.12473614415223358, 0.005200986732384061, -0.044659079244005], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(slope), 0.29877683119633813, atol=1e-6)
    swapped, slope = divergence(teacher, student, "geomloss")
    np.testing.assert_allclose(swapped, result.values[0], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(slope), 0.24383228172409413, atol=1e-6)
    assert abs(divergence(teacher, teacher, "geomloss")[0]) < 1e-7


def test_vector_a_in_double_precision():
    with jax.enable_x64(True):
        value, slope = divergence(*VECTOR_A, "geomloss")
        assert slope.dtype == np.float64
        np.testing.assert_allclose(value, 0.4423065378092769, rtol=1e-13)
        np.testing.assert_allclose(slope[0], [0.12473614415223358, 0.005200986732384061, -0.044659079244005], rtol=1e-9)
        assert divergence(*VECTOR_A, "converged")[1].dtype == np.float64


@pytest.mark.parametrize(("k", "expected"), [(4, 2.9141360128523814), (0, 8.330825831508534)])
def test_vector_b(k, expected):
    student, teacher = (jnp.asarray(features, jnp.float32) for features in VECTOR_B)
    result, _ = solve(*structure.clouds(student, teacher, k=k), jnp.ones(16, bool), "geomloss")
    np.testing.assert_allclose(result.values, np.full(16, expected), rtol=2e-6)


# GeomLoss itself


@pytest.mark.parametrize(
    ("points", "dimensions", "spread"),
    [(12, 4, 1.0), (24, 30, 1.0), (33, 7, 5.0), (12, 4, 0.01), (2, 1, 1.0)],
)
def test_the_annealed_solver_agrees_with_geomloss(points, dimensions, spread):
    student, teacher = random_clouds(points, dimensions, spread)
    value, slope = divergence(student, teacher, "geomloss")
    expected, expected_slope = of_geomloss(student, teacher)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-9)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-3, atol=2e-5 * np.abs(expected_slope).max())


def test_masked_rows_are_geomloss_weights_of_zero():
    student, teacher = random_clouds(12, 4)
    # Inside of the box of the others, so that GeomLoss starts from the same diameter.
    student[[3, 8]], teacher[[3, 8]] = 0.1, 0.0
    mask = np.ones(12, bool)
    mask[[3, 8]] = False
    expected, expected_slope = of_geomloss(student, teacher, mask)
    value, slope = divergence(student, teacher, "geomloss", mask)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-3, atol=1e-6)


def test_gradient_of_features_agrees_with_pytorch_and_geomloss():
    def loss(student, teacher):
        clouds = structure.clouds(student, teacher, k=4)
        return transport.sinkhorn_divergence(*clouds, solver="geomloss").values.mean()

    student, teacher = (features.astype(np.float32) for features in VECTOR_B)
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(student), jnp.asarray(teacher))

    f_s, f_t = torch.tensor(student, requires_grad=True), torch.tensor(teacher)
    s_s, s_t = (torch.nn.functional.normalize(f) @ torch.nn.functional.normalize(f).T for f in (f_s, f_t))
    columns = s_t.argsort(dim=1)[:, :4]
    x, y = ((s - s.min()).gather(1, columns) for s in (s_t, s_s))
    geomloss.SamplesLoss("sinkhorn", p=2, blur=0.1)(x, y).backward()
    np.testing.assert_allclose(slopes[0], f_s.grad, rtol=1e-3, atol=1e-5 * f_s.grad.abs().max())
    np.testing.assert_array_equal(slopes[1], 0)


# A converged reference


@pytest.mark.parametrize("case", ["structure", "whole rows", "few points", "vector a", "vector b"])
def test_the_converged_solver_is_right_and_geomloss_is_near(case):
    student, teacher = cases(case)
    result, _ = solve(*as_jax(student, teacher), jnp.ones(len(student), bool), "converged")
    assert result.converged == 1 and result.error < 1e-3 and result.iterations >= 5
    expected, expected_slope = of_newton(student, teacher)
    length = np.linalg.norm(expected_slope)
    for solver in ("converged", "ott"):
        value, slope = divergence(student, teacher, solver)
        np.testing.assert_allclose(value, expected, rtol=5e-5)
        assert np.linalg.norm(slope - expected_slope) < 6e-3 * length
    # The bounds that the module's docstring gives for the annealed solver.
    value, slope = divergence(student, teacher, "geomloss")
    assert abs(value - expected) < 0.05 * expected
    assert 6e-3 * length < np.linalg.norm(slope - expected_slope) < (0.35 if case == "few points" else 0.2) * length


def test_the_log_says_what_was_not_converged():
    result, _ = solve(*as_jax(*VECTOR_A), jnp.ones(8, bool), "geomloss")
    box = np.concatenate(VECTOR_A).max(0) - np.concatenate(VECTOR_A).min(0)
    # The squared diameter twice, quarters of it, blur^2.
    assert result.iterations == 2 + np.ceil(np.log2(np.linalg.norm(box) / 0.1))
    assert result.converged == 0 and result.error > 0.1


def test_both_solvers_log_the_cost_without_debiasing():
    clouds = as_jax(*random_clouds(12, 4))
    mask = jnp.arange(12) < 10
    converged, annealed = (solve(*clouds, mask, solver)[0] for solver in ("converged", "geomloss"))
    np.testing.assert_allclose(converged.cost, annealed.cost, rtol=0.1)
    assert converged.cost > converged.values[0] + 1e-3


# Properties of both


@pytest.mark.parametrize("solver", SOLVERS)
def test_equal_clouds_are_at_no_distance(solver):
    _, teacher = random_clouds(12, 4)
    value, slope = divergence(teacher, teacher, solver)
    assert abs(value) < 1e-5  # the square of what the marginals may be off by, in the slowest mode
    np.testing.assert_allclose(slope, 0, atol=5e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_order_of_the_examples_does_not_matter(solver):
    student, teacher = random_clouds(12, 4)
    order = np.random.default_rng(1).permutation(12)
    value, slope = divergence(student, teacher, solver)
    # Each cloud by itself may be permuted: the transport does not know the pairs.
    permuted, permuted_slope = divergence(student[order], teacher, solver)
    np.testing.assert_allclose(permuted, value, rtol=1e-5)
    np.testing.assert_allclose(permuted_slope, slope[order], atol=5e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_clouds_far_from_the_origin_lose_no_digits(solver):
    student, teacher = random_clouds(12, 4)
    student, teacher = np.round(student, 2), np.round(teacher, 2)
    value, slope = divergence(student, teacher, solver)
    moved, moved_slope = divergence(student + 64, teacher + 64, solver)
    np.testing.assert_allclose(moved, value, rtol=1e-3)
    np.testing.assert_allclose(moved_slope, slope, atol=2e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_that_do_not_count_do_nothing(solver):
    student, teacher = random_clouds(12, 4)
    mask = np.arange(12) % 4 != 2
    expected, expected_slope = divergence(student[mask], teacher[mask], solver)
    for filling in (0.0, 1e6, np.nan, np.inf):
        student[~mask], teacher[~mask] = filling, filling
        result, (slope, _) = solve(*as_jax(student, teacher), jnp.asarray(mask), solver)
        np.testing.assert_allclose(result.values, np.where(mask, expected, 0), rtol=1e-5)
        np.testing.assert_allclose(slope[mask], expected_slope, atol=1e-5)
        np.testing.assert_array_equal(slope[~mask], 0)
        assert np.isfinite([float(number) for number in result[1:]]).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_batch_without_rows_that_count_has_no_loss(solver):
    result, (slope, _) = solve(*as_jax(*random_clouds(12, 4)), jnp.zeros(12, bool), solver)
    np.testing.assert_array_equal(result.values, 0)
    np.testing.assert_array_equal(slope, 0)
    assert np.isfinite([float(number) for number in result[1:]]).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_a_nan_stays_visible(solver, whose, what):
    student, teacher = random_clouds(12, 4)
    (student if whose == "student" else teacher)[2, 1] = what
    value, slope = divergence(student, teacher, solver)
    assert np.isnan(value) and np.isnan(slope).any()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("apart", [0.0, 1e-6, 0.05, 2.0])
def test_points_that_coincide(solver, apart):
    teacher = np.zeros((12, 4), np.float32)
    student = teacher + np.float32([apart, 0, 0, 0])
    value, slope = divergence(student, teacher, solver)
    np.testing.assert_allclose(value, apart**2 / 2, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(slope[:, 0], apart / 12, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
def test_half_precision_is_only_the_inputs(solver):
    clouds = [cloud.astype(jnp.bfloat16) for cloud in as_jax(*random_clouds(12, 4))]
    everyone = jnp.ones(12, bool)
    result, (slope, _) = solve(*clouds, everyone, solver)
    exact, _ = solve(*as_jax(*clouds), everyone, solver)
    assert result.values.dtype == jnp.float32 and slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.values, exact.values, rtol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_matrix_product_is_of_the_highest_precision_and_nothing_calls_the_host(solver):
    def loss(student, teacher):
        return transport.sinkhorn_divergence(student, teacher, solver=solver).values.sum()

    student, teacher = (jnp.asarray(points) for points in random_clouds(8, 3))
    with jax.default_matmul_precision("bfloat16"):
        program = str(jax.make_jaxpr(jax.grad(loss))(student, teacher))
    products = re.findall(r"dot_general\[(.*?)\] ", program, re.DOTALL)
    assert len(products) >= 4
    # Products with vectors of weights do not pass through the costs, but are as precise.
    assert all("HIGHEST" in product for product in products)
    assert "callback" not in program


@pytest.mark.parametrize("solver", SOLVERS)
def test_differentiated_from_outside_of_jit(solver):
    student, teacher = (jnp.asarray(points) for points in random_clouds(12, 4))
    compiled = jax.jit(lambda y: transport.sinkhorn_divergence(y, teacher, solver=solver).values.mean())
    _, slope = divergence(student, teacher, solver)
    np.testing.assert_allclose(jax.grad(compiled)(student), slope, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_on_a_mesh_with_replicated_clouds(solver):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    everywhere = NamedSharding(mesh, PartitionSpec())
    student, teacher = random_clouds(12, 4)

    def loss(student, teacher):
        clouds = (jax.lax.with_sharding_constraint(cloud, everywhere) for cloud in (student, teacher))
        return transport.sinkhorn_divergence(*clouds, solver=solver).values.mean()

    split = NamedSharding(mesh, PartitionSpec("data"))
    value, slope = jax.jit(jax.value_and_grad(loss))(*(jax.device_put(cloud, split) for cloud in (student, teacher)))
    expected, expected_slope = divergence(student, teacher, solver)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-5)


def test_refuses_what_does_not_fit():
    cloud = jnp.zeros((4, 3))
    with pytest.raises(InputError, match="same shape"):
        transport.sinkhorn_divergence(cloud, jnp.zeros((5, 3)))
    with pytest.raises(InputError, match="Did you mean 'geomloss'"):
        transport.sinkhorn_divergence(cloud, cloud, solver="geomlos")
    with pytest.raises(InputError, match="blur must be above 0"):
        transport.sinkhorn_divergence(cloud, cloud, blur=0.0)
    with pytest.raises(InputError, match="mask must be bool"):
        transport.sinkhorn_divergence(cloud, cloud, mask=jnp.ones(4))
