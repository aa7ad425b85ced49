"""Phase, Recipe and Objective: how a recipe tells the trainer what to minimise, over which parameters, for how long."""

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
        """d total / d values: the coefficient divided by the number of examples that count; 0 on other rows."""
        rows = self.rows.astype(self.values.dtype)
        return self.coefficient * rows / jnp.maximum(rows.sum(), 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TeacherTerm:
    """A per-example, per-teacher loss that only some of the weighted examples have.

    Attributes:
      values: the loss of each example under each teacher, its coefficient included, [B, K].
      rows: which examples have it: those with a label for it that are not padding, [B].
    """

    values: Float[Array, "B K"]
    rows: Bool[Array, " B"]

    def cotangent(self, weights: Float[Array, "B K"]) -> Float[Array, "B K"]:
        """d total / d values: the teachers' weights divided by the number of examples that have the loss."""
        rows = self.rows.astype(weights.dtype)
        return weights * rows[:, None] / jnp.maximum(rows.sum(), 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measure:
    """A per-example value for the log that only some examples have, such as whether the prediction is right.

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
    """What an objective returns for a batch.

    Attributes:
      terms: per-example losses that the weighting does not touch.
      stats: BatchNorm (and other) statistics after the batch.
      teacher_losses: per-example, per-teacher losses [B, K]; the weighting decides how much each counts.
      rows: the examples whose teacher losses count, [B]; the total takes their mean.
      evidence: what the weighting reads (teachers' logits, labels, ...); carries no gradient.
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
"""(evidence, rows) -> the teachers' weights in this step, without gradient; 0 on rows that do not count."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What a step passes to an objective besides parameters and data.

    Attributes:
      key: seeds all randomness of the objective; every step and every microbatch has its own.
      weigh: computes the teachers' weights in this step, so that an objective can skip costly losses of teachers whose
        weight is 0. None without teachers, and with gradient accumulation, where the weights depend on all
        microbatches together.
    """

    key: Array
    weigh: Weigh | None = dataclasses.field(default=None, metadata={"static": True})


class Objective(Protocol):
    """What a phase minimises: a pure function."""

    def __call__(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context, /) -> Outcome:
        """Computes the losses of each example of a batch, and the new statistics."""


class Prepare(Protocol):
    """Runs once, when a phase begins; for statistics that need the whole training set."""

    def __call__(self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch], /) -> tuple[Tree, Tree]:
        """The parameters and statistics that the phase begins with; `batches` are the training set, unaugmented."""


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """A part of training with a fixed objective and a fixed set of trained parameters.

    Attributes:
      name: unique within the recipe.
      objective: what is minimised.
      learns: learning-rate multiplier of each group that learns; the other groups are frozen.
      steps: length in optimiser steps; a run may stop it early.
      learning_rate: schedule over the phase's steps, counted from 0.
      scored: whether the student can be scored on the emotion task during this phase, so that its
        checkpoints compete for "best".
      data: which stream it reads: "labelled", or "all" for the labelled and the extra examples.
      prepare: run once when the phase begins; None where there is nothing to prepare.
      remark: logged metrics -> a warning for the user, or an empty text; logged once per phase, and part of the error
        where the run diverges.
      relational: what in the objective compares the examples of a batch with one another, in words; such a phase cannot
        be computed in microbatches. Empty where the loss of each example depends on that example alone.
      selects_anew: whether the student computes something else from this phase on, so that the steps of earlier phases
        no longer compete for "best".
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
    selects_anew: bool = False


Predict = Callable[[Tree, Tree, Tree, Batch], Mapping[str, Signals]]
"""(params, stats, constants, batch) -> Signals of each network by name."""


class FrozenFeatures(Protocol):
    """Computes what a teacher cache stores."""

    def __call__(self, constants: Tree, batch: Batch, centre: bool) -> Mapping[str, Array]:
        """Features of every frozen teacher, by name, each [B, D].

        They are of the batch's augmented views or, where `centre` (static) is set, of the evaluation view.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """A list of phases over one set of parameters.

    Attributes:
      groups: for each parameter group a regular expression that matches the whole "/"-joined path of its parameters;
        every parameter belongs to exactly one group.
      phases: in order; phases of no steps are left out by whoever builds the recipe.
      init: key -> (params, stats).
      constants: parameters and statistics that are frozen in every phase; not checkpointed.
      predict: (params, stats, constants, batch) -> Signals of "student" and of every teacher by name, on
        the evaluation view.
      teachers: names, in the order of the weighting's columns.
      weighting: the [B, K] chain, or None for recipes without teachers.
      extract: (params, stats) -> (params, stats) of the student alone.
      student_spec: the student's architecture, as `weights.model_folder` stores it.
      frozen_features: computes the features that a teacher cache stores; None where no teacher is frozen.
      observe: (params, stats, constants, batch) -> arrays by name, a row for each example, that
        `reporting.observations` can draw; called at evaluations, for a few fixed examples. None: nothing is drawn.
      variants: names of the predictions that are neither the student's nor a teacher's, such as those of either
        without one of its modalities.
      networks: the specification of the student and of each teacher, for their size and cost.
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
        if getattr(self.student_spec, "quantized", False) and not any(phase.selects_anew for phase in self.phases):
            raise InputError(
                f"config.student.quantized: none of the phases of this run ({', '.join(names)}) teaches the student to "
                "compute in integers. Enable the recipe's last phase, or set it to False."
            )
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
    """A tree like `params` that holds the name of each parameter's group.

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
