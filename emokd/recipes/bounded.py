"""Teacher-bounded students: expressions, valence and arousal from a face, all at once.

EmoNet (Toisoul et al., Nature Machine Intelligence 2021) taught to light networks with soft targets (Hinton et al.,
2015) and a regression loss that stops once the student beats its teacher (Chen et al., NeurIPS 2017):

    L = (1 - alpha) CE + alpha T^2 KL(teacher || student) + sum over valence, arousal of (smoothL1 + nu L_b)

The formula is the paper's; nu = 0.5 is Chen et al.'s; T = 4, alpha = 0.5 and margin 0 are ours, and each is a switch.
With several teachers the terms that have a teacher in them are weighted per example by `config.weighting`. [ours]

    head       the new heads learn on the frozen backbone     (for imported weights; off by default)
    distill    the whole student learns from labels and teachers; soft targets need no label, so faces without one
               (config.data.labels.limit, config.data.extra) are read as well [ours]
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.configuration import defaults
from emokd.data.augment import View, centre_views
from emokd.errors import InputError, excerpt
from emokd.labels import has_value
from emokd.losses import affect, bounded, soft_targets
from emokd.losses.shapes import check_range
from emokd.models.network import TrainedModel
from emokd.names import essence, normal
from emokd.phase import Batch, Context, Measure, Outcome, Recipe, TeacherTerm, Term, Tree
from emokd.recipes.common import classification, views
from emokd.recipes.common.phases import correlations, create_phase
from emokd.recipes.common.quantizing import check_beginning
from emokd.recipes.common.student import GROUPS, Student, create_student, extract_student
from emokd.recipes.common.task import Task, accuracy, choose, joint_heads, targets
from emokd.recipes.common.teachers import (
    Teacher,
    create_teachers,
    features_of_frozen,
    frozen_weights,
    networks_of,
)
from emokd.signals import Signals
from emokd.weighting import chain as weighting

REGRESSIONS = (*affect.AFFECT_LOSSES, "emonet")


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration, a task and the models read from files ("student" and teachers, by name).

    Raises:
      InputError: the data has neither expressions nor valence and arousal, a teacher does not know one of the data's
        classes, nothing is left for a teacher to teach, or an option is unknown or outside its range.
    """
    heads = joint_heads(task)
    _check_options(config)
    student = create_student(config, heads, task, models)
    teachers = create_teachers(config, task, models)
    method = Bounded(
        config=config,
        heads=heads,
        student=student,
        teachers=teachers,
        lessons={teacher.name: _create_lesson(teacher, config, task, heads) for teacher in teachers},
        draw_views=views.create_sampler(config.data),
        cross_entropy=classification.create_cross_entropy(config, task),
    )
    chain = weighting.create(config.weighting) if teachers else None
    if teachers and weighting.needs_gradients(config.weighting):
        raise InputError("config.weighting: aekd compares features, but this recipe's teachers teach outputs.")
    relational = [correlations(config.affect_loss, heads)]
    if student.spec.quantized:
        check_beginning("distill", bool(config.start_from or config.student.init))
    both = {"student_backbone": config.backbone_multiplier, "student_head": 1.0}
    create = functools.partial(create_phase, config=config, task=task, scored=True, relational=relational)
    phases = [
        create("head", objective=method.head, learns={"student_head": 1.0}),
        create(
            "distill",
            objective=method.distill,
            learns=both,
            data="all" if method.soft else "labelled",
            prepare=student.prepare,
            selects_anew=student.spec.quantized,
        ),
    ]
    return Recipe(
        groups=GROUPS,
        phases=[phase for phase in phases if phase is not None],
        init=method.init,
        constants=frozen_weights(teachers),
        predict=method.predict,
        teachers=[teacher.name for teacher in teachers],
        weighting=chain,
        extract=extract_student,
        student_spec=student.spec,
        networks={"student": student.spec, **networks_of(teachers)},
        frozen_features=method.frozen_features if teachers else None,
    )


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What one teacher teaches on this data.

    Attributes:
      classes: for each of the data's expressions its index among the teacher's logits; None if it has no such logits.
      soft_targets: whether its logits are imitated.
      bound: whether its valence and arousal bound the student's.
    """

    classes: tuple[int, ...] | None
    soft_targets: bool
    bound: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Bounded:
    """The method, with everything that the configuration decides.

    Attributes:
      config: the run's configuration.
      heads: the size of each head that the data has a target for.
      student: the network that learns.
      teachers: all of them frozen.
      lessons: what each teacher teaches, by name.
      draw_views: draws a batch's augmented views.
      cross_entropy: the loss of expressions.
    """

    config: ml_collections.ConfigDict
    heads: Mapping[str, int]
    student: Student
    teachers: Sequence[Teacher]
    lessons: Mapping[str, Lesson]
    draw_views: Callable[[Batch], View]
    cross_entropy: classification.CrossEntropy

    @property
    def soft(self) -> bool:
        """Whether any teacher has soft targets, which faces without a label have as well."""
        return any(lesson.soft_targets for lesson in self.lessons.values())

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics."""
        params, stats = self.student.init(key)
        return {"student": params}, {"student": stats}

    def frozen_features(self, constants: Tree, batch: Batch, centre: bool) -> dict[str, Array]:
        """The teachers' features, for a cache."""
        view = views.centre(batch) if centre else self.draw_views(batch)
        return features_of_frozen(self.teachers, constants, batch, view)

    def head(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: labels and teachers; the backbone and its statistics are frozen."""
        return self._learn(params, stats, constants, batch, context.key, train=False)

    def distill(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: labels and teachers. A frozen or quantised backbone keeps its BatchNorm statistics."""
        how = self.student.last_phase(self.config.backbone_multiplier)
        return self._learn(params, stats, constants, batch, context.key, **how)

    def _learn(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, key: Array, **how: bool) -> Outcome:
        view = self.draw_views(batch)
        dropout_key, mixture_key = jax.random.split(key)
        signals, new_stats = self.student.signals(
            params["student"], stats["student"], batch, view, key=dropout_key, **how
        )
        terms, metrics = self.label_terms(signals, batch, mixture_key)
        stats = {**stats, "student": new_stats}
        if not any(lesson.soft_targets or lesson.bound for lesson in self.lessons.values()):
            return Outcome(terms, stats, metrics=metrics)
        answers = {t.name: jax.lax.stop_gradient(self.ask(t, constants, batch, view)) for t in self.teachers}
        losses = [self.imitation(name, signals, answer) for name, answer in answers.items()]
        teacher_terms = {}
        if any(lesson.bound for lesson in self.lessons.values()):
            target, rows = targets(batch, "valence_arousal")
            bounds = [self.bounding(name, signals, answer, target, rows) for name, answer in answers.items()]
            teacher_terms["bound"] = TeacherTerm(jnp.stack(bounds, axis=1), rows)
            metrics |= {
                f"beaten/{name}": Measure(_beaten(signals, answers[name], target), rows)
                for name, lesson in self.lessons.items()
                if lesson.bound
            }
        evidence = {}
        if "expression" in self.heads and all(lesson.classes for lesson in self.lessons.values()):
            evidence["teacher_logits"] = jnp.stack([answer.require("logits") for answer in answers.values()], axis=1)
            evidence["labels"], _ = targets(batch)
        evidence = jax.lax.stop_gradient(evidence)
        return Outcome(terms, stats, jnp.stack(losses, axis=1), batch["mask"], evidence, metrics, teacher_terms)

    def label_terms(
        self, signals: Signals, batch: Batch, key: Array
    ) -> tuple[dict[str, Term], dict[str, Array | Measure]]:
        """The losses of the labels; without any of teachers they are the paper's baseline.

        Returns:
          (terms, each the mean over the rows with its label: for the last valence, arousal or both; metrics)
        """
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        if "expression" in self.heads:
            logits, (labels, rows) = signals.require("logits"), targets(batch)
            share = 1.0 - self.config.soft_targets.alpha if self.soft else 1.0
            terms["expression"] = Term(self.cross_entropy(logits, labels), rows, share)
            metrics["accuracy"] = accuracy(logits, labels, rows)
        if "valence_arousal" in self.heads:
            predicted = signals.require("valence_arousal")
            target, rows = targets(batch, "valence_arousal")
            if self.config.affect_loss == "emonet":
                values = affect.emonet_mixture(predicted, target, key, mask=rows)
            else:
                values = affect.AFFECT_LOSSES[self.config.affect_loss](predicted, target, mask=rows)
            terms["valence_arousal"] = Term(values, rows)
        return terms, metrics

    def imitation(self, teacher: str, signals: Signals, answer: Signals) -> Float[Array, " B"]:
        """alpha T^2 KL of one teacher; 0 where it has no soft targets."""
        soft = self.config.soft_targets
        if not self.lessons[teacher].soft_targets:
            return jnp.zeros(signals.require("features").shape[:1], jnp.float32)
        student_logits, teacher_logits = signals.require("logits"), answer.require("logits")
        return soft.alpha * soft_targets.kl_divergence(student_logits, teacher_logits, temperature=soft.temperature)

    def bounding(
        self,
        teacher: str,
        signals: Signals,
        answer: Signals,
        target: Float[Array, "B 2"],
        rows: Bool[Array, " B"],
    ) -> Float[Array, " B"]:
        """nu L_b of one teacher on the labelled rows; 0 where it has no bound."""
        bound = self.config.bound
        if not self.lessons[teacher].bound:
            return jnp.zeros(rows.shape, jnp.float32)
        return bound.nu * bounded.teacher_bound(
            signals.require("valence_arousal"),
            answer.require("valence_arousal"),
            target,
            margin=bound.margin,
            joint=bound.joint,
            mask=rows,
        )

    def ask(self, teacher: Teacher, constants: Tree, batch: Batch, view: View) -> Signals:
        """The teacher's signals, with the logits of the data's classes in the data's order."""
        weights, classes = constants[teacher.name], self.lessons[teacher.name].classes
        signals, _ = teacher.signals(weights["params"], weights["stats"], batch, view)
        if classes is None:
            return signals.replace(logits=None)
        return signals.replace(logits=signals.require("logits")[:, jnp.array(classes)])

    def predict(self, params: Tree, stats: Tree, constants: Tree, batch: Batch) -> dict[str, Signals]:
        """The student's and the teachers' signals for the evaluation view.

        With `config.mirror` valence and arousal are averaged with those of the mirrored view.
        """

        def look(batch: Batch, view: View) -> dict[str, Signals]:
            student_signals = self.student.answers(params["student"], stats["student"], batch, view)
            return {"student": student_signals, **{t.name: self.ask(t, constants, batch, view) for t in self.teachers}}

        rows = batch["id"].shape[0]
        straight = look(batch, centre_views(rows))
        if not self.config.mirror:
            return straight
        # No cache holds the mirrored picture, so networks run on it; answers from a file stand for both pictures.
        cached = {f"features/{t.name}" for t in self.teachers if t.network}
        live = {name: values for name, values in batch.items() if name not in cached}
        mirrored = look(live, centre_views(rows, mirrored=True))
        return {name: views.average_affect(signals, mirrored[name]) for name, signals in straight.items()}


def _check_options(config: ml_collections.ConfigDict) -> None:
    choose(dict.fromkeys(REGRESSIONS), config.affect_loss, "config.affect_loss")
    check_range("config.soft_targets.alpha", config.soft_targets.alpha, 0, 1)
    check_range("config.soft_targets.temperature", config.soft_targets.temperature, 0, above=True)
    check_range("config.bound.nu", config.bound.nu, 0)
    check_range("config.bound.margin", config.bound.margin, 0)


def _create_lesson(teacher: Teacher, config: ml_collections.ConfigDict, task: Task, heads: Mapping[str, int]) -> Lesson:
    """What the teacher can teach on this data.

    Raises:
      InputError: it has no weights, no output that the data has a target for, or not all of the data's classes.
    """
    key = f"config.teachers.{teacher.name}"
    if teacher.model is None or teacher.learns:
        raise InputError(
            f"{key}: this recipe's teachers are frozen; give .checkpoint or .train, and tuning linear_probe."
        )
    taught_heads = [head for head in heads if head in teacher.spec.heads]
    if not taught_heads:
        raise InputError(
            f"{key} has the heads {sorted(teacher.spec.heads)}, but the data has targets for {list(heads)}."
        )
    classes = None
    if "expression" in taught_heads:
        names = [normal(name) for name in teacher.spec.classes.get("expression", ())]
        missing = [name for name in task.classes["expression"] if name not in names]
        if missing:
            alike = {essence(name): name for name in names}
            spelt = [f"{alike[essence(name)]!r} for {name!r}" for name in missing if essence(name) in alike]
            hint = f" (it writes {excerpt(spelt)})" if spelt else ""
            raise InputError(
                f"{key} knows the expressions {names}, but the data also has {excerpt(missing)}{hint}. Leave these "
                "out of the data (config.data.options.classes, where the source has it), or use another teacher."
            )
        classes = tuple(names.index(name) for name in task.classes["expression"])
    return Lesson(
        classes,
        soft_targets=classes is not None and config.soft_targets.alpha > 0,
        bound="valence_arousal" in taught_heads and config.bound.nu > 0,
    )


def _beaten(signals: Signals, teacher_signals: Signals, target: Float[Array, "B 2"]) -> Float[Array, " B"]:
    """1 where the student's squared error in labelled valence and arousal is below the teacher's, else 0."""
    labelled = has_value(target)
    predictions = (s.require("valence_arousal") for s in (signals, teacher_signals))
    student_error, teacher_error = (jnp.where(labelled, answer - target, 0.0) ** 2 for answer in predictions)
    return (student_error.sum(-1) < teacher_error.sum(-1)).astype(jnp.float32)


def default_config() -> ml_collections.ConfigDict:
    """The recipe's configuration with every key that it reads; teachers are the user's to add."""
    config = defaults.run("bounded")
    config.teachers = ml_collections.ConfigDict()
    config.weighting = ({"name": "uniform"},)
    config.soft_targets = ml_collections.ConfigDict({"alpha": 0.5, "temperature": 4.0})  # [ours]
    config.bound = ml_collections.ConfigDict({"nu": 0.5, "margin": 0.0, "joint": False})
    config.affect_loss = "smooth_l1"  # or mse, ccc, pcc, emonet
    config.label_smoothing = 0.0
    config.class_weights = "none"  # or balanced
    config.mirror = False  # average valence and arousal with the mirrored picture when scoring
    config.backbone_multiplier = 1.0  # of the learning rate
    config.phases = ml_collections.ConfigDict(
        {
            "head": defaults.phase(epochs=5, learning_rate=2e-3, enabled=False),
            "distill": defaults.phase(epochs=30, learning_rate=1e-3),
        }
    )
    return config
