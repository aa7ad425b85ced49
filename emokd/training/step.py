"""The train step: one compiled program per phase, with everything in it."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Bool, Float, Int

from emokd.errors import InputError
from emokd.labels import class_ids, has_class
from emokd.parts import OPTIMISER, part
from emokd.phase import Batch, Context, Outcome, Phase, Recipe, Tree, label_parameters
from emokd.training import averaging, divergence, skipping
from emokd.training.accumulation import Judged, accumulate, check_accumulation
from emokd.training.optimizer import create_optimizer
from emokd.training.state import State

Metrics = dict[str, Array]


class TrainStep(Protocol):
    """A step of any phase, to be jitted with static `phase`."""

    def __call__(self, state: State, constants: Tree, batch: Batch, *, phase: int) -> tuple[State, Metrics]:
        """The state after a step of this phase, and the step's metrics."""


def split_parameters(
    params: Tree, labels: Tree, learning: set[str]
) -> tuple[list[Array], Callable[[list[Array]], Tree]]:
    """The leaves of groups that learn, and a function from new values of these leaves to the whole tree."""
    leaves, treedef = jax.tree.flatten(params)
    learns = [label in learning for label in jax.tree.leaves(labels)]

    def merge(values: list[Array]) -> Tree:
        fresh = iter(values)
        merged = [next(fresh) if moves else leaf for moves, leaf in zip(learns, leaves, strict=True)]
        return jax.tree.unflatten(treedef, merged)

    return [leaf for moves, leaf in zip(learns, leaves, strict=True) if moves], merge


def by_group(tree: Tree, labels: Tree, groups: Collection[str]) -> dict[str, list[Array]]:
    """The leaves of some groups, by group; `tree` has the structure of the parameters."""
    leaves_by_group: dict[str, list[Array]] = {}
    for leaf, label in zip(jax.tree.leaves(tree), jax.tree.leaves(labels), strict=True):
        if label in groups:
            leaves_by_group.setdefault(label, []).append(leaf)
    return leaves_by_group


def gradients(
    recipe: Recipe, phase: Phase, labels: Tree, state: State, constants: Tree, batch: Batch, microbatches: int = 1
) -> tuple[Tree, Outcome, Array | None, Tree]:
    """Gradients of the phase's objective in one backward pass, however many teachers; or in one per microbatch.

    The weighting's [B, K] output is the cotangent of the per-example, per-teacher losses. Only the groups that learn
    are differentiated; the others get zeros, which the compiler folds away.

    Returns:
      (gradients like params, outcome, teacher weights [B, K] or None, new weighting state)
    """
    key = jax.random.fold_in(state.key, state.step)
    learning, merge = split_parameters(state.params, labels, set(phase.learns))
    weights_in_objective = recipe.weighting is not None and microbatches == 1
    weigh_evidence = (
        (lambda evidence, rows: weigh(recipe, state.weighting, evidence, rows)[0]) if weights_in_objective else None
    )

    def losses(values, batch, key):
        outcome = phase.objective(merge(values), state.stats, constants, batch, Context(key, weigh_evidence))
        parts = {name: term.values for name, term in outcome.terms.items()}
        further = {name: term.values for name, term in outcome.teacher_terms.items()}
        return (parts, outcome.teacher_losses, further), outcome

    judge = functools.partial(cotangents, recipe, state.weighting)
    if microbatches > 1:
        values, outcome, weights, weighting = accumulate(losses, judge, learning, state.stats, batch, key, microbatches)
    else:
        _, backward, outcome = jax.vjp(lambda values: losses(values, batch, key), learning, has_aux=True)
        outcome = jax.lax.stop_gradient(outcome)
        cotangent, weights, weighting = judge(outcome)
        (values,) = backward(cotangent)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    _, merge_gradients = split_parameters(zeros, labels, set(phase.learns))
    return merge_gradients(values), outcome, weights, weighting


def cotangents(recipe: Recipe, weighting: Tree, outcome: Outcome) -> Judged:
    """d total / d losses.

    Returns:
      (cotangents of the terms, of the teacher losses and of the teacher terms; teacher weights [B, K] or None; new
      weighting state)

    Raises:
      InputError: teacher losses come without their rows, or without a weighting.
    """
    terms = {name: term.cotangent for name, term in outcome.terms.items()}
    losses = outcome.teacher_losses
    if losses is None:
        return (terms, None, {}), None, weighting
    if outcome.rows is None:
        raise InputError("An objective gives teacher_losses but no rows: say in Outcome.rows which examples count.")
    weights, weighting = weigh(recipe, weighting, outcome.evidence, outcome.rows)
    count = jnp.maximum(outcome.rows.sum().astype(jnp.float32), 1.0)
    further = {name: term.cotangent(weights).astype(term.values.dtype) for name, term in outcome.teacher_terms.items()}
    return (terms, (weights / count).astype(losses.dtype), further), weights, weighting


def weigh(
    recipe: Recipe, weighting: Tree, evidence: Mapping[str, Array], rows: Bool[Array, " B"]
) -> tuple[Float[Array, "B K"], Tree]:
    """The teachers' weights, 0 on rows that do not count, and the new weighting state."""
    if recipe.weighting is None:
        raise InputError("An objective gives teacher_losses, but the recipe has no weighting: give Recipe.weighting.")
    teachers = len(recipe.teachers)
    uniform = jnp.full((rows.shape[0], teachers), 1 / teachers, jnp.float32)
    weights, weighting = recipe.weighting.update(uniform, weighting, None, mask=rows, **evidence)
    return weights * rows.astype(jnp.float32)[:, None], weighting


def update_tally(
    tally: Tree, weights: Float[Array, "B K"], rows: Bool[Array, " B"], labels: Int[Array, " B"] | None
) -> Tree:
    """Adds a batch's teacher weights to the sums by class."""
    count = tally["rows"].shape[0]
    unlabelled = jnp.full(rows.shape, count - 1, jnp.int32)
    if labels is None:
        classes = unlabelled
    else:  # votes count for their majority class
        classes = jnp.where(has_class(labels), class_ids(labels).astype(jnp.int32), unlabelled)
    one_hot = jax.nn.one_hot(classes, count, dtype=jnp.float32) * rows.astype(jnp.float32)[:, None]
    return {
        "weights": tally["weights"] + jnp.dot(one_hot.T, weights, precision="highest"),
        "rows": tally["rows"] + one_hot.sum(0),
    }


def _summary(recipe: Recipe, outcome: Outcome, weights: Array | None) -> Metrics:
    """Means of every loss, teacher weight and further metric, each over the examples that have one."""
    total = jnp.zeros(())
    metrics: Metrics = {}
    for name, term in outcome.terms.items():
        rows = term.rows.astype(jnp.float32)
        metrics[f"loss/{name}"] = (term.values * rows).sum() / jnp.maximum(rows.sum(), 1.0)
        total = total + (term.values * term.cotangent).sum()
    if weights is not None:
        assert outcome.rows is not None and outcome.teacher_losses is not None  # the weights are theirs
        rows = outcome.rows.astype(jnp.float32)
        count = jnp.maximum(rows.sum(), 1.0)
        total = total + (weights * outcome.teacher_losses).sum() / count
        losses = [(outcome.teacher_losses[:, k] * rows).sum() / count for k in range(len(recipe.teachers))]
        for further in outcome.teacher_terms.values():
            total = total + (further.values * further.cotangent(weights)).sum()
            means = (further.values * further.cotangent(jnp.ones_like(weights))).sum(0)
            losses = [loss + mean for loss, mean in zip(losses, means, strict=True)]
        for k, teacher in enumerate(recipe.teachers):
            metrics[f"loss/teacher/{teacher}"] = losses[k]
            metrics[f"weight/{teacher}"] = weights[:, k].sum() / count
    metrics["loss"] = total
    for name, values in outcome.metrics.items():
        metrics[name] = values.mean()  # a Measure's is that of the rows that have a value
    return metrics


def create_train_step(recipe: Recipe, config: ml_collections.ConfigDict, labels: Tree) -> TrainStep:
    """Makes `train_step(state, constants, batch, phase=i) -> (state, metrics)`, to be jitted with static `phase`.

    Beside losses and weights the metrics are `gradient_norm`, over all parameters that learn in the phase, before any
    clipping, and `learning_rate`, before the groups' multipliers; and `skipped_steps` of the run so far, where
    `config.optimizer.skip_diverged` is not 0.

    Raises:
      InputError: `config.accumulate` does not fit the batch, or a phase's losses compare the examples of a batch.
    """
    check_accumulation(recipe, config)
    optimizers = [create_optimizer(config.optimizer, phase, labels, recipe.groups) for phase in recipe.phases]

    def train_step(state: State, constants: Tree, batch: Batch, *, phase: int) -> tuple[State, Metrics]:
        # Frozen groups are left out, or the compiler might keep their backward pass.
        grouped = functools.partial(by_group, labels=labels, groups=recipe.phases[phase].learns)
        grads, outcome, weights, weighting = gradients(
            recipe, recipe.phases[phase], labels, state, constants, batch, config.accumulate
        )
        with part(OPTIMISER):
            # optax raises a float to the power of an int32 count, which strict promotion would refuse.
            with jax.numpy_dtype_promotion("standard"):
                updates, optimizer = optimizers[phase].update(
                    grads, state.optimizer, state.params, phase_step=state.phase_step
                )
                rate = jnp.asarray(recipe.phases[phase].learning_rate(state.phase_step), jnp.float32)
            params = optax.apply_updates(state.params, updates)
            squares = {
                group: sum((jnp.square(x.astype(jnp.float32)).sum() for x in leaves), jnp.zeros(()))
                for group, leaves in grouped(grads).items()
            }
            learnt = {group: [*leaves, squares[group]] for group, leaves in grouped(params).items()}
            norm = jnp.sqrt(sum(squares.values(), jnp.zeros(())))
        metrics = _summary(recipe, outcome, weights) | {"gradient_norm": norm, "learning_rate": rate}
        watched = divergence.watched(recipe.groups, outcome.stats)
        number = state.step + 1
        finite = divergence.finite(metrics["loss"], learnt, outcome.stats, watched)
        skips = config.optimizer.skip_diverged > 0
        failed = state.failed if skips else divergence.first_failures(state.failed, number, finite)
        tally = state.tally
        if weights is not None and outcome.rows is not None:
            tally = update_tally(tally, weights, outcome.rows, outcome.evidence.get("labels"))
        after = dataclasses.replace(
            state,
            step=state.step + 1,
            phase_step=state.phase_step + 1,
            params=params,
            stats=outcome.stats,
            average=averaging.update(state.average, params, outcome.stats, steps_counted(state) + 1, config.ema.decay),
            optimizer=optimizer,
            weighting=weighting,
            tally=tally,
            failed=failed,
        )
        if skips:
            after = unless_diverged(state, after, finite)
            metrics["skipped_steps"] = skipping.count(after.failed)
        return after, metrics

    return train_step


def steps_counted(state: State) -> Int[Array, ""]:
    """The steps of the present phase so far, without those that were skipped."""
    if state.failed.ndim == 1:  # none is skipped
        return state.phase_step
    return state.phase_step - skipping.count(state.failed, since=state.step - state.phase_step)


def unless_diverged(before: State, after: State, finite: Bool[Array, " P"]) -> State:
    """The state after a step, or where the step is skipped the one before it, with the step counted.

    Both are in memory until the step's end, which decides.

    Args:
      before: the state before the step, in which steps may be skipped.
      after: the state after the step.
      finite: what is finite in it, from `divergence.finite`.
    """
    skip, failed = skipping.note(before.failed, finite, after.step)
    chosen: State = skipping.choose(skip, before, after)
    return dataclasses.replace(chosen, step=after.step, phase_step=after.phase_step, failed=failed)


def parameter_labels(recipe: Recipe) -> Tree:
    """The group of each of the recipe's parameters, without allocating any."""
    params, _ = jax.eval_shape(recipe.init, jax.random.key(0))
    return label_parameters(params, recipe.groups)
