"""SMKD's teachers of several sizes and normalisations: the views that networks see, and the work of each phase."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from live_macs import count_live_macs
from small_jobs import SIZE
from smkd_jobs_setup import CLASSES, first_batch, make_job_config, make_teacher, save_teachers

from emokd.data.augment import Augmentation, sample_views
from emokd.jobs import job
from emokd.models.network import Functional, functional
from emokd.phase import Context
from emokd.training.step import create_train_step

resize = jax.jit(jax.image.scale_and_translate, static_argnums=(1, 2, 5))


def look(image, view, row, size):
    """A picture in a view at a size: JAX's own resize, then colours as torchvision defines them, in float64."""
    top, left, height, width = np.asarray(view.box[row], np.float64)
    scale = size / (np.array([height, width]) * image.shape[:2])
    pixels = resize(
        image / np.float32(255),
        (size, size, 3),
        (0, 1),
        jnp.asarray(scale, jnp.float32),
        jnp.asarray(-np.array([top, left]) * image.shape[:2] * scale, jnp.float32),
        "linear",
    )
    pixels = np.clip(np.asarray(pixels, np.float64), 0, 1)
    pixels = pixels[:, ::-1] if view.flip[row] else pixels
    luma = np.array([0.2989, 0.587, 0.114])
    brightness, contrast, saturation = (float(f[row]) for f in (view.brightness, view.contrast, view.saturation))
    pixels = np.clip(brightness * pixels, 0, 1)
    pixels = np.clip(contrast * pixels + (1 - contrast) * (pixels @ luma).mean(), 0, 1)
    return np.clip(saturation * pixels + (1 - saturation) * (pixels @ luma)[..., None], 0, 1)


SEEN_AT = {
    16: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    20: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    27: ((0.1, 0.2, 0.3), (1.0, 0.7, 0.4)),
}
"""Mean and deviation of the three networks, the student first, by the side of their pictures."""


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    """A job of teachers that differ in size and normalisation, and a batch."""
    folder = tmp_path_factory.mktemp("differing")
    models = {"one": make_teacher(1, 3, 20, SEEN_AT[20]), "two": make_teacher(2, 2, SIZE, SEEN_AT[27])}
    config = make_job_config(save_teachers(folder, models))
    config.teachers.two.size = 27  # not the one that its folder says
    made = job.create_job(config, None)
    return config, made, first_batch(made.splits["train"], config)


@pytest.mark.parametrize(
    ("phase", "sizes"), [("probe", [20, 27]), ("distill", [16, 20, 27]), ("classify", [16]), ("finetune", [16])]
)
def test_each_network_sees_the_one_view_at_its_own_size_and_normalisation(differing, phase, sizes, monkeypatch):
    config, made, batch = differing
    recipe, state, original = made.recipe, made.programs.abstract, Functional.__call__
    (objective,) = [p.objective for p in recipe.phases if p.name == phase]

    @jax.jit
    def received(batch):
        found = {}

        def spy(self, params, stats, images, **options):
            assert images.shape[1] not in found
            found[images.shape[1]] = images
            answer = jax.eval_shape(lambda *args: original(self, *args, **options), params, stats, images)
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), answer)  # what it makes of them does not matter

        monkeypatch.setattr(Functional, "__call__", spy)
        params, stats = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (state.params, state.stats))
        objective(params, stats, recipe.constants, batch, Context(jax.random.key(0)))
        return found

    seen = received(batch)
    assert sorted(seen) == sizes
    view = sample_views(batch["id"], batch["view"], Augmentation(**config.data.augment), config.data.view_seed)
    assert np.ptp(view.box[:, 2]) > 0.1 and 0 < np.mean(view.flip) < 1
    for size, images in seen.items():
        mean, std = SEEN_AT[size]
        expected = np.stack([look(image, view, row, size) for row, image in enumerate(np.asarray(batch["image"]))])
        np.testing.assert_allclose(images, (expected - mean) / std, atol=1e-4)


def rendering_macs(rows, canvas, size):
    """Two products for each channel: along the rows of the canvas, then along its columns."""
    return rows * 3 * (canvas * canvas * size + size * canvas * size)


def network_macs(spec, rows, backward):
    """Those of a network up to its features; with its backward pass, those of every gradient of its parameters."""
    network, size = functional(spec), spec.preprocessing.size
    params, stats = network.abstract
    pixels = jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32)

    def features(params, stats, pixels):
        return network(params, stats, pixels, train=backward)[0].features.sum()

    return count_live_macs(jax.grad(features) if backward else features, params, stats, pixels)


def test_multiply_accumulates_of_each_phase_are_those_of_its_networks_to_the_last_one(differing):
    config, made, batch = differing
    recipe, rows = made.recipe, config.batch_size
    specs = {name: recipe.networks[name] for name in ("student", "one", "two")}
    forward = {
        name: network_macs(spec, rows, False) + rendering_macs(rows, SIZE, spec.preprocessing.size)
        for name, spec in specs.items()
    }
    student = network_macs(specs["student"], rows, True) + rendering_macs(rows, SIZE, SIZE)
    width = {name: functional(spec).module.backbone.feature_size for name, spec in specs.items()}
    teachers = sum(forward[name] for name in ("one", "two"))
    probes = rows * (width["one"] + width["two"]) * CLASSES
    adapters = rows * width["student"] * (width["one"] + width["two"])
    head = rows * width["student"] * CLASSES
    tally = (CLASSES + 1) * rows * 2
    expected = {
        "probe": teachers + 2 * probes,
        "distill": teachers + probes + student + 3 * adapters + tally,
        "classify": forward["student"] + 2 * head,
        "finetune": student + 3 * head,
    }
    step = create_train_step(recipe, config, made.programs.labels)
    state = made.programs.abstract
    found = {
        phase.name: count_live_macs(
            lambda s, c, b, i=index: step(s, c, b, phase=i), state, recipe.constants, dict(batch)
        )
        for index, phase in enumerate(recipe.phases)
    }
    assert found == expected
