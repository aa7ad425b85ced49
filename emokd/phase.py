"""Phase, Recipe, Objective: how a recipe tells the trainer what is taught, to which parameters, for how long."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError, excerpt
from emokd.signals import Signals

Tree = dict[str, Any]
Batch = Mapping[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Term:
    """One per-example loss.

    Attributes:
      values: the loss of each example, [B].
      rows: which examples count (labelled, not padding), [B].
      coefficient: the term's weight in the total.
    """

    values: Float[Array, " B"]
    rows: Bool[Array, " B"]
    coefficient: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def cotangent(self) -> Float[Array, " B"]:
        """d total / d values: the coefficient over the number of examples that count."""
        rows = self.rows.astype(self.values.dtype)
        return self.coefficient * rows / jnp.maximum(rows.sum(), 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TeacherTerm:
    """One per-example, per-teacher loss that only some of the weighed examples have.

    Attributes:
      values: the loss of each example under each teacher, its coefficient included, [B, K].
      rows: which examples have it (their target is labelled, they are no padding), [B].
    """

    values: Float[Array, "B K"]
    rows: Bool[Array, " B"]

    def cotangent(self, weights: Float[Array, "B K"]) -> Float[Array, "B K"]:
        """d total / d values: the teachers' weights over the number of examples that have the loss, as for a Term."""
        rows = self.rows.astype(weights.dtype)
        return weights * rows[:, None] / jnp.maximum(rows.sum(), 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measure:
    """A per-example value that some examples alone have, such as whether the answer is the label.

    Attributes:
      values: the value of each example, [B].
      rows: which examples have one, [B].
    """

    values: Float[Array, " B"]
    rows: Bool[Array, " B"]

    def mean(self) -> Float[Array, ""]:
        """The mean over the examples that have one; 0 where none has."""
        rows = self.rows.astype(self.values.dtype)
        return jnp.where(self.rows, self.values, 0.0).sum() / jnp.maximum(rows.sum(), 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an objective says about a batch.

    Attributes:
      terms: per-example losses that the weighting does not touch.
      stats: BatchNorm (and other) statistics after the batch.
      teacher_losses: per-example, per-teacher losses [B, K]; the weighting decides how much each counts.
      rows: the examples whose teacher losses count, [B]; the total has their mean.
      evidence: what the weighting may look at (teachers' logits, labels, ...); carries no gradient.
      metrics: further per-example values to log by their mean: name -> [B], or a Measure of some examples.
      teacher_terms: further teacher losses under the same weights, each its mean over fewer rows, such as a bound that
        only labelled examples have.
    """

    terms: Mapping[str, Term]
    stats: Tree
    teacher_losses: Float[Array, "B K"] | None = None
    rows: Bool[Array, " B"] | None = None
    evidence: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Array | Measure] = dataclasses.field(default_factory=dict)
    teacher_terms: Mapping[str, TeacherTerm] = dataclasses.field(default_factory=dict)


Weigh = Callable[[Mapping[str, Array], Bool[Array, " B"]], Float[Array, "B K"]]
"""(evidence, rows) -> the weights that the step will give to the teachers, 0 on other rows; without gradient."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What a step tells an objective besides parameters and data.

    Attributes:
      key: for all that is random in it; another one each step, and each microbatch.
      weigh: the weights that this step will give to the teachers, so that an objective may leave out what is costly in
        the losses of teachers that weigh nothing. None without teachers, and in microbatches, whose weights are not
        known before all of them are done.
    """

    key: Array
    weigh: Weigh | None = dataclasses.field(default=None, metadata={"static": True})


class Objective(Protocol):
    """What a phase minimises; pure."""

    def __call__(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context, /) -> Outcome:
        """The losses of each example of a batch, and the statistics after it."""


class Prepare(Protocol):
    """What a phase does once, when it begins; for statistics that need the whole training set."""

    def __call__(self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch], /) -> tuple[Tree, Tree]:
        """The parameters and statistics that the phase begins with; `batches` are the set's evaluation view."""


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """One stretch of training with a fixed objective and a fixed set of learning parameters.

    Attributes:
      name: unique within the recipe.
      objective: what is minimised.
      learns: learning-rate multiplier of each group that learns; the others rest.
      steps: length in optimiser steps; a run may stop it early.
      learning_rate: schedule over the phase's own steps, from 0.
      scored: whether the student can be scored on the emotion task during this phase, so that its
        checkpoints compete for "best".
      data: which stream it reads: "labelled", or "all" for the labelled and the extra examples.
      prepare: run once when the phase begins; None where there is nothing to prepare.
      remark: logged metrics -> what a person should know of them, or nothing; said once per phase, and beside the
        error where a loss is no longer finite.
      relational: what in it compares the examples of a batch, in words, so that microbatches would make it another
        method; empty where each example stands alone.
    """

    name: str
    objective: Objective
    learns: Mapping[str, float]
    steps: int
    learning_rate: optax.Schedule
    scored: bool = False
    data: str = "labelled"
    prepare: Prepare | None = None
    remark: Callable[[Mapping[str, float]], str] | None = None
    relational: str = ""


Predict = Callable[[Tree, Tree, Tree, Batch], Mapping[str, Signals]]


class FrozenFeatures(Protocol):
    """What a teacher cache stores."""

    def __call__(self, constants: Tree, batch: Batch, centre: bool) -> Mapping[str, Array]:
        """Features of every teacher that never learns, by name, each [B, D].

        They are those of the batch's own views or, where `centre` (static) is set, of the evaluation view.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """A list of phases over one set of parameters.

    Attributes:
      groups: parameter groups as full-match patterns over "/"-joined paths; every parameter in exactly one.
      phases: in order; phases of no steps are left out by whoever builds the recipe.
      init: key -> (params, stats).
      constants: frozen parameters and statistics that no phase ever learns; not checkpointed.
      predict: (params, stats, constants, batch) -> Signals of "student" and of every teacher by name, on
        the evaluation view.
      teachers: names, in the order of the weighting's columns.
      weighting: the [B, K] chain, or None for recipes without teachers.
      extract: (params, stats) -> (params, stats) of the student alone.
      student_spec: what `weights.model_folder` needs to store the student.
      frozen_features: the features that a teacher cache stores; None where no teacher is frozen.
      observe: (params, stats, constants, batch) -> arrays by name, a row for each example, that
        `reporting.observations` can draw; asked now and then about a few fixed examples, or never where it is None.
      variants: names among the predictions that are neither the student nor a teacher, such as either of them
        without one of its modalities.
      networks: the architecture of the student and of each teacher, for their size and cost.
      adopts: the student's groups that begin as a teacher's group ends, such as encoders, with that teacher's group.
    """

    groups: Mapping[str, str]
    phases: Sequence[Phase]
    init: Callable[[Array], tuple[Tree, Tree]]
    constants: Tree
    predict: Predict
    teachers: Sequence[str]
    weighting: optax.GradientTransformationExtraArgs | None
    extract: Callable[[Tree, Tree], tuple[Tree, Tree]]
    student_spec: Any
    networks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen_features: FrozenFeatures | None = None
    observe: Callable[[Tree, Tree, Tree, Batch], Mapping[str, Array]] | None = None
    variants: Sequence[str] = ()
    adopts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        names = [phase.name for phase in self.phases]
        if not names:
            raise InputError("The recipe has no phase left: enable at least one under config.phases.")
        if len(set(names)) != len(names):
            raise InputError(f"Phase names must differ, not {names}.")
        for phase in self.phases:
            unknown = set(phase.learns) - set(self.groups)
            if unknown:
                raise InputError(
                    f"Phase {phase.name!r} lets {sorted(unknown)} learn, but the groups are {sorted(self.groups)}."
                )


def path_string(path: Sequence[Any]) -> str:
    """A key path of `jax.tree_util` as "student/backbone/stages/0/conv/kernel"."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path)


def label_parameters(params: Tree, groups: Mapping[str, str]) -> Tree:
    """A tree like `params` holding each parameter's group.

    Raises:
      InputError: a parameter is in no group or in several; all of them are named.
    """
    problems = []

    def label(path, _):
        name = path_string(path)
        matches = [group for group, pattern in groups.items() if re.fullmatch(pattern, name)]
        if len(matches) != 1:
            problems.append(f"{name} ({'no group' if not matches else ' and '.join(matches)})")
        return matches[0] if matches else ""

    labels = jax.tree_util.tree_map_with_path(label, params)
    if problems:
        raise InputError(f"Every parameter must be in exactly one group; these are not: {excerpt(problems)}.")
    return labels
