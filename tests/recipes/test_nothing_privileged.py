"""What a recipe's student answers by, read off the traced program: what it is given in use, and nothing else."""

import bounded_setup
import jax
import mtpkdot_setup
import numpy as np
import pytest
import recipes_setup
import test_supervised
from jax.interpreters import partial_eval

from emokd.exporting.student import Student, create_graph
from emokd.inference.forward import create_forward, inputs_of
from emokd.inference.jax_student import signature_of
from emokd.models.network import TrainedModel
from emokd.recipes import bounded
from emokd.recipes.common.task import Task
from emokd.weights.seen_as import SeenAs

FACES = recipes_setup.SIZE


def picture_batch(examples):
    """A batch of pictures with all their targets."""
    batch = {name: np.asarray(values)[:8] for name, values in examples.columns.items()}
    batch |= {"image": np.zeros((8, FACES, FACES, 3), np.uint8), "id": np.arange(8, dtype=np.uint32)}
    return batch | {"mask": np.ones(8, bool)}


def smkd(examples):
    return recipes_setup.build(recipes_setup.make_config(), recipes_setup.make_models(), examples)


def mirrored(examples):
    examples = bounded_setup.faces(examples)
    teacher = bounded_setup.make_teacher(examples.classes["expression"])
    config = bounded_setup.make_config("one")
    config.mirror = True
    # Not that file's `build`, whose student is a linear one of its own.
    task = Task(
        examples.classes, tuple(examples.columns), {"labelled": len(examples), "all": len(examples)}, config.batch_size
    )
    return bounded.build(config, task, {"one": teacher})


def plain(examples):
    return test_supervised.build(test_supervised.make_config(("expression", "valence_arousal")), examples)


def read_by(function, batch):
    """The entries of a batch that the outputs of a function depend on."""
    traced = jax.make_jaxpr(function)(batch)
    _, used = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    return {name for name, is_used in zip(sorted(batch), used, strict=True) if is_used}


def student_inputs(recipe, batch, mirror=False):
    """What the student of the run's scores reads, and that of use."""
    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, stats))
    forward = create_forward(recipe.student_spec, mirror=mirror)
    scored = read_by(lambda batch: recipe.predict(*weights, recipe.constants, batch)["student"], batch)
    return scored, read_by(lambda batch: forward(*recipe.extract(*weights), batch), batch)


def in_use(recipe, mirror=False):
    """What `emokd.load` reads of the student's model folder, and what its export does, by the keys of a batch."""
    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    weights = recipe.extract(*jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), (params, stats)))
    model = TrainedModel(recipe.student_spec, *weights, origin="ones")
    student = Student(model, SeenAs(FACES, "crop", "landmarks", mirror=mirror))
    taken = {name: seen.reads for name, seen in signature_of(recipe.student_spec).inputs.items()}
    return set(taken.values()), {taken[name] for name in create_graph(student).inputs}


@pytest.mark.parametrize("build", [smkd, mirrored, plain], ids=["smkd", "bounded", "supervised"])
def test_a_student_of_pictures_reads_the_picture_alone(examples, build):
    recipe = build(examples)
    assert student_inputs(recipe, picture_batch(examples), build is mirrored) == ({"image"}, {"image"})
    assert in_use(recipe, build is mirrored) == ({"image"}, {"image"})


def test_a_student_of_modalities_reads_the_visible_ones_alone():
    recipe, batch = mtpkdot_setup.build(), mtpkdot_setup.make_batch()
    visible = {f"features/{name}" for name in mtpkdot_setup.VISIBLE}
    assert student_inputs(recipe, batch) == (visible, visible)
    assert set(inputs_of(recipe.student_spec)) == visible
    assert in_use(recipe) == (visible, visible)
    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, stats))
    teacher = read_by(lambda batch: recipe.predict(*weights, {}, batch)["joint"], batch)
    assert teacher == {f"features/{name}" for name in mtpkdot_setup.NAMES}  # so the reading finds what is read
