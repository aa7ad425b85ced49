"""Augmentation inside the compiled step: a view is drawn from (seed, id, view) and rendered at any size."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num, UInt8, UInt32

from emokd.errors import InputError

ERASE_AREA = (0.02, 0.33)
ERASE_ASPECT = (0.3, 3.3)
ERASE_COLOUR = (0.485, 0.456, 0.406)  # ImageNet's mean: zero once normalised, as random erasing is usually done.
LUMA = (0.2989, 0.587, 0.114)
"""Weights of RGB in grey as torchvision's colour jitter rounds ITU-R BT.601; a network's own grey is
`preprocessing.LUMA`."""
_DRAWS = 16  # Uniform numbers drawn for each view. Changing it, or the order of their use, changes every view.


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The ranges that views are drawn from. An augmentation at its default, neutral value costs nothing.

    Attributes:
      crop_area: smallest and largest area of the crop, as a fraction of the canvas, in (0, 1].
      aspect: smallest and largest width/height of the crop relative to the canvas; must contain 1.
      flip: probability of a left-right flip.
      brightness, contrast, saturation: the factor is drawn from [max(0, 1 - x), 1 + x].
      hue: the shift is drawn from [-x, x] turns of the colour circle, x at most 0.5.
      erase: probability that a box (2% to 33% of the view, aspect 0.3 to 3.3) is painted over.

    Raises:
      InputError: a value is outside its range.
    """

    crop_area: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0

    def __post_init__(self):
        for name, low, high, rule in (
            ("crop_area", 0.0, 1.0, "two fractions of the canvas, 0 < low <= high <= 1"),
            ("aspect", 0.0, math.inf, "two ratios, 0 < low <= 1 <= high"),
        ):
            pair = getattr(self, name)
            ok = isinstance(pair, tuple | list) and len(pair) == 2 and all(_is_number(x) for x in pair)
            ok = ok and low < pair[0] <= pair[1] <= high and (name != "aspect" or pair[0] <= 1 <= pair[1])
            if not ok:
                raise InputError(f"augmentation.{name} is {pair!r}; give {rule}.")
        for name, high in (("flip", 1), ("brightness", math.inf), ("contrast", math.inf), ("saturation", math.inf)) + (
            ("hue", 0.5),
            ("erase", 1),
        ):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= high):
                raise InputError(f"augmentation.{name} is {value!r}; give a number from 0 to {high}.")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """The parameters of one view of each of B pictures. A field that is None is left out of the rendering.

    Attributes:
      box: top, left, height and width of the crop, as fractions of the canvas.
      flip: whether the crop is mirrored left to right.
      brightness, contrast, saturation: factors; 1 leaves the picture as it is.
      hue: shift in turns of the colour circle.
      erase: top, left, height and width of the erased box, as fractions of the view (after the flip).
    """

    box: Float[Array, "B 4"]
    flip: Bool[Array, " B"] | None = None
    brightness: Float[Array, " B"] | None = None
    contrast: Float[Array, " B"] | None = None
    saturation: Float[Array, " B"] | None = None
    hue: Float[Array, " B"] | None = None
    erase: Float[Array, "B 4"] | None = None


def centre_views(batch_size: int, mirrored: bool = False) -> View:
    """The evaluation views: the whole canvas of every picture, flipped left to right where `mirrored`."""
    box = jnp.tile(jnp.array([[0.0, 0.0, 1.0, 1.0]], jnp.float32), (batch_size, 1))
    return View(box, jnp.ones(batch_size, bool) if mirrored else None)


def sample_views(
    ids: UInt32[Array, " B"], views: Int32[Array, " B"], config: Augmentation, seed: Num[Array, ""] | int
) -> View:
    """Draws the view (id, view) of each example.

    An example's parameters depend on (seed, id, view) only: not on its place in the batch, the
    batch's other examples, the device, or which other augmentations are switched on. The generator is
    fixed to threefry: JAX's default is configurable, and other generators lack this property under `vmap`.

    Args:
      ids: the examples' ids.
      views: the number of the view of each example, such as the epoch.
      config: the ranges to draw from.
      seed: an integer.

    Returns:
      One view for each example. The crop's area is uniform in `crop_area`; its aspect is log-uniform in
      the part of `aspect` for which a box of that area fits the canvas [ours: torchvision's
      RandomResizedCrop draws up to ten times until the box fits]; its position is uniform.
    """
    key = jax.random.key(seed, impl="threefry2x32")

    def draws(example, view):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, example), view), (_DRAWS,))

    u = jax.vmap(draws)(ids, views)
    return View(
        box=_boxes(u[:, 0:4], config.crop_area, config.aspect),
        flip=u[:, 4] < config.flip if config.flip else None,
        brightness=_factors(u[:, 5], config.brightness),
        contrast=_factors(u[:, 6], config.contrast),
        saturation=_factors(u[:, 7], config.saturation),
        hue=(2 * u[:, 8] - 1) * config.hue if config.hue else None,
        erase=_erase_boxes(u[:, 9], u[:, 10:14], config.erase) if config.erase else None,
    )


def _factors(u: Float[Array, " B"], strength: float) -> Float[Array, " B"] | None:
    """Maps uniform numbers to [max(0, 1 - strength), 1 + strength]."""
    if not strength:
        return None
    low = max(0.0, 1.0 - strength)
    return low + u * (1.0 + strength - low)


def _boxes(u: Float[Array, "B 4"], area: tuple[float, float], aspect: tuple[float, float]) -> Float[Array, "B 4"]:
    """Boxes inside the unit square. A box of area s and aspect a fits if s <= a <= 1/s."""
    log_area = jnp.log(area[0] + u[:, 0] * (area[1] - area[0]))
    low = jnp.maximum(math.log(aspect[0]), log_area)
    high = jnp.minimum(math.log(aspect[1]), -log_area)
    log_aspect = low + u[:, 1] * (high - low)
    height = jnp.minimum(jnp.exp((log_area - log_aspect) / 2), 1.0)
    width = jnp.minimum(jnp.exp((log_area + log_aspect) / 2), 1.0)
    return jnp.stack([u[:, 2] * (1 - height), u[:, 3] * (1 - width), height, width], axis=1)


def _erase_boxes(u: Float[Array, " B"], box: Float[Array, "B 4"], probability: float) -> Float[Array, "B 4"]:
    """Boxes to erase, of zero height and width where nothing is erased."""
    return jnp.where((u < probability)[:, None], _boxes(box, ERASE_AREA, ERASE_ASPECT), 0.0)


def render(images: UInt8[Array, "B H W 3"], view: View, size: int) -> Float[Array, "B size size 3"]:
    """Renders views at `size` pixels: crop, resize, flip, colour jitter (in the order of View's fields), erase.

    The crop is resized with an antialiased triangle filter, as `jax.image.scale_and_translate` does:
    pixels just outside the crop count in its margin. The resize is two batched matrix products, so it
    runs on the matrix unit and its cost does not depend on the box.

    Args:
      images: RGB canvases.
      view: the views' parameters. The same view can be rendered at several sizes.
      size: side of the result.

    Returns:
      RGB in [0, 1], float32; `emokd.models.preprocessing` normalises it for a network.
    """
    _, height, width, _ = images.shape
    rows = _resize_matrix(view.box[:, 0], view.box[:, 2], height, size, None)
    columns = _resize_matrix(view.box[:, 1], view.box[:, 3], width, size, view.flip)
    # Planes first: both products then contract contiguous axes (measured the fastest of five orders on CPU).
    planes = jnp.transpose(images, (0, 3, 1, 2)).astype(jnp.float32)
    planes = jnp.einsum("bchw,bxw->bchx", planes, columns / 255, precision="highest")
    planes = jnp.einsum("byh,bchx->bcyx", rows, planes, precision="highest")
    pixels = jnp.transpose(planes, (0, 2, 3, 1))
    # Sums of rounded weights can leave [0, 1] by one rounding.
    return _erase(_jitter(jnp.clip(pixels, 0, 1), view), view.erase)


def _resize_matrix(
    start: Float[Array, " B"], extent: Float[Array, " B"], source: int, target: int, flip: Bool[Array, " B"] | None
) -> Float[Array, "B target source"]:
    """Triangle-filter weights that resample [start, start + extent] of an axis of `source` pixels to `target`."""
    step = extent * (source / target)  # source pixels per target pixel
    place = (jnp.arange(target, dtype=jnp.float32) + 0.5)[None, :]
    if flip is not None:
        place = jnp.where(flip[:, None], target - place, place)
    centres = (start * source)[:, None] + place * step[:, None] - 0.5
    distance = jnp.abs(centres[:, :, None] - jnp.arange(source, dtype=jnp.float32)[None, None, :])
    weights = jnp.maximum(0, 1 - distance / jnp.maximum(step, 1)[:, None, None])
    return weights / weights.sum(-1, keepdims=True)


def _jitter(pixels: Float[Array, "B H W 3"], view: View) -> Float[Array, "B H W 3"]:
    """Brightness, contrast, saturation and hue as torchvision defines them, in this fixed order [ours]."""
    if view.brightness is not None:
        pixels = _blend(pixels, jnp.zeros_like(pixels), view.brightness)
    if view.contrast is not None:
        mean = _grey(pixels).mean((1, 2, 3), keepdims=True)
        pixels = _blend(pixels, jnp.broadcast_to(mean, pixels.shape), view.contrast)
    if view.saturation is not None:
        pixels = _blend(pixels, jnp.broadcast_to(_grey(pixels), pixels.shape), view.saturation)
    if view.hue is not None:
        pixels = _shift_hue(pixels, view.hue)
    return pixels


def _grey(pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 1"]:
    return (pixels * jnp.array(LUMA, pixels.dtype)[None, None, None]).sum(-1, keepdims=True)


def _blend(
    pixels: Float[Array, "B H W 3"], other: Float[Array, "B H W 3"], factor: Float[Array, " B"]
) -> Float[Array, "B H W 3"]:
    """factor * pixels + (1 - factor) * other, clipped to [0, 1]."""
    factor = factor[:, None, None, None]
    return jnp.clip(factor * pixels + (1 - factor) * other, 0, 1)


def _shift_hue(pixels: Float[Array, "B H W 3"], turns: Float[Array, " B"]) -> Float[Array, "B H W 3"]:
    """Turns the hue in HSV space; value and saturation do not change."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    value = pixels.max(-1)
    chroma = value - pixels.min(-1)
    divisor = jnp.where(chroma == 0, 1.0, chroma)
    # Channels are compared with each other, not with their maximum: XLA may compute a channel twice with different
    # last digits, and then none equals the maximum. Where two are nearly equal, both branches give the same hue.
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * turns[:, None, None]
    # Each channel falls from the value by the chroma, in a trapezium around the opposite hue.
    steps = [offset + sixths for offset in (5, 3, 1)]
    steps = [step - 6 * jnp.floor(step / 6) for step in steps]
    fall = jnp.stack([jnp.clip(jnp.minimum(step, 4 - step), 0, 1) for step in steps], axis=-1)
    return value[..., None] - chroma[..., None] * fall


def _erase(pixels: Float[Array, "B H W 3"], boxes: Float[Array, "B 4"] | None) -> Float[Array, "B H W 3"]:
    """Paints over the pixels whose centre lies in the box."""
    if boxes is None:
        return pixels
    inside = []
    for axis in (0, 1):
        place = ((jnp.arange(pixels.shape[1 + axis], dtype=jnp.float32) + 0.5) / pixels.shape[1 + axis])[None, :]
        start, extent = boxes[:, axis, None], boxes[:, axis + 2, None]
        inside.append((place >= start) & (place < start + extent))
    mask = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(mask, jnp.array(ERASE_COLOUR, pixels.dtype)[None, None, None], pixels)
