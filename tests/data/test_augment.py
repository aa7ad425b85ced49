import colorsys
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from lazily import Lazily

from emokd.data import augment
from emokd.data.augment import ERASE_COLOUR, Augmentation, View, centre_views
from emokd.errors import InputError

torch = Lazily("torch")

# Compiled, as in the step: eager operations round differently, because nothing is fused.
render = jax.jit(augment.render, static_argnums=2)
sample_views = jax.jit(augment.sample_views, static_argnums=2)

STRONG = Augmentation(
    (0.3, 1.0), (3 / 4, 4 / 3), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, erase=0.5
)


def pictures(batch, height, width=None, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width or height, 3), np.uint8)


def boxes(*rows):
    return jnp.array(rows, jnp.float32)


def ids_and_views(batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, batch, np.uint32), rng.integers(0, 9, batch).astype(np.int32)


@pytest.mark.parametrize("shape, size", [((17, 23), 9), ((16, 16), 16), ((12, 20), 31), ((40, 8), 24)])
def test_full_box_equals_jax_image_resize(shape, size):
    images = pictures(3, *shape)
    ours = render(images, centre_views(3), size)
    expected = jax.image.resize(images / np.float32(255), (3, size, size, 3), "linear", antialias=True)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("side, size", [(32, 8), (32, 48), (33, 20)])
def test_boxes_equal_scale_and_translate(side, size):
    images = pictures(4, side)
    box = boxes([0, 0, 1, 1], [0.1, 0.3, 0.5, 0.25], [0.5, 0.5, 0.5, 0.5], [0.75, 0.0, 0.25, 0.9])
    ours = render(images, View(box), size)
    for image, (top, left, height, width), result in zip(images, np.asarray(box), ours, strict=True):
        scale = size / (np.array([height, width]) * side)
        expected = jax.image.scale_and_translate(
            image / np.float32(255),
            (size, size, 3),
            (0, 1),
            jnp.asarray(scale, jnp.float32),
            jnp.asarray(-np.array([top, left]) * side * scale, jnp.float32),
            "linear",
            antialias=True,
        )
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_resize_equals_pytorch():
    images = pictures(2, 40)
    ours = render(images, centre_views(2), 24)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    theirs = torch.nn.functional.interpolate(planes, (24, 24), mode="bilinear", antialias=True, align_corners=False)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_whole_box_at_canvas_size_is_the_picture():
    images = pictures(2, 13)
    np.testing.assert_allclose(render(images, centre_views(2), 13), images / 255, atol=1e-6)


def test_flip_mirrors_and_twice_is_nothing():
    images = pictures(3, 21)
    box = boxes([0, 0, 1, 1], [0.2, 0.1, 0.6, 0.7], [0.0, 0.3, 0.4, 0.5])
    plain = render(images, View(box), 16)
    flipped = render(images, View(box, jnp.array([True, False, True])), 16)
    for row, was_flipped in enumerate([True, False, True]):
        expected = plain[row, :, ::-1] if was_flipped else plain[row]
        np.testing.assert_allclose(flipped[row], expected, atol=1e-6)
    mirrored = render(images, centre_views(3, mirrored=True), 16)
    np.testing.assert_allclose(mirrored[:, :, ::-1], render(images, centre_views(3), 16), atol=1e-6)


def test_brightness_contrast_saturation_follow_their_definitions():
    """torchvision: clip(f * x + (1 - f) * reference) with reference 0, the mean grey, the grey picture."""
    images = pictures(3, 12)
    x = torch.from_numpy(images).float() / 255
    factor = torch.tensor([0.4, 1.0, 1.9])[:, None, None, None]
    grey = (x * torch.tensor([0.2989, 0.587, 0.114])).sum(-1, keepdim=True)
    factors = jnp.array([0.4, 1.0, 1.9], jnp.float32)
    for name, reference in {
        "brightness": torch.zeros_like(grey),
        "contrast": grey.mean((1, 2, 3), keepdim=True),
        "saturation": grey,
    }.items():
        ours = render(images, dataclasses.replace(centre_views(3), **{name: factors}), 12)
        expected = (factor * x + (1 - factor) * reference).clamp(0, 1)
        np.testing.assert_allclose(ours, expected.numpy(), atol=3e-6, err_msg=name)


def test_jitter_is_applied_in_the_order_of_the_fields():
    images = pictures(1, 8)
    factors = {"brightness": 1.6, "contrast": 0.5, "saturation": 1.7}
    together = render(
        images, View(boxes([0, 0, 1, 1]), **{k: jnp.array([v], jnp.float32) for k, v in factors.items()}), 8
    )
    x = images.astype(np.float64) / 255
    luma = np.array([0.2989, 0.587, 0.114])
    x = np.clip(1.6 * x, 0, 1)
    x = np.clip(0.5 * x + 0.5 * (x @ luma).mean(), 0, 1)
    x = np.clip(1.7 * x - 0.7 * (x @ luma)[..., None], 0, 1)
    np.testing.assert_allclose(together, x, atol=5e-6)


@pytest.mark.parametrize("turns", [0.0, 0.1, -0.25, 0.5])
def test_hue_equals_colorsys(turns):
    images = pictures(2, 6)
    images[0, 0] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0], [0, 255, 255], [200, 200, 0]]
    view = dataclasses.replace(centre_views(2), hue=jnp.full(2, turns, jnp.float32))
    ours = np.asarray(render(images, view, 6)).reshape(-1, 3)
    for pixel, result in zip(images.reshape(-1, 3) / 255, ours, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        np.testing.assert_allclose(result, colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value), atol=1e-5)


def test_erase_paints_its_box_and_nothing_else():
    images = pictures(2, 20)
    view = dataclasses.replace(centre_views(2), erase=boxes([0.25, 0.5, 0.5, 0.3], [0, 0, 0, 0]))
    result = np.asarray(render(images, view, 20))
    expected = images / 255
    expected[0, 5:15, 10:16] = ERASE_COLOUR
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_view_is_replayed_whatever_the_batch():
    ids, views = ids_and_views(12)
    together = sample_views(ids, views, STRONG, 7)
    order = np.random.default_rng(1).permutation(12)[:5]
    alone = sample_views(ids[order], views[order], STRONG, 7)
    for name in (field.name for field in dataclasses.fields(View)):
        np.testing.assert_array_equal(getattr(together, name)[order], getattr(alone, name), err_msg=name)


def test_id_view_and_seed_each_change_the_view():
    one = np.array([5], np.uint32), np.array([0], np.int32)
    base = sample_views(*one, STRONG, 0).box
    assert not np.array_equal(base, sample_views(np.array([6], np.uint32), one[1], STRONG, 0).box)
    assert not np.array_equal(base, sample_views(one[0], np.array([1], np.int32), STRONG, 0).box)
    assert not np.array_equal(base, sample_views(*one, STRONG, 1).box)


def test_switching_one_augmentation_on_leaves_the_others_where_they_were():
    ids, views = ids_and_views(6)
    without = sample_views(ids, views, dataclasses.replace(STRONG, hue=0.0, erase=0.0), 3)
    with_all = sample_views(ids, views, STRONG, 3)
    assert without.hue is None and without.erase is None
    for name in ("box", "flip", "brightness", "contrast", "saturation"):
        np.testing.assert_array_equal(getattr(without, name), getattr(with_all, name), err_msg=name)


def test_distribution_of_views():
    batch = 20000
    ids, views = np.arange(batch, dtype=np.uint32), np.zeros(batch, np.int32)
    config = dataclasses.replace(STRONG, crop_area=(0.2, 1.0), aspect=(0.5, 2.0))
    view = jax.tree.map(np.asarray, sample_views(ids, views, config, 0))
    top, left, height, width = view.box.astype(np.float64).T
    for start, extent in ((top, height), (left, width)):
        assert start.min() >= 0 and (start + extent).max() <= 1 + 1e-6
    area, aspect = height * width, width / height
    assert 0.2 - 1e-5 <= area.min() and area.max() <= 1 + 1e-5
    # Uniform areas: mean 0.6, deviation 0.8 / sqrt 12; five standard errors of 20000 draws.
    assert abs(area.mean() - 0.6) < 5 * 0.231 / batch**0.5
    assert abs(area.std() - 0.8 / 12**0.5) < 0.005
    assert 0.5 - 1e-5 <= aspect.min() and aspect.max() <= 2 + 1e-5
    assert abs(np.log(aspect).mean()) < 0.02
    small = area < 0.5  # Here the whole range of aspects fits, so the logarithm is uniform in +-log 2.
    assert abs(np.log(aspect[small]).std() - 2 * np.log(2) / 12**0.5) < 0.01
    place = np.stack([top[small] / (1 - height[small]), left[small] / (1 - width[small])])
    np.testing.assert_allclose(place.mean(1), 0.5, atol=0.02)
    assert abs(np.corrcoef(place)[0, 1]) < 0.05
    assert abs(view.flip.mean() - 0.5) < 5 * 0.5 / batch**0.5
    for name in ("brightness", "contrast", "saturation"):
        factor = getattr(view, name)
        assert 0.6 - 1e-6 <= factor.min() < 0.61 and 1.39 < factor.max() <= 1.4 + 1e-6
    assert -0.1 <= view.hue.min() < -0.099 and 0.099 < view.hue.max() <= 0.1
    erased = view.erase[view.erase[:, 2] > 0]
    assert abs(len(erased) / batch - 0.5) < 5 * 0.5 / batch**0.5
    erased_area = erased[:, 2] * erased[:, 3]
    assert 0.02 - 1e-5 <= erased_area.min() and erased_area.max() <= 0.33 + 1e-5
    assert (erased[:, :2] + erased[:, 2:]).max() <= 1 + 1e-6


def test_same_result_on_eight_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    ids, views = ids_and_views(16)
    images = pictures(16, 24)

    def step(images, ids, views):
        return augment.render(images, augment.sample_views(ids, views, STRONG, 0), 16)

    sharding = NamedSharding(mesh, P("data"))
    sharded = jax.jit(step)(*jax.device_put((images, ids, views), sharding))
    assert len(sharded.sharding.device_set) == 8
    # Two programs, whose last digits may differ; hue divides by the chroma, which makes more of them.
    np.testing.assert_allclose(sharded, jax.jit(step)(images, ids, views), atol=1e-5)
    one = jax.tree.map(np.asarray, sample_views(ids, views, STRONG, 0))
    many = sample_views(*jax.device_put((ids, views), sharding), STRONG, 0)
    jax.tree.map(np.testing.assert_array_equal, one, jax.tree.map(np.asarray, many))


@pytest.mark.parametrize("size", [8, 24])
def test_result_is_float32_in_the_unit_interval(size):
    ids, views = ids_and_views(8)
    result = render(pictures(8, 16), sample_views(ids, views, STRONG, 0), size)
    assert result.shape == (8, size, size, 3) and result.dtype == jnp.float32
    assert 0 <= result.min() and result.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    "key, value",
    [
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.9, 0.5)),
        ("crop_area", 0.5),
        ("crop_area", (0.5, 1.5)),
        ("aspect", (1.2, 2.0)),
        ("aspect", (0.5, float("inf"))),
        ("flip", 1.5),
        ("brightness", -0.1),
        ("contrast", float("nan")),
        ("saturation", "high"),
        ("hue", 0.6),
        ("erase", True),
    ],
)
def test_wrong_values_are_named(key, value):
    with pytest.raises(InputError, match=f"augmentation.{key} "):
        Augmentation(**{key: value})
