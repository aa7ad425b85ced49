"""The structure of a batch, compared with known answers, NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.losses import structure

torch = Lazily("torch")

VECTOR_B = (np.cos(0.23 * np.arange(80) + 0.5).reshape(16, 5), np.sin(0.37 * np.arange(80)).reshape(16, 5))


def features(rows=9, seed=0):
    """A student's and a teacher's features, of different widths."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 4)).astype(np.float32), rng.normal(size=(rows, 6)).astype(np.float32)


def in_numpy(student, teacher, k, mask, nearest=False):
    """S~ of the rows that count, at each row's k least similar others; zeros elsewhere. Loops, in float64."""
    counted = np.flatnonzero(mask)
    found = []
    directions = []
    for f in (teacher.astype(np.float64), student.astype(np.float64)):
        f = f[counted]
        directions.append(f / np.linalg.norm(f, axis=1, keepdims=True))
    s_t, s_s = (d @ d.T for d in directions)
    for s in (s_s, s_t):
        shifted = s - s.min()
        cloud = np.zeros((len(student), k))
        for row, example in enumerate(counted):
            others = [j for j in np.argsort(s_t[row]) if j != row]
            chosen = others[-k:] if nearest else others[:k]
            first = k - len(chosen) if nearest else 0
            cloud[example, first : first + len(chosen)] = shifted[row, chosen]
        found.append(cloud)
    return found


def test_vector_b():
    student, teacher = (jnp.asarray(f, jnp.float32) for f in VECTOR_B)
    columns, filled = structure.anchors(structure.cosine_similarities(teacher), 4)
    np.testing.assert_array_equal(columns[0], [12, 5, 2, 9])
    assert filled.all()
    clouds = structure.clouds(student, teacher, k=4)
    np.testing.assert_allclose(clouds.teacher[0], [0.009247, 0.010157, 0.070891, 0.173505], atol=1e-6)
    np.testing.assert_allclose(clouds.student[0], [0.357952, 1.954446, 0.077689, 1.321757], atol=1e-6)
    distance = structure.centroid_distance(student, teacher)
    np.testing.assert_allclose(distance, np.full(16, 0.2421882913601539), atol=1e-6)


# Similarities


def test_similarities_are_cosines():
    student, _ = features()
    expected = torch.nn.functional.cosine_similarity(torch.tensor(student)[:, None], torch.tensor(student)[None], dim=2)
    np.testing.assert_allclose(structure.cosine_similarities(jnp.asarray(student)), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 7.0, 1e30])
def test_similarities_ignore_the_scale(factor):
    student, _ = features()
    expected = structure.cosine_similarities(jnp.asarray(student))
    np.testing.assert_allclose(structure.cosine_similarities(jnp.asarray(student * np.float32(factor))), expected, 1e-5)
    mixed = student * np.geomspace(1e-3, 1e3, len(student))[:, None]
    np.testing.assert_allclose(structure.cosine_similarities(jnp.asarray(mixed, jnp.float32)), expected, atol=1e-6)


def test_a_row_of_zeros_resembles_nobody_and_has_no_gradient():
    student = features()[0]
    student[2] = 0
    values, backward = jax.vjp(structure.cosine_similarities, jnp.asarray(student))
    slope = backward(jnp.asarray(np.random.default_rng(1).normal(size=values.shape), jnp.float32))[0]
    np.testing.assert_array_equal(values[2], 0)
    np.testing.assert_array_equal(values[:, 2], 0)
    np.testing.assert_array_equal(slope[2], 0)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0.1


def test_similarities_of_half_precision_are_float32():
    student, _ = features()
    rounded = jnp.asarray(student, jnp.bfloat16)
    values = structure.cosine_similarities(rounded)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, structure.cosine_similarities(rounded.astype(jnp.float32)))


# Anchors


SIMILARITIES = np.float32([[1, 0.5, -0.5, 0.1], [0.5, 1, 0.3, 0.3], [-0.5, 0.3, 1, 0.3], [0.1, 0.3, 0.3, 1]])


@pytest.mark.parametrize(
    ("k", "nearest", "expected"),
    [
        (1, False, [[2], [2], [0], [0]]),
        (2, False, [[2, 3], [2, 3], [0, 1], [0, 1]]),  # 0.3 twice: the first comes first
        (3, False, [[2, 3, 1], [2, 3, 0], [0, 1, 3], [0, 1, 2]]),
        (1, True, [[1], [0], [1], [1]]),
        (2, True, [[3, 1], [2, 0], [3, 1], [2, 1]]),
    ],
)
def test_anchors_are_the_least_similar_others_in_ascending_order(k, nearest, expected):
    columns, filled = structure.anchors(jnp.asarray(SIMILARITIES), k, nearest=nearest)
    np.testing.assert_array_equal(columns, expected)
    assert filled.all()


def test_anchors_among_the_rows_that_count():
    mask = jnp.array([True, True, False, True])
    columns, filled = structure.anchors(jnp.asarray(SIMILARITIES), 3, mask=mask)
    np.testing.assert_array_equal(filled[:2], [[True, True, False]] * 2)
    np.testing.assert_array_equal(columns[:2, :2], [[3, 1], [3, 0]])
    columns, filled = structure.anchors(jnp.asarray(SIMILARITIES), 3, nearest=True, mask=mask)
    np.testing.assert_array_equal(filled[:2], [[False, True, True]] * 2)
    np.testing.assert_array_equal(columns[:2, 1:], [[3, 1], [3, 0]])


@pytest.mark.parametrize("k", [-1, 0, 4, 5])
def test_too_many_anchors_are_refused(k):
    with pytest.raises(InputError, match="this batch has 4"):
        structure.anchors(jnp.asarray(SIMILARITIES), k)


@pytest.mark.parametrize("k", [-1, 9, 30])
def test_clouds_refuse_too_many_anchors(k):
    student, teacher = features()
    with pytest.raises(InputError, match="this batch has 9"):
        structure.clouds(jnp.asarray(student), jnp.asarray(teacher), k=k)


# Clouds


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("counted", [9, 6])
def test_clouds_agree_with_numpy(k, nearest, counted):
    student, teacher = features()
    mask = np.ones(9, bool)
    mask[[1, 4, 8][: 9 - counted]] = False
    expected = in_numpy(student, teacher, k, mask, nearest)
    student[~mask], teacher[~mask] = np.nan, np.inf
    clouds = structure.clouds(jnp.asarray(student), jnp.asarray(teacher), k=k, nearest=nearest, mask=jnp.asarray(mask))
    np.testing.assert_allclose(clouds.student, expected[0], atol=1e-6)
    np.testing.assert_allclose(clouds.teacher, expected[1], atol=1e-6)


def test_whole_rows_are_not_sorted():
    student, teacher = features()
    clouds = structure.clouds(jnp.asarray(student), jnp.asarray(teacher), k=0)
    for cloud, f in zip(clouds, (student, teacher), strict=True):
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
        np.testing.assert_allclose(cloud, f @ f.T - (f @ f.T).min(), atol=1e-6)


@pytest.mark.parametrize("k", [0, 3])
def test_gradient_agrees_with_pytorch(k):
    student, teacher = features()
    weights = np.random.default_rng(1).normal(size=(9, k or 9)).astype(np.float32)

    def loss(student, teacher):
        return sum((cloud * weights).sum() for cloud in structure.clouds(student, teacher, k=k))

    slopes = jax.grad(loss, argnums=(0, 1))(jnp.asarray(student), jnp.asarray(teacher))
    f_s, f_t = torch.tensor(student, requires_grad=True), torch.tensor(teacher)
    s_s, s_t = (torch.nn.functional.normalize(f) @ torch.nn.functional.normalize(f).T for f in (f_s, f_t))
    shifted = s_s - s_s.min()
    points = shifted.gather(1, s_t.argsort(dim=1)[:, :k]) if k else shifted
    (points * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(slopes[0], f_s.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(slopes[1], 0)


def test_a_permuted_batch_has_permuted_clouds():
    student, teacher = features()
    order = np.random.default_rng(1).permutation(9)
    clouds = structure.clouds(jnp.asarray(student), jnp.asarray(teacher), k=4)
    permuted = structure.clouds(jnp.asarray(student[order]), jnp.asarray(teacher[order]), k=4)
    for cloud, other in zip(clouds, permuted, strict=True):
        np.testing.assert_allclose(other, cloud[order], atol=1e-6)


@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_a_nan_stays_visible(whose, what):
    student, teacher = features()
    (student if whose == "student" else teacher)[3, 1] = what
    clouds = structure.clouds(jnp.asarray(student), jnp.asarray(teacher), k=4)
    assert np.isnan(clouds.student if whose == "student" else clouds.teacher).any(axis=1).all()
    assert np.isnan(structure.centroid_distance(jnp.asarray(student), jnp.asarray(teacher))).all()


# Centroids


@pytest.mark.parametrize("counted", [9, 6])
def test_centroid_distance_agrees_with_pytorch(counted):
    student, teacher = features()
    mask = np.ones(9, bool)
    mask[[1, 4, 8][: 9 - counted]] = False
    f_s, f_t = torch.tensor(student[mask], requires_grad=True), torch.tensor(teacher[mask])
    s_s, s_t = (torch.nn.functional.normalize(f) @ torch.nn.functional.normalize(f).T for f in (f_s, f_t))
    expected = (s_t.mean(0) - s_s.mean(0)).norm()
    expected.backward()
    student[~mask], teacher[~mask] = np.nan, 1e6

    def loss(student, teacher):
        values = structure.centroid_distance(student, teacher, mask=jnp.asarray(mask))
        return values.sum() / counted, values

    (_, values), slopes = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        jnp.asarray(student), jnp.asarray(teacher)
    )
    np.testing.assert_allclose(values, np.where(mask, expected.item(), 0), rtol=1e-5)
    np.testing.assert_allclose(slopes[0][mask], f_s.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slopes[0][~mask], 0)
    np.testing.assert_array_equal(slopes[1], 0)


def test_equal_structures_are_at_no_distance():
    _, teacher = features()
    # Turned, and each row stretched by a power of two: the same cosines to the last bit.
    student = np.roll(teacher, 1, axis=0)[np.argsort(np.roll(np.arange(9), 1))] * 2.0 ** np.arange(9)[:, None]
    value, slope = jax.value_and_grad(lambda f: structure.centroid_distance(f, jnp.asarray(teacher)).mean())(
        jnp.asarray(student, jnp.float32)
    )
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    clouds = structure.clouds(jnp.asarray(student, jnp.float32), jnp.asarray(teacher), k=4)
    np.testing.assert_array_equal(clouds.student, clouds.teacher)


def test_a_batch_without_rows_that_count():
    student, teacher = (jnp.asarray(f) for f in features())
    nobody = jnp.zeros(9, bool)

    def loss(student):
        clouds = structure.clouds(student, teacher, k=4, mask=nobody)
        return clouds.student.sum() + structure.centroid_distance(student, teacher, mask=nobody).sum()

    value, slope = jax.value_and_grad(loss)(student)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_refuses_what_does_not_fit():
    student, teacher = (jnp.asarray(f) for f in features())
    for measure in (structure.clouds, structure.centroid_distance):
        with pytest.raises(InputError, match="one batch for student and teacher"):
            measure(student, teacher[:-1])
        with pytest.raises(InputError, match="one batch for student and teacher"):
            measure(student[0], teacher[0])
        with pytest.raises(InputError, match="mask must be bool"):
            measure(student, teacher, mask=jnp.ones(8, bool))
    with pytest.raises(InputError, match="square"):
        structure.anchors(student, 2)
