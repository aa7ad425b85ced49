"""The distance of adapted tokens from the joint features, against cosines and their gradients in NumPy."""

import jax
import numpy as np
import pytest

from emokd.recipes.common.modality_teachers import alignment_distances

ADAPTED, JOINT = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)


def gradient(of: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of the sum of 1 - cosine: (cos a / |a| - b / |b|) / |a|."""
    norm, others_norm = np.linalg.norm(of, axis=1, keepdims=True), np.linalg.norm(other, axis=1, keepdims=True)
    cosine = (of * other).sum(1, keepdims=True) / norm / others_norm
    return (cosine * of / norm - other / others_norm) / norm


@pytest.mark.parametrize("detach", [False, True])
def test_the_joint_features_get_gradients_unless_they_are_detached(detach):
    distances, pull_back = jax.vjp(lambda a, j: alignment_distances(a, j, detach=detach), ADAPTED, JOINT)
    cosines = (ADAPTED * JOINT).sum(1) / np.linalg.norm(ADAPTED, axis=1) / np.linalg.norm(JOINT, axis=1)
    np.testing.assert_allclose(distances, 1 - cosines, rtol=1e-5)
    of_adapted, of_joint = pull_back(np.ones(5, np.float32))
    np.testing.assert_allclose(of_adapted, gradient(ADAPTED, JOINT), rtol=1e-4, atol=1e-6)
    expected = np.zeros_like(JOINT) if detach else gradient(JOINT, ADAPTED)
    np.testing.assert_allclose(of_joint, expected, rtol=1e-4, atol=1e-6)
