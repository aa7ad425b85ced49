"""What MT-PKDOT is built from: encoders' weights, statistics of the training split, full-size configurations."""

import dataclasses

import jax
import jax.numpy as jnp
import mtpkdot_tables
import numpy as np
import pytest
from mtpkdot_setup import make_batch, make_config

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.phase import Context
from emokd.recipes import mtpkdot
from emokd.recipes.common.task import Task
from emokd.training import loop
from emokd.training.programs import Programs
from emokd.training.state import create_state
from emokd.weights import model_folder

# Encoders from files.


def face_network(width):
    """A network of random numbers, as if read from a file."""
    spec = NetworkSpec("basic_cnn", {"width": width}, preprocessing=Preprocessing(16))
    rng = np.random.default_rng(1)
    params, stats = jax.tree.map(lambda s: rng.uniform(0.1, 1, s.shape).astype(np.float32), functional(spec).abstract)
    return TrainedModel(spec, params, stats, "a file")


def recipe_of_faces(model):
    config = make_config()
    for name in ("eye", "skin"):
        del config.modalities[name]
    config.modalities.face = defaults.modality("image", "basic_cnn", size=16, width=1)
    task = Task({"expression": ("no", "yes")}, ("expression",), {"labelled": 24}, 12, inputs={"features/heart": (3,)})
    return mtpkdot.build(config, task, {"face": model})


def test_a_modalitys_weights_reach_the_teachers_and_the_students_encoder():
    model = face_network(1)
    recipe = recipe_of_faces(model)

    @jax.jit
    def encoders(key):
        return [
            {who: tree[who]["encoders"]["face"]["backbone"] for who in ("teacher", "student")}
            for tree in recipe.init(key)
        ]

    for found, given in zip(encoders(jax.random.key(0)), (model.params, model.stats), strict=True):
        for who in ("teacher", "student"):
            jax.tree.map(np.testing.assert_array_equal, found[who], given["backbone"])


def test_weights_of_another_architecture_are_refused_by_the_modalitys_name():
    recipe = recipe_of_faces(face_network(2))
    with pytest.raises(InputError, match=r"config\.modalities\.face\.init is a basic_cnn with options .*2.*a file"):
        jax.eval_shape(recipe.init, jax.random.key(0))


# Statistics of the arrays.


def moved(examples, offset):
    """The same examples with larger numbers."""
    readers = {name: lambda i, read=read: read(i) * (1 + offset) + offset for name, read in examples.inputs.items()}
    return dataclasses.replace(examples, inputs=readers)


def test_a_run_standardises_by_its_training_split_alone(tmp_path):
    off = {f"phases__{name}__enabled": False for name in ("teach", "joint", "hallucinate", "align")}
    config = make_config(**off, devices=1)
    config.modalities.skin.privileged = True
    config.phases.student = defaults.phase(steps=1, learning_rate=1e-3, warmup_percent=0.0)
    examples = mtpkdot_tables.make_examples()
    splits = {
        "train": examples.select(np.arange(13)),  # the last batch of its statistics is mostly padding
        "validation": moved(examples.select(np.arange(13, 18)), 5),
        "test": moved(examples.select(np.arange(18, 24)), -3),
    }
    recipe = mtpkdot_tables.build(config, splits["train"])
    programs = Programs(recipe, config, len(examples.classes["expression"]))
    state, _ = loop.train(loop.Job(config, recipe, splits, None, programs), tmp_path)
    table = np.stack([examples.inputs["features/eye"](i) for i in range(13)]).astype(np.float64)
    params, stats = jax.device_get(recipe.extract(state.params, state.stats))
    model_folder.save_model(tmp_path / "student", recipe.student_spec, params, stats, {})
    stored = model_folder.load_trained(tmp_path / "student").stats["encoders"]["eye"]["standardizer"]
    np.testing.assert_allclose(stored["mean"], np.nanmean(table, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stored["std"], np.nanstd(table, 0), rtol=1e-5)


# The full-size configurations.


@pytest.mark.parametrize(
    ("name", "shapes", "column", "classes"),
    [
        ("biovid", {"video": (10, 112, 112, 3), "physiology": (1536, 1)}, "expression", ("BL1", "PA4")),
        pytest.param(
            "affwild2",
            {"video": (8, 112, 112, 3), "audio": (64, 98)},
            "valence_arousal",
            (),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_full_size_configurations_build_from_the_shapes_that_they_read(name, shapes, column, classes):
    config = configuration.load(f"configs/mtpkdot/{name}.py")
    known = {column: classes} if classes else {}
    task = Task(known, (column,), {"labelled": 1000}, config.batch_size, inputs=shapes)
    recipe = mtpkdot.build(config, task, {})
    assert [phase.name for phase in recipe.phases] == ["teach", "joint", "hallucinate", "align", "student"]
    state = jax.eval_shape(lambda: create_state(recipe, config, len(classes), jax.random.key(0)))
    rows = config.batch_size
    small = jax.eval_shape(make_batch)
    batch = {key: jax.ShapeDtypeStruct((rows,), small[key].dtype) for key in ("id", "view", "mask")}
    for key, shape in shapes.items():
        dtype = jnp.uint8 if key == "video" else jnp.float32
        batch[key] = jax.ShapeDtypeStruct((rows, *shape), dtype)
    target = ((rows,), jnp.int32) if classes else ((rows, 2), jnp.float32)
    batch[column] = jax.ShapeDtypeStruct(*target)
    outcome = jax.eval_shape(recipe.phases[-1].objective, state.params, state.stats, {}, batch, Context(state.key))
    assert outcome.teacher_losses.shape == (rows, 3)
    answers = jax.eval_shape(recipe.predict, state.params, state.stats, {}, batch)
    head = "logits" if classes else "valence_arousal"
    assert {getattr(answers[who], head).shape for who in ("student", "joint", "face")} == {(rows, 2)}
    assert answers["student"].features.shape == (rows, 512)
