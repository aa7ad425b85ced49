"""Every loss and its gradient at hard numbers, against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lazily import Lazily
from numbers_setup import LARGEST, assert_close, exact, masks, matrices

from emokd.losses import affect, bounded, features, mmd, soft_targets, structure, transport

torch = Lazily("torch")

ROWS = st.sampled_from((2, 5))
COLUMNS = 3
NOTHING = 1e-35  # rows below it have no direction, see `emokd.losses.shapes`


@functools.cache
def compiled(loss, options):
    def both(*arguments):
        values, back = jax.vjp(lambda x: loss(x, *arguments[1:], **dict(options)), arguments[0])
        return values, back(jnp.ones_like(values))[0]

    return jax.jit(both)


def of(loss, *arguments, **options):
    """Values, and the gradient of their sum with respect to the first argument; one program for each kind of call."""
    values, slope = compiled(loss, tuple(options.items()))(*map(jnp.asarray, arguments))
    assert values.dtype == jnp.float32 and slope.dtype == arguments[0].dtype
    return np.asarray(values), np.asarray(slope).astype(np.float64)


def by_torch(loss, first, *rest):
    """The same of a formula in float64."""
    x = torch.tensor(exact(first), requires_grad=True)
    values = loss(x, *(torch.tensor(exact(each)) if each.dtype != bool else torch.tensor(each) for each in rest))
    slope = torch.autograd.grad(values.sum(), x)[0] if values.requires_grad else torch.zeros_like(x)
    return values.detach().numpy(), slope.numpy()


def check(found, expected, first, *, size=0.0, slopes=0.0):
    """`size` and `slopes` are magnitudes of what was added up. A gradient is rounded to its argument's dtype."""
    assert_close(found[0], expected[0], scale=size)
    # A gradient through a value that is not finite is of no use; the step looks at the value too.
    if np.isfinite(found[0]).all():
        assert_close(found[1], expected[1], rtol=1e-4 if first.dtype == np.float32 else 1e-2, scale=slopes)


@given(st.data(), ROWS)
def test_mean_squared(data, rows):
    s, t = (data.draw(matrices((rows, COLUMNS))) for _ in "st")
    check(of(features.mean_squared, s, t), by_torch(lambda a, b: ((a - b) ** 2).mean(-1), s, t), s)


def largest(x):
    return x.abs().amax(-1, keepdim=True).detach()


def directions(x):
    nothing = largest(x) < NOTHING
    x = torch.where(nothing, 0.0, x) / torch.where(nothing, 1.0, largest(x))
    return torch.where(nothing, 0.0, x / torch.where(nothing, 1.0, (x**2).sum(-1, keepdim=True)).sqrt())


def one_over_size(x):
    size = np.abs(exact(x)).max(-1, keepdims=True)
    return np.where(size < NOTHING, 0.0, 1 / np.where(size < NOTHING, 1.0, size))


@given(st.data(), ROWS)
def test_cosine(data, rows):
    s, t = (data.draw(matrices((rows, COLUMNS))) for _ in "st")
    found = of(features.cosine, s, t)
    check(found, by_torch(lambda a, b: 1 - (directions(a) * directions(b)).sum(-1), s, t), s, slopes=one_over_size(s))
    assert (found[0][(s == 0).all(-1)] == 1).all() and not found[1][(s == 0).all(-1)].any()


def masked_cosines(x, mask):
    return structure.cosine_similarities(x, mask=mask)


@given(st.data(), ROWS)
def test_cosine_similarities(data, rows):
    x, mask = data.draw(matrices((rows, COLUMNS))), data.draw(masks(rows))

    def reference(x, mask):
        return torch.where(mask[:, None] & mask[None, :], directions(x) @ directions(x).T, 0.0)

    check(of(masked_cosines, x, mask), by_torch(reference, x, mask), x, slopes=rows * one_over_size(x))


def masked_centroids(s, t, mask):
    return structure.centroid_distance(s, t, mask=mask)


@given(st.data(), ROWS)
def test_centroid_distance(data, rows):
    s, t = (data.draw(matrices((rows, COLUMNS))) for _ in "st")
    mask = data.draw(masks(rows))
    values, slope = of(masked_centroids, s, t, mask)
    pairs = mask[:, None] & mask[None, :]
    a, b = (np.where(pairs, (d := directions(torch.tensor(exact(x))).numpy()) @ d.T, 0.0) for x in (s, t))
    assert_close(values, np.where(mask, np.linalg.norm((a - b).sum(0) / max(mask.sum(), 1)), 0.0), atol=1e-5)
    assert np.isfinite(slope).all() and (np.abs(slope) <= 1.01 * rows**2 * one_over_size(s) + 1e-6).all()


@given(st.data(), ROWS, st.sampled_from((0.5, 1.0, 4.0)))
def test_kl_divergence(data, rows, temperature):
    s, t = (data.draw(matrices((rows, COLUMNS))) for _ in "st")

    def reference(s, t):
        log_s, log_t = (torch.log_softmax(z / temperature, -1) for z in (s, t))
        return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(-1)

    found, size = (
        of(soft_targets.kl_divergence, s, t, temperature=temperature),
        temperature * 2 * np.abs(exact(s)).max(),
    )
    check(found, by_torch(reference, s, t), s, size=size)


@given(st.data(), ROWS, st.sampled_from((0.0, 0.1)), st.booleans())
def test_cross_entropy(data, rows, smoothing, votes):
    z = data.draw(matrices((rows, COLUMNS)))
    labels = data.draw(st.lists(st.integers(-1, COLUMNS - 1), min_size=rows, max_size=rows))
    target = np.array([np.eye(COLUMNS)[label] if label >= 0 else np.zeros(COLUMNS) for label in labels])
    if votes:
        target = target * 0.75 + 0.25 * np.roll(target, 1, -1)
    given_labels = target.astype(np.float32) if votes else np.array(labels, np.int32)

    def reference(z, target):
        soft = torch.where((target != 0).any(-1, keepdim=True), (1 - smoothing) * target + smoothing / COLUMNS, 0.0)
        return -(soft * torch.log_softmax(z, -1)).sum(-1)

    found = of(affect.cross_entropy, z, given_labels, label_smoothing=smoothing)
    check(found, by_torch(reference, z, target), z)


PER_ROW = {
    "mse": lambda d: d**2,
    "smooth_l1": lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5),
}


@pytest.mark.parametrize("name", PER_ROW)
@given(data=st.data(), rows=ROWS)
def test_errors_of_affect(name, data, rows):
    p, t, known = *(data.draw(matrices((rows, 2))) for _ in "pt"), data.draw(masks(rows))
    t = np.where(known[:, None], t.astype(np.float32), np.float32(np.nan))

    def reference(p, t):
        return torch.where(t.isnan(), 0.0, PER_ROW[name](p - torch.where(t.isnan(), p.detach(), t))).sum(-1)

    p_, t_ = exact(p), np.where(np.isnan(t), np.nan, exact(t))
    x = torch.tensor(p_, requires_grad=True)
    values = reference(x, torch.tensor(t_))
    expected = values.detach().numpy(), torch.autograd.grad(values.sum(), x)[0].numpy()
    check(of(affect.AFFECT_LOSSES[name], p, t), expected, p)


def correlation(p, t, name):
    """In float64: 1 - CCC or PCC, and the gradient of its mean; None where one side is too constant for float32."""
    x, y = torch.tensor(exact(p), requires_grad=True), torch.tensor(exact(t))
    a, b = x - x.mean(), y - y.mean()
    if name == "ccc":
        scale = (a**2).mean() + (b**2).mean() + (x.mean() - y.mean()) ** 2
        little = scale < 1e-6 * ((x**2).mean() + (y**2).mean()) or scale < 1e-26
        value = None if little else 1 - 2 * (a * b).mean() / scale
    else:
        little = any((c**2).mean() < max(1e-6 * (v**2).mean().item(), 1e-26) for c, v in ((a, x), (b, y)))
        value = None if little else 1 - (a * b).mean() / ((a**2).mean().sqrt() * (b**2).mean().sqrt())
    return None if value is None else (value.item(), torch.autograd.grad(value, x)[0].numpy())


@pytest.mark.parametrize("name", ["ccc", "pcc"])
@given(data=st.data(), rows=ROWS)
def test_correlations(name, data, rows):
    p, t = (data.draw(matrices((rows, 1))) for _ in "pt")
    values, slope = of(affect.AFFECT_LOSSES[name], p, t)
    assert (values == values[:1]).all() or np.isnan(values).all()
    squares = (np.abs(exact(x)).max() ** 2 for x in (p, t))
    if max(squares) > 0.1 * LARGEST:
        assert np.isnan(values).all() or max(np.abs(exact(x)).max() for x in (p, t)) < 1e20  # said in the docstring
        return
    expected = correlation(p[:, 0], t[:, 0], name)
    if expected is None:
        assert np.isfinite(values).all() and np.isfinite(slope).all() and -1e-3 <= values[0] <= 2.001
        return
    assert_close(values, np.full(rows, expected[0]), rtol=1e-2, atol=1e-3)
    spread = max(np.std(exact(p)), 1e-30) if name == "pcc" else max(np.std(exact(p)) + np.std(exact(t)), 1e-30)
    assert_close(slope[:, 0], rows * expected[1], rtol=2e-2, atol=1e-3, scale=1 / spread)


@given(st.data(), ROWS)
def test_an_empty_batch_of_correlations_has_no_loss(data, rows):
    p = data.draw(matrices((rows, 2)))
    for name in ("ccc", "pcc"):
        values, slope = of(affect.AFFECT_LOSSES[name], p, np.full((rows, 2), np.nan, np.float32))
        assert not values.any() and not slope.any()


@given(st.data(), ROWS, st.booleans(), st.sampled_from((0.0, 0.5)))
def test_teacher_bound(data, rows, joint, margin):
    s, teacher, y = (data.draw(matrices((rows, 2))) for _ in "sty")

    def reference(s, teacher, y):
        student, bound = (s - y) ** 2, (teacher - y) ** 2
        if joint:
            student, bound = student.sum(-1, keepdim=True), bound.sum(-1, keepdim=True)
        return torch.where(student + margin > bound, student, 0.0).sum(-1)

    # Where the two errors are equal but for rounding, either answer is right.
    student, bound = ((exact(x) - exact(y)) ** 2 for x in (s, teacher))
    if joint:
        student, bound = student.sum(-1, keepdims=True), bound.sum(-1, keepdims=True)
    clear = (np.abs(student + margin - bound) > 1e-4 * (student + bound + margin) + 1e-12).all(-1) & (
        bound < LARGEST
    ).all(-1)
    found, expected = (
        of(bounded.teacher_bound, s, teacher, y, margin=margin, joint=joint),
        by_torch(reference, s, teacher, y),
    )
    check([x[clear] for x in found], [x[clear] for x in expected], s)
    assert not np.isfinite(found[0][(student > 2 * LARGEST).any(-1)]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("joint", [False, True])
def test_a_student_that_is_not_finite_is_never_within_its_bound(bad, joint):
    s, y = np.array([[bad, 0.0]], np.float32), np.zeros((1, 2), np.float32)
    for teacher in (0.0, 1e30, np.inf, np.nan):
        values, _ = of(bounded.teacher_bound, s, np.full((1, 2), teacher, np.float32), y, joint=joint)
        assert not np.isfinite(values).any()


def masked_mmd(g, t, mask):
    return mmd.gaussian_mmd(g, t, mask=mask)


def mmd_in_numpy(g, t):
    both = np.concatenate([exact(g), exact(t)])
    size = np.abs(both).max(initial=0)
    both = both / size if size >= NOTHING else both * 0
    rows = len(g)
    distances = ((both[:, None] - both[None]) ** 2).sum(-1)
    middle = distances.sum() / (2 * rows * (2 * rows - 1))
    if middle < 1e-10:
        return None
    kernels = sum(np.exp(-distances / (middle * factor)) for factor in (0.25, 0.5, 1, 2, 4))
    signs = np.repeat([1.0, -1.0], rows) / rows
    return signs @ kernels @ signs


@given(st.data(), ROWS)
def test_mmd(data, rows):
    g, t = (data.draw(matrices((rows, COLUMNS))) for _ in "gt")
    mask = data.draw(masks(rows))
    values, slope = of(masked_mmd, g, t, mask)
    assert np.isfinite(values).all() and np.isfinite(slope).all() and not values[~mask].any()
    expected = mmd_in_numpy(g[mask], t[mask]) if mask.any() else 0.0
    if expected is not None:
        assert_close(values, np.where(mask, expected, 0.0), atol=2e-4)


def divergence(s, t, mask, solver):
    return transport.sinkhorn_divergence(s, t, blur=0.5, solver=solver, mask=mask).values


def sinkhorn_in_numpy(x, y, epsilon=0.25):
    """OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 by a long Sinkhorn in float64."""

    def cost(x, y):
        c = ((x[:, None] - y[None]) ** 2).sum(-1) / 2
        f, g = np.zeros(len(x)), np.zeros(len(y))

        def softmin(c, g):
            z = (g[None] - c) / epsilon - np.log(c.shape[1])
            top = z.max(1, keepdims=True)
            return -epsilon * (top[:, 0] + np.log(np.exp(z - top).sum(1)))

        for _ in range(3000):
            f, g = (f + softmin(c, g)) / 2, (g + softmin(c.T, f)) / 2
        return f.mean() + g.mean()

    return cost(x, y) - cost(x, x) / 2 - cost(y, y) / 2


TRANSPORTABLE = (0.0, 1.0, -1.0, 2.0, 1e-45, 1e-30, 1e-8, 1e-3, 3.0)


@pytest.mark.parametrize(("solver", "error"), [("converged", 2e-3), ("geomloss", 0.1)])
@given(data=st.data())
def test_sinkhorn(solver, error, data):
    s, t = (data.draw(matrices((4, 2), hard=TRANSPORTABLE)) for _ in "st")
    mask = data.draw(masks(4))
    values, slope = of(divergence, s, t, mask, solver=solver)
    assert not values[~mask].any() and np.isfinite(slope).all()
    expected = sinkhorn_in_numpy(exact(t)[mask], exact(s)[mask]) if mask.any() else 0.0
    assert_close(values, np.where(mask, expected, 0.0), rtol=error, atol=error)
