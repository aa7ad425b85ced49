"""A small MT-PKDOT whose batch has gaps, with its networks' answers to it, and NumPy's word for what they amount to."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import mtpkdot_tables
import numpy as np
from random_state import random_state

from emokd.configuration import defaults
from emokd.models.network import functional
from emokd.phase import Phase, Recipe
from emokd.signals import Signals
from emokd.training.state import State

ROWS = 12  # of a batch
NAMES, VISIBLE = ("eye", "heart", "skin"), ("eye", "skin")
TOLERANCE = {"rtol": 2e-4, "atol": 2e-6}


def make_config(**changes) -> ml_collections.ConfigDict:
    """Eyes and skin are visible, the heart is privileged; the fusion is one that compiles fast."""
    config = mtpkdot_tables.make_config()
    config.modalities.skin.privileged = False
    for name in NAMES:
        config.modalities[name].options = {"widths": (4,)}
    config.width, config.fusion.name, config.fusion.options = 4, "joint_cross_attention", {"recursions": 1, "hidden": 2}
    config.hallucination.options = {"encoder": (6, 3), "decoder": (6,)}
    config.optimizer.update({"name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "clip_norm": 0.0})
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=1000, learning_rate=0.1, warmup_percent=0.0)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def build(**changes) -> Recipe:
    return mtpkdot_tables.build(make_config(**changes), mtpkdot_tables.make_examples())


def phase_of(recipe: Recipe, name: str) -> Phase:
    return next(phase for phase in recipe.phases if phase.name == name)


def make_batch(gaps: bool = True) -> dict[str, jax.Array]:
    """A row of padding and one without label; with gaps, rows without heart and without skin."""
    (batch,) = mtpkdot_tables.batches(mtpkdot_tables.make_examples(), make_config())
    batch["mask"] = batch["mask"].at[11].set(False)
    batch["expression"] = batch["expression"].at[5].set(-1)
    if gaps:
        batch["features/heart"] = batch["features/heart"].at[np.array([1, 4, 5])].set(jnp.nan)
        batch["features/skin"] = batch["features/skin"].at[np.array([2, 4])].set(jnp.nan)
    return batch


def inputs(batch, names=NAMES):
    return {name: batch[f"features/{name}"] for name in names}


def has(batch, name: str) -> np.ndarray:
    """The rows that have a modality, or for the joint teacher all but padding."""
    mask = np.asarray(batch["mask"])
    return mask if name == "joint" else mask & ~np.isnan(np.asarray(batch[f"features/{name}"])).all(1)


def linear(params, x):
    return x @ params["kernel"] + params["bias"][None]


def adapt(params, name, token):
    return linear(params["adapters"][name]["up"], linear(params["adapters"][name]["down"], token))


def cross_entropy(logits, labels) -> np.ndarray:
    """In float64; 0 without a label."""
    z, labels = np.asarray(logits, np.float64), np.asarray(labels)
    values = np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), np.maximum(labels, 0)]
    return np.where(labels >= 0, values, 0.0)


def cosine_distance(a, b):
    return 1 - (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def finite(tree) -> bool:
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass
class World:
    recipe: Recipe
    state: State
    batch: dict[str, jax.Array]
    forward: Callable[..., tuple[Signals, Signals]]  # of params, batch, the teacher's keep, the student's keep
    teacher: dict[str, tuple[np.ndarray, np.ndarray]]  # float64: features and logits of every teacher, by name
    tokens: dict[str, np.ndarray]
    student: Signals


def make_world() -> World:
    config = make_config()
    recipe = build()
    state, batch = random_state(recipe, config, 3), make_batch()
    joint, student = (functional(recipe.networks[name]) for name in ("joint", "student"))

    @jax.jit
    def forward(params, batch, keep, own_keep):
        theirs, _ = joint(params["teacher"], state.stats["teacher"], inputs(batch), keep)
        own, _ = student(params["student"], state.stats["student"], inputs(batch, VISIBLE), own_keep)
        return theirs, own

    everything = jnp.ones((ROWS, 3), bool), jnp.ones((ROWS, 2), bool)
    theirs, own = jax.tree.map(lambda x: np.asarray(x, np.float64), forward(state.params, batch, *everything))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params)
    tokens = {name: theirs.intermediates[f"token/{name}"] for name in NAMES}
    teacher = {"joint": (theirs.features, theirs.logits)}
    for name in NAMES:
        adapted = adapt(params, name, tokens[name])
        teacher[name] = adapted, linear(params["aligned_heads"][name]["expression"], adapted)
    return World(recipe, state, batch, forward, teacher, tokens, own)
