"""MT-PKDOT without a modality: its inputs kept out by name or dropped in training, its token hallucinated."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mtpkdot_setup import (
    NAMES,
    ROWS,
    TOLERANCE,
    VISIBLE,
    build,
    cosine_distance,
    cross_entropy,
    finite,
    has,
    make_batch,
    make_config,
    make_world,
    phase_of,
)

from emokd.phase import Context
from emokd.training.step import create_train_step, parameter_labels


@pytest.fixture(scope="module")
def world():
    return make_world()


def test_a_modality_kept_out_by_name_is_one_whose_inputs_are_missing(world):
    predict, state, batch = jax.jit(world.recipe.predict), world.state, make_batch(gaps=False)
    named = predict(state.params, state.stats, {}, batch)
    for size in (1, 2):
        for names in itertools.combinations(NAMES, size):
            gone = {f"features/{n}": jnp.full_like(batch[f"features/{n}"], jnp.nan) for n in NAMES if n not in names}
            without = predict(state.params, state.stats, {}, {**batch, **gone})
            np.testing.assert_array_equal(named[f"joint({'+'.join(names)})"].logits, without["joint"].logits)
            assert (np.asarray(named["joint"].logits) != np.asarray(without["joint"].logits)).any()
            if names in (("eye",), ("skin",), ("eye", "heart"), ("heart", "skin")):
                (seen,) = set(names) & set(VISIBLE)
                np.testing.assert_array_equal(named[f"student({seen})"].logits, without["student"].logits)


# Hallucination.


@pytest.fixture(scope="module")
def hallucinated(world):
    """By loss: the step of the phase that learns by it."""
    steps = {}
    for name in ("mmd", "mse", "cosine"):
        changes = {"hallucination__loss": name}
        recipe = build(**changes)
        index = [phase.name for phase in recipe.phases].index("hallucinate")
        step = create_train_step(recipe, make_config(**changes), parameter_labels(recipe))
        steps[name] = functools.partial(step, constants={}, batch=world.batch, phase=index)
    compute = jax.jit(lambda states: {name: step(states[name]) for name, step in steps.items()})
    states, losses = dict.fromkeys(steps, world.state), []
    for _ in range(6):
        found = compute(states)
        states = {name: state for name, (state, _) in found.items()}
        losses.append({name: float(metrics["loss/heart"]) for name, (_, metrics) in found.items()})
    return losses, states


def imagine(world):
    """The T-Net by hand, on the teacher's visible tokens side by side, zeros for what is absent."""
    layers = world.state.params["student"]["hallucinators"]["heart"]
    x = np.concatenate([np.where(has(world.batch, n)[:, None], world.tokens[n], 0.0) for n in VISIBLE], 1)
    for part, index in (("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1)):
        layer = layers[part][index]
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        x = x if (part, index) == ("decoder", 1) else np.maximum(x, 0)
    return x


def mmd(own, theirs):
    both = np.concatenate([own, theirs])
    squares = ((both[:, None] - both[None]) ** 2).sum(-1)
    middle = squares.sum() / (len(both) * (len(both) - 1))
    kernels = sum(np.exp(-squares / (middle * 2.0**i)) for i in range(-2, 3))
    signs = np.repeat([1.0, -1.0], len(own)) / len(own)
    return signs @ kernels @ signs


def test_a_hallucinated_token_is_compared_with_the_true_one_where_there_is_one(world, hallucinated):
    rows = has(world.batch, "heart")
    own, theirs = imagine(world)[rows], world.tokens["heart"][rows]
    expected = {"mmd": mmd(own, theirs), "mse": ((own - theirs) ** 2).mean()}
    expected["cosine"] = cosine_distance(own, theirs).mean()
    for name, value in expected.items():
        np.testing.assert_allclose(hallucinated[0][0][name], value, **TOLERANCE)


@pytest.mark.parametrize("name", ["mmd", "mse", "cosine"])
def test_a_few_steps_make_the_hallucination_better(hallucinated, name):
    losses, states = hallucinated
    assert losses[-1][name] < losses[0][name]
    assert finite(states[name].params)


# Modality dropout.


def test_modality_dropout_shows_the_networks_fewer_modalities(world):
    batch, state = make_batch(gaps=False), world.state
    none = {f"objective__{name}": 0.0 for name in ("transport", "centroid", "features")}
    recipes = {rate: build(modality_dropout=rate, **none) for rate in (0.0, 0.9)}

    @jax.jit
    def compute(key):
        return {
            (name, rate): phase_of(recipe, name).objective(state.params, state.stats, {}, batch, Context(key)).terms
            for name in ("joint", "student")
            for rate, recipe in recipes.items()
        }

    terms = compute(jax.random.key(7))
    for place, (name, term, count) in enumerate((("joint", "joint", 3), ("student", "student", 2))):
        rows = np.flatnonzero(batch["mask"] & (batch["expression"] >= 0))
        subsets = [s for s in itertools.product((True, False), repeat=count) if any(s)]  # that with all is the first
        answers = []
        for subset in subsets:
            keep = [jnp.ones((ROWS, 3), bool), jnp.ones((ROWS, 2), bool)]
            keep[place] = jnp.broadcast_to(jnp.array(subset)[None], (ROWS, count))
            logits = world.forward(state.params, batch, *keep)[place].logits
            answers.append(cross_entropy(logits, batch["expression"])[rows])
        full, dropped = (np.asarray(terms[name, rate][f"{term}/expression"].values)[rows] for rate in (0.0, 0.9))
        np.testing.assert_allclose(full, answers[0], **TOLERANCE)
        apart = abs(dropped[None] - np.stack(answers))
        np.testing.assert_allclose(apart.min(0), 0.0, atol=1e-5)
        assert (apart.argmin(0) != 0).sum() > len(rows) // 2 and len(set(apart.argmin(0))) > 1
