"""Supervised training of one network on labels: the baseline, and how teachers of our own are made.

head       the new heads learn on the frozen backbone     (for imported weights; off by default)
train      the whole network learns
"""

import dataclasses
from collections.abc import Callable, Mapping

import ml_collections
from jaxtyping import Array, Float

from emokd.configuration import defaults
from emokd.data.augment import View
from emokd.errors import InputError, nearest
from emokd.losses import affect
from emokd.models.network import TrainedModel
from emokd.phase import Batch, Context, Measure, Outcome, Recipe, Term, Tree
from emokd.recipes.common import classification, views
from emokd.recipes.common.phases import correlations, create_phase
from emokd.recipes.common.quantizing import check_beginning
from emokd.recipes.common.student import GROUPS, Student, create_student, extract_student
from emokd.recipes.common.task import Task, accuracy, choose, require_classes, targets
from emokd.signals import Signals


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration, a task, and the student's initial weights if `models` has them.

    Raises:
      InputError: a target that the data does not have, or an unknown option.
    """
    heads = {target: _head_size(target, task) for target in config.targets}
    method = Supervised(
        config=config,
        student=create_student(config, heads, task, models),
        draw_views=views.create_sampler(config.data),
        cross_entropy=classification.create_cross_entropy(config, task),
        affect_loss=choose(affect.AFFECT_LOSSES, config.affect_loss, "config.affect_loss"),
    )
    if method.student.spec.quantized:
        check_beginning("train", bool(config.start_from or config.student.init))
    both = {"student_backbone": config.backbone_multiplier, "student_head": 1.0}
    relational = [correlations(config.affect_loss, config.targets)]
    phases = [
        create_phase("head", config, task, method.head, {"student_head": 1.0}, scored=True, relational=relational),
        create_phase(
            "train",
            config,
            task,
            method.train,
            both,
            scored=True,
            prepare=method.student.prepare,
            relational=relational,
            selects_anew=method.student.spec.quantized,
        ),
    ]
    return Recipe(
        groups=GROUPS,
        phases=[phase for phase in phases if phase is not None],
        init=method.init,
        constants={},
        predict=method.predict,
        teachers=[],
        weighting=None,
        extract=extract_student,
        student_spec=method.student.spec,
        networks={"student": method.student.spec},
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Supervised:
    """The method, with everything that the configuration decides.

    Attributes:
      config: the run's configuration.
      student: the network.
      draw_views: draws a batch's augmented views.
      cross_entropy: the loss of classes.
      affect_loss: the loss of valence and arousal.
    """

    config: ml_collections.ConfigDict
    student: Student
    draw_views: Callable[[Batch], View]
    cross_entropy: classification.CrossEntropy
    affect_loss: Callable[..., Float[Array, " B"]]

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics."""
        params, stats = self.student.init(key)
        return {"student": params}, {"student": stats}

    def head(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the labels; the backbone and its statistics are frozen."""
        return self._learn(params, stats, batch, context.key, train=False)

    def train(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the labels. A frozen or quantised backbone keeps its BatchNorm statistics."""
        how = self.student.last_phase(self.config.backbone_multiplier)
        return self._learn(params, stats, batch, context.key, **how)

    def _learn(self, params: Tree, stats: Tree, batch: Batch, key: Array, **how: bool) -> Outcome:
        view = self.draw_views(batch)
        signals, new_stats = self.student.signals(params["student"], stats["student"], batch, view, key=key, **how)
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        for column in self.config.targets:
            labels, rows = targets(batch, column)
            if column == "valence_arousal":
                terms[column] = Term(self.affect_loss(signals.require("valence_arousal"), labels, mask=rows), rows)
            else:
                logits = signals.require("logits") if column == "expression" else signals.intermediates[column]
                terms[column] = Term(self.cross_entropy(logits, labels, column), rows)
                metrics[f"accuracy/{column}"] = accuracy(logits, labels, rows)
        return Outcome(terms, {**stats, "student": new_stats}, metrics=metrics)

    def predict(self, params: Tree, stats: Tree, constants: Tree, batch: Batch) -> dict[str, Signals]:
        """The student's signals for the evaluation view."""
        return {"student": self.student.answers(params["student"], stats["student"], batch, views.centre(batch))}


def _head_size(target: str, task: Task) -> int:
    if target == "valence_arousal" and target in task.columns:
        return 2
    if target in task.classes:
        return len(require_classes(task, target))
    targets = sorted({*task.classes, *(c for c in task.columns if c == "valence_arousal")})
    raise InputError(f"config.targets asks for {target!r}.{nearest(target, targets)} The data has {targets}.")


def default_config() -> ml_collections.ConfigDict:
    """The recipe's configuration with every key that it reads."""
    config = defaults.run("supervised")
    config.targets = ("expression",)
    config.affect_loss = "ccc"
    config.label_smoothing = 0.0
    config.class_weights = "none"  # or balanced
    config.backbone_multiplier = 1.0  # of the learning rate
    config.phases = ml_collections.ConfigDict(
        {
            "head": defaults.phase(epochs=5, learning_rate=2e-3, enabled=False),
            "train": defaults.phase(epochs=30, learning_rate=1e-3),
        }
    )
    return config
