"""SMKD: skill-based multi-teacher distillation for visual emotion analysis.

Cladiere, Alata, Ducottet, Konik, Legrand. Visual emotion analysis using skill-based multi-teacher knowledge
distillation. Pattern Analysis and Applications, 2025. doi 10.1007/s10044-025-01426-9.

The three steps (distil, classify, fine-tune) and the per-instance weighting are the paper's. The probe, the
distance, the adapters, the exact weights and all schedules are ours, and each is a switch: see docs/smkd.md.

    teach      teachers without weights learn their own tasks           (only where a teacher has a `task`)
    probe      each teacher gets an emotion classifier h_k on z_k
    distill    the student's features, through adapters, reproduce the teachers', weighted per instance
    classify   the student's classifier learns the emotions; its backbone is frozen
    finetune   the whole student learns the emotions
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from emokd.configuration import defaults
from emokd.data.augment import View
from emokd.errors import InputError
from emokd.models.network import TrainedModel, attach_heads
from emokd.phase import Batch, Context, Measure, Outcome, Recipe, Term, Tree
from emokd.recipes.common import classification, standardize, views
from emokd.recipes.common.distances import DISTANCES, Distance
from emokd.recipes.common.linear import create_linear, linear
from emokd.recipes.common.phases import create_phase, takes_part
from emokd.recipes.common.quantizing import check_beginning
from emokd.recipes.common.student import GROUPS, Student, create_student, extract_student
from emokd.recipes.common.task import Task, accuracy, choose, require_classes, targets
from emokd.recipes.common.teachers import (
    Teacher,
    create_teachers,
    features_of_frozen,
    frozen_weights,
    networks_of,
    teacher_gradients,
)
from emokd.signals import Signals
from emokd.weighting import chain as weighting


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration, a task and the models read from files ("student" and teachers, by name).

    Raises:
      InputError: no emotion labels in the data, a teacher without weights or task, or an unknown option.
    """
    classes = len(require_classes(task, "expression"))
    teachers = create_teachers(config, task, models)
    student = create_student(config, {"expression": classes}, task, models)
    method = Smkd(
        config=config,
        classes=classes,
        student=student,
        teachers=teachers,
        draw_views=views.create_sampler(config.data),
        distance=choose(DISTANCES, config.distance, "config.distance"),
        cross_entropy=classification.create_cross_entropy(config, task),
    )
    chain = weighting.create(config.weighting) if teachers else None
    _check_teachers_can_teach(config, teachers)
    untaught = {f"teacher_{t.name}": 1.0 for t in teachers if t.model is None}
    tuned = {f"teacher_{t.name}": 1.0 for t in teachers if config.teachers[t.name].tuning == "full"}
    if student.spec.quantized:
        learnt = takes_part(config.phases.distill) or config.start_from or config.student.init
        check_beginning("finetune", bool(learnt))
    student_groups = {"student_backbone": config.backbone_multiplier, "student_head": 1.0}
    prepare, again = method.standardize_teachers, None
    if tuned or not method.probed:
        # Frozen teachers keep the statistics from the beginning of the probe: no second pass over the training set.
        again = functools.partial(method.standardize_teachers, log=not method.probed)
    phases = [
        create_phase("teach", config, task, method.teach, untaught),
        create_phase("probe", config, task, method.probe, {"probes": 1.0, **tuned}, prepare=prepare),
        create_phase(
            "distill",
            config,
            task,
            method.distill,
            {"student_backbone": 1.0, "adapters": 1.0},
            data="all",
            prepare=again,
        ),
        create_phase("classify", config, task, method.classify, {"student_head": 1.0}, scored=True),
        create_phase(
            "finetune",
            config,
            task,
            method.finetune,
            student_groups,
            scored=True,
            prepare=student.prepare,
            selects_anew=student.spec.quantized,
        ),
    ]
    return Recipe(
        groups={
            **GROUPS,
            "adapters": r"adapters/.*",
            "probes": r"probes/.*",
            **{f"teacher_{t.name}": rf"teachers/{t.name}/.*" for t in teachers if t.learns},
        },
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


@dataclasses.dataclass(frozen=True, eq=False)
class Smkd:
    """The method, with everything that the configuration decides.

    Attributes:
      config: the run's configuration.
      classes: how many emotions there are.
      student: the network that learns.
      teachers: in the order of the weighting's columns.
      draw_views: draws a batch's augmented views.
      distance: d, between the student's adapted features and a teacher's.
      cross_entropy: the loss of every column of classes.
    """

    config: ml_collections.ConfigDict
    classes: int
    student: Student
    teachers: Sequence[Teacher]
    draw_views: Callable[[Batch], View]
    distance: Distance
    cross_entropy: classification.CrossEntropy

    @property
    def probed(self) -> bool:
        """Whether the teachers learn to predict emotions."""
        return takes_part(self.config.phases.probe)

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics; of the teachers those that learn."""
        student_key, *keys = jax.random.split(key, 1 + 2 * len(self.teachers))
        student, student_stats = self.student.init(student_key)
        params: Tree = {"student": student, "adapters": {}, "probes": {}, "teachers": {}}
        stats: Tree = {"student": student_stats, "teachers": {}, "standardizer": {}}
        for teacher, teacher_key, adapter_key in zip(self.teachers, keys[::2], keys[1::2], strict=True):
            name, size = teacher.name, teacher.feature_size
            params["adapters"][name] = create_linear(adapter_key, self.student.feature_size, size)
            # Training a probe is a convex problem, so it starts from zero.
            params["probes"][name] = jax.tree.map(jnp.zeros_like, create_linear(key, size, self.classes))
            stats["standardizer"][name] = {"mean": jnp.zeros((size,)), "std": jnp.ones((size,))}
            if teacher.learns:
                params["teachers"][name], stats["teachers"][name] = teacher.init(teacher_key)
        return params, stats

    def frozen_features(self, constants: Tree, batch: Batch, centre: bool) -> dict[str, Array]:
        """The features of the teachers that never learn, for a cache."""
        view = views.centre(batch) if centre else self.draw_views(batch)
        return features_of_frozen(self.teachers, constants, batch, view)

    def teacher_signals(
        self,
        teacher: Teacher,
        params: Tree,
        stats: Tree,
        constants: Tree,
        batch: Batch,
        view: View,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Signals, Tree]:
        """A teacher's signals and its statistics after them, whether its weights are frozen or trained."""
        if teacher.name in constants:
            weights = constants[teacher.name]["params"], constants[teacher.name]["stats"]
        else:
            weights = params["teachers"][teacher.name], stats["teachers"][teacher.name]
        return teacher.signals(*weights, batch, view, train=train, key=key)

    def standardized(
        self, teacher: Teacher, params: Tree, stats: Tree, constants: Tree, batch: Batch, view: View
    ) -> Float[Array, "B D"]:
        """z_k: the teacher's features, in evaluation mode, each dimension standardised over the training set."""
        signals, _ = self.teacher_signals(teacher, params, stats, constants, batch, view)
        return standardize.standardize(stats["standardizer"][teacher.name], signals.require("features"))

    def teach(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: every teacher without weights learns the column that is its task."""
        view = self.draw_views(batch)
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        new_stats = dict(stats["teachers"])
        for k, teacher in enumerate(t for t in self.teachers if t.model is None):
            key = jax.random.fold_in(context.key, k)
            signals, new_stats[teacher.name] = self.teacher_signals(
                teacher, params, stats, constants, batch, view, train=True, key=key
            )
            column = self.config.teachers[teacher.name].task
            logits = signals.require("logits") if column == "expression" else signals.intermediates[column]
            labels, rows = targets(batch, column)
            terms[teacher.name] = Term(self.cross_entropy(logits, labels, column), rows)
            metrics[f"accuracy/{teacher.name}"] = accuracy(logits, labels, rows)
        return Outcome(terms, {**stats, "teachers": new_stats}, metrics=metrics)

    def standardize_teachers(
        self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch], *, log: bool = True
    ) -> tuple[Tree, Tree]:
        """Computes the statistics of every teacher's features, and rewrites the probes so that their outputs stay."""

        def raw(weights: tuple[Tree, Tree, Tree], batch: Batch) -> dict[str, Array]:
            view = views.centre(batch)
            answers = {t.name: self.teacher_signals(t, *weights, batch, view)[0] for t in self.teachers}
            return {name: signals.require("features") for name, signals in answers.items()}

        fitted = standardize.fit(raw, (params, stats, constants), batches, log=log) if self.teachers else {}
        probes = {
            name: standardize.restandardize(params["probes"][name], stats["standardizer"][name], new)
            for name, new in fitted.items()
        }
        return {**params, "probes": probes}, {**stats, "standardizer": fitted}

    def probe(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: h_k on z_k learns the emotions, and so do the teachers that are tuned."""
        view = self.draw_views(batch)
        labels, rows = targets(batch)
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        new_stats = dict(stats["teachers"])
        for k, teacher in enumerate(self.teachers):
            tuned = self.config.teachers[teacher.name].tuning == "full"
            key = jax.random.fold_in(context.key, k)
            signals, after = self.teacher_signals(teacher, params, stats, constants, batch, view, train=tuned, key=key)
            if tuned:
                new_stats[teacher.name] = after
            z = standardize.standardize(stats["standardizer"][teacher.name], signals.require("features"))
            logits = linear(params["probes"][teacher.name], z)
            terms[teacher.name] = Term(self.cross_entropy(logits, labels), rows)
            metrics[f"accuracy/{teacher.name}"] = accuracy(logits, labels, rows)
        return Outcome(terms, {**stats, "teachers": new_stats}, metrics=metrics)

    def distill(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the student's features, through adapters, are close to the teachers'. It needs no labels."""
        view = self.draw_views(batch)
        labels, _ = targets(batch)
        z = [jax.lax.stop_gradient(self.standardized(t, params, stats, constants, batch, view)) for t in self.teachers]
        logits = [linear(params["probes"][t.name], z_k) for t, z_k in zip(self.teachers, z, strict=True)]
        signals, new_stats = self.student.signals(
            params["student"], stats["student"], batch, view, train=True, key=context.key
        )

        def imitation(student_features: Float[Array, "B D"]) -> Float[Array, "B K"]:
            """d(A_k f_S(x_i), z_k(x_i))."""
            maps = (linear(params["adapters"][t.name], student_features) for t in self.teachers)
            return jnp.stack([self.distance(a, z_k) for a, z_k in zip(maps, z, strict=True)], axis=1)

        student_features = signals.require("features")
        evidence = {"teacher_logits": jnp.stack(logits, axis=1), "labels": labels}
        if weighting.needs_gradients(self.config.weighting):
            evidence["gradients"] = teacher_gradients(imitation, student_features, len(self.teachers))
        return Outcome(
            {},
            {**stats, "student": new_stats},
            imitation(student_features),
            batch["mask"],
            jax.lax.stop_gradient(evidence),
        )

    def classify(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the emotions; the backbone and its statistics are frozen."""
        return self._emotion(params, stats, batch, context.key, train=False)

    def finetune(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the emotions. A frozen or quantised backbone keeps its BatchNorm statistics."""
        how = self.student.last_phase(self.config.backbone_multiplier)
        return self._emotion(params, stats, batch, context.key, **how)

    def _emotion(self, params: Tree, stats: Tree, batch: Batch, key: Array, **how: bool) -> Outcome:
        view = self.draw_views(batch)
        signals, new_stats = self.student.signals(params["student"], stats["student"], batch, view, key=key, **how)
        logits, (labels, rows) = signals.require("logits"), targets(batch)
        loss = self.cross_entropy(logits, labels)
        metrics = {"accuracy": accuracy(logits, labels, rows)}
        return Outcome({"emotion": Term(loss, rows)}, {**stats, "student": new_stats}, metrics=metrics)

    def predict(self, params: Tree, stats: Tree, constants: Tree, batch: Batch) -> dict[str, Signals]:
        """The student's signals for the evaluation view, and for every teacher z_k and the logits of h_k."""
        view = views.centre(batch)
        predicted = {"student": self.student.answers(params["student"], stats["student"], batch, view)}
        for teacher in self.teachers:
            z = self.standardized(teacher, params, stats, constants, batch, view)
            # Without the probe a teacher does not predict emotions.
            answers = {"expression": linear(params["probes"][teacher.name], z)} if self.probed else {}
            predicted[teacher.name] = attach_heads(Signals(features=z), answers)
        return predicted


def _check_teachers_can_teach(config: ml_collections.ConfigDict, teachers: Sequence[Teacher]) -> None:
    """Checks that the phases train what later phases need of the teachers."""
    taught, probed, distilled = (takes_part(config.phases[name]) for name in ("teach", "probe", "distill"))
    if distilled and not probed and weighting.needs_logits(config.weighting):
        raise InputError(
            "config.weighting asks how well the teachers predict emotions, which they learn in the probe: set "
            "config.phases.probe.enabled and a duration, or a weighting that asks nothing, such as uniform."
        )
    untrained = [t.name for t in teachers if t.model is None]
    if untrained and (probed or distilled) and not taught and not config.start_from:
        raise InputError(
            f"The teachers {', '.join(untrained)} have no weights and learn in the phase teach, which is left out: set "
            "config.phases.teach.enabled and a duration, or give config.teachers.NAME.checkpoint, or config.start_from."
        )


def uses_teachers(config: ml_collections.ConfigDict) -> bool:
    """Whether any phase asks a teacher. Without a probe they have no answer to emotions that could be scored."""
    return any(takes_part(config.phases[name]) for name in ("teach", "probe", "distill"))


def default_config() -> ml_collections.ConfigDict:
    """The recipe's configuration with every key that it reads; teachers are the user's to add."""
    config = defaults.run("smkd")
    config.teachers = ml_collections.ConfigDict()
    config.distance = "mse"  # or cosine [ours]
    config.weighting = ({"name": "relevance", "temperature": 1.0},)
    config.label_smoothing = 0.0
    config.class_weights = "none"  # or balanced
    config.backbone_multiplier = 1.0  # of the learning rate, while fine-tuning
    config.phases = ml_collections.ConfigDict(
        {
            "teach": defaults.phase(epochs=10, learning_rate=2e-3),
            "probe": defaults.phase(epochs=10, learning_rate=1e-3),
            "distill": defaults.phase(epochs=30, learning_rate=2e-3),
            "classify": defaults.phase(epochs=10, learning_rate=2e-3),
            "finetune": defaults.phase(epochs=20, learning_rate=5e-4),
        }
    )
    return config
