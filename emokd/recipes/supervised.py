"""Supervised training of one network on labels: the baseline, and how teachers of our own are made.

head       the new heads learn on the resting backbone    (for imported weights; off by default)
train      the whole network learns
"""

from collections.abc import Mapping

import jax.numpy as jnp
import ml_collections

from emokd.configuration import defaults
from emokd.errors import InputError, nearest
from emokd.losses import affect
from emokd.models.network import TrainedModel
from emokd.phase import Outcome, Recipe, Term
from emokd.recipes.common import classification, views
from emokd.recipes.common.networks import adopt_backbone, create_network, create_spec
from emokd.recipes.common.phases import correlations, create_phase
from emokd.recipes.common.task import Task, accuracy, choose, require_classes, targets


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration, a task, and the student's initial weights if `models` has them.

    Raises:
      InputError: a target that the data does not have, or an unknown option.
    """
    heads = {target: _head_size(target, task) for target in config.targets}
    spec = create_spec(config.student, heads, task)
    student = create_network(spec, config, "student")
    augmentation = views.create_augmentation(config.data.augment)
    cross_entropy = classification.create_cross_entropy(config, task)
    affect_loss = choose(affect.AFFECT_LOSSES, config.affect_loss, "config.affect_loss")

    def init(key):
        params, stats = student.init(key)
        if "student" in models:
            params, stats = adopt_backbone(params, stats, models["student"], spec)
        return {"student": params}, {"student": stats}

    def learn(params, stats, batch, key, train):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        signals, moved = student(
            params["student"], stats["student"], views.see(spec, batch, view), train=train, key=key
        )
        terms, metrics = {}, {}
        for target in config.targets:
            if target == "valence_arousal":
                rows = batch["mask"] & ~jnp.isnan(batch[target]).all(-1)
                terms[target] = Term(affect_loss(signals.valence_arousal, batch[target], mask=rows), rows)
            else:
                logits = signals.logits if target == "expression" else signals.intermediates[target]
                labels, rows = targets(batch, target)
                terms[target] = Term(cross_entropy(logits, labels, target), rows)
                metrics[f"accuracy/{target}"] = accuracy(logits, labels, rows)
        return Outcome(terms, {**stats, "student": moved}, metrics=metrics)

    def head(params, stats, constants, batch, context):
        return learn(params, stats, batch, context.key, train=False)

    def train(params, stats, constants, batch, context):
        # A backbone that rests keeps its BatchNorm statistics.
        return learn(params, stats, batch, context.key, train=config.backbone_multiplier > 0)

    def predict(params, stats, constants, batch):
        view = views.centre(batch)
        return {"student": student(params["student"], stats["student"], views.see(spec, batch, view))[0]}

    relational = correlations(config.affect_loss, config.targets)
    both = {"student_backbone": config.backbone_multiplier, "student_head": 1.0}
    phases = [
        create_phase("head", config.phases.head, task, head, {"student_head": 1.0}, scored=True, relational=relational),
        create_phase("train", config.phases.train, task, train, both, scored=True, relational=relational),
    ]
    return Recipe(
        groups={"student_backbone": r"student/backbone/.*", "student_head": r"student/heads/.*"},
        phases=[phase for phase in phases if phase is not None],
        init=init,
        constants={},
        predict=predict,
        teachers=[],
        weighting=None,
        extract=lambda params, stats: (params["student"], stats["student"]),
        student_spec=spec,
        networks={"student": spec},
    )


def _head_size(target: str, task: Task) -> int:
    if target == "valence_arousal" and target in task.columns:
        return 2
    if target in task.classes:
        return len(require_classes(task, target))
    known = sorted({*task.classes, *(c for c in task.columns if c == "valence_arousal")})
    raise InputError(f"config.targets asks for {target!r}.{nearest(target, known)} The data has {known}.")


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
