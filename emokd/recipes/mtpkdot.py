"""MT-PKDOT: several privileged teachers, optimal transport, and a student that does without their modalities.

Multi-teacher privileged knowledge distillation with optimal transport, and its predecessor PKDOT (one joint teacher).
What the papers and the authors' release say is in docs/mtpkdot.md, and what is ours.

    teach        each modality's encoder learns the task, with a head of its own
    joint        the fusion of all modalities learns it; the encoders are frozen
    hallucinate  T-Nets learn to hallucinate the privileged modalities' tokens from the visible ones'
    align        each modality's token, through an adapter of its own, comes close to the joint features
    student      sees the visible modalities alone; learns from labels and from the batch's structure in the teachers

The teachers of the last phase are the modalities (aligned) and the joint one; `config.weighting` says which counts,
the most confident one of the batch by default. With `pool = "joint"` the same recipe is PKDOT; with the weight on
`features` instead of `transport` it is point-to-point distillation; with all three at 0, no teacher.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from emokd.configuration import defaults
from emokd.data.augment import View
from emokd.errors import InputError
from emokd.losses.shapes import check_range
from emokd.models.network import TrainedModel
from emokd.phase import Batch, Context, Measure, Outcome, Recipe, Term, Tree
from emokd.recipes.common import hallucination, imitation, modalities, views
from emokd.recipes.common.joint_task import JointTask, create_joint_task
from emokd.recipes.common.modality_teachers import alignment_distances, create_modality_teachers, modality_signals
from emokd.recipes.common.multimodal import Multimodal, create_multimodal, tokens
from emokd.recipes.common.phases import correlations, create_phase, takes_part
from emokd.recipes.common.student import extract_student
from emokd.recipes.common.task import Task, choose
from emokd.signals import Signals
from emokd.weighting import chain as weighting

JOINT = "joint"


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration and a task; encoders may start from the weights in `models`, by modality.

    Raises:
      InputError: a modality is not in the data, all are privileged, the batch is no larger than the number of
        anchors, or an option is unknown or outside its range.
    """
    labels = create_joint_task(config, task)
    specs = modalities.create_specs(config, task)
    visible = modalities.visible(config, specs)
    _check(config, task.devices)
    imagined = [name for name in specs if name not in visible] if takes_part(config.phases.hallucinate) else []
    teacher = modalities.create_network_spec(config, specs, (), labels.heads, task)
    student = modalities.create_network_spec(config, visible, imagined, labels.heads, task)
    method = Mtpkdot(
        config=config,
        labels=labels,
        columns=task.names,
        teacher=create_multimodal(config, JOINT, teacher, models),
        student=create_multimodal(config, "student", student, models),
        draw_views=views.create_sampler(config.data),
    )
    encoders = {"teacher_encoders": 1.0, "modality_heads": 1.0}
    hallucinators = {"hallucinators": 1.0 if imagined else 0.0}
    adapters = {"teacher_fusion": config.align.joint_multiplier, "adapters": 1.0}
    student_rates = {"student_encoders": config.encoder_multiplier, "student_fusion": 1.0}
    student_rates["hallucinators"] = config.hallucination.multiplier if imagined else 0.0
    fusion = "config.fusion.options.attend=batch" if config.fusion.options.get("attend") == "batch" else ""
    answers = [fusion, correlations(config.affect_loss, labels.heads)]
    imagination = [fusion, hallucination.relational(config.hallucination.loss)]
    phases = [
        create_phase("teach", config, task, method.teach, encoders, prepare=method.begin, relational=answers),
        create_phase("joint", config, task, method.joint, {"teacher_fusion": 1.0}, relational=answers),
        create_phase("hallucinate", config, task, method.hallucinate, hallucinators, relational=imagination),
        create_phase("align", config, task, method.align, adapters, relational=answers),
        create_phase(
            "student",
            config,
            task,
            method.learn,
            student_rates,
            prepare=method.begin_student,
            scored=True,
            remark=functools.partial(imitation.transport_remark, solver=config.structure.solver),
            relational=[*answers, *(imitation.relational(config) if method.distils else [])],
        ),
    ]
    return Recipe(
        groups={
            "teacher_encoders": r"teacher/encoders/.*",
            "teacher_fusion": r"teacher/(fusion|heads)/.*",
            "modality_heads": r"modality_heads/.*",
            "adapters": r"(adapters|aligned_heads)/.*",
            "hallucinators": r"student/hallucinators/.*",
            "student_encoders": r"student/encoders/.*",
            "student_fusion": r"student/(fusion|heads)/.*",
        },
        phases=[phase for phase in phases if phase is not None],
        init=method.init,
        constants={},
        predict=method.predict,
        teachers=method.pool if method.distils else (),
        weighting=weighting.create(config.weighting, group=config.structure.rows) if method.distils else None,
        extract=extract_student,
        observe=method.observe if method.taught else None,
        student_spec=student,
        networks={"student": student, **({JOINT: teacher} if method.taught else {})},
        variants=[*method.student.variants, *(method.teacher.variants if method.taught else ())],
        adopts={"student_encoders": "teacher_encoders"} if config.student_encoders == "teacher" else {},
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Mtpkdot:
    """The method, with everything that the configuration decides.

    Attributes:
      config: the run's configuration.
      labels: the losses of the task that all networks share.
      columns: the names of the columns of inputs that are tables, where they are known.
      teacher: the joint teacher, of all modalities.
      student: the network of the visible modalities; it may hallucinate the others.
      draw_views: draws a batch's augmented views.
    """

    config: ml_collections.ConfigDict
    labels: JointTask
    columns: Mapping[str, Sequence[str]]
    teacher: Multimodal
    student: Multimodal
    draw_views: Callable[[Batch], View]

    @property
    def taught(self) -> bool:
        """Whether there are teachers."""
        return takes_part(self.config.phases.teach)

    @property
    def aligned(self) -> bool:
        """Whether the modalities' predictions go through adapters."""
        return takes_part(self.config.phases.align)

    @property
    def distils(self) -> bool:
        """Whether the student learns from teachers."""
        return self.taught and imitation.imitates(self.config)

    @property
    def pool(self) -> tuple[str, ...]:
        """The student's teachers, in the order of the weighting's columns."""
        return (JOINT,) if self.config.pool == "joint" else (*self.teacher.modalities, JOINT)

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics of both networks, and each modality's adapter and heads."""
        teacher_key, student_key, *keys = jax.random.split(key, 2 + 4 * len(self.teacher.modalities))
        teacher, teacher_stats = self.teacher.init(teacher_key)
        student, student_stats = self.student.init(student_key)
        modality_teachers = create_modality_teachers(
            keys,
            tuple(self.teacher.modalities),
            self.labels.heads,
            token_width=self.config.width,
            adapter_width=self.config.adapter_width,
            joint_width=self.teacher.feature_size,
        )
        params = {"teacher": teacher, "student": student, **modality_teachers}
        return params, {"teacher": teacher_stats, "student": student_stats}

    def begin(self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch]) -> tuple[Tree, Tree]:
        """Computes the statistics of array modalities over the training set, for all encoders."""
        fitted = modalities.fit_standardizers(self.teacher.modalities, batches, self.columns)
        return params, {**stats, **{k: modalities.set_standardizers(stats[k], fitted) for k in ("teacher", "student")}}

    def teach(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: each modality's token, through a head of its own, predicts the label."""
        signals, new_stats = self.teacher.signals(
            params["teacher"], stats["teacher"], batch, self.draw_views(batch), train=True, key=context.key
        )
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        by_modality = tokens(signals, self.teacher.modalities)
        for name, answer in modality_signals(params, by_modality, aligned=False).items():
            terms |= self.labels.terms(name, answer, batch, self.teacher.has(name, batch))
            metrics |= self.labels.accuracy(name, answer, batch)
        return Outcome(terms, {**stats, "teacher": new_stats}, metrics=metrics)

    def joint(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the fusion of all modalities predicts the label."""
        view = self.draw_views(batch)
        keep = modalities.drop(context.key, batch, self.teacher.modalities, self.config.modality_dropout)
        signals, _ = self.teacher.signals(params["teacher"], stats["teacher"], batch, view, keep=keep)
        terms = self.labels.terms(JOINT, signals, batch, batch["mask"])
        return Outcome(terms, stats, metrics=self.labels.accuracy(JOINT, signals, batch))

    def hallucinate(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the T-Nets hallucinate the teacher's privileged tokens from its visible ones."""
        view = self.draw_views(batch)
        signals, _ = self.teacher.signals(params["teacher"], stats["teacher"], batch, view)
        student_params, student_stats = (
            self.student.take_encoders(tree["student"], tree["teacher"]) for tree in (params, stats)
        )
        imagination, _ = self.student.signals(student_params, student_stats, batch, view)
        names = self.student.spec.hallucinated
        true = {
            name: (jax.lax.stop_gradient(token), self.teacher.has(name, batch))
            for name, token in tokens(signals, names).items()
        }
        loss, together = self.config.hallucination.loss, self.config.structure.rows
        distances = hallucination.token_distances(loss, tokens(imagination, names), true, rows=together)
        return Outcome({name: Term(distances[name], rows) for name, (_, rows) in true.items()}, stats)

    def align(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: adapted tokens are close to the joint features, and all of these predict the label."""
        section = self.config.align
        answers = self.answers(params, stats, batch, self.draw_views(batch))
        signals = answers.pop(JOINT)
        joint = signals.require("features")
        terms = self.labels.terms(JOINT, signals, batch, batch["mask"], section.task)
        metrics = self.labels.accuracy(JOINT, signals, batch)
        for name, answer in answers.items():
            rows = self.teacher.has(name, batch)
            distances = alignment_distances(answer.require("features"), joint, detach=section.detach)
            terms[f"align/{name}"] = Term(distances, rows, section.distance)
            terms |= self.labels.terms(name, answer, batch, rows, section.task * section.modality)
            metrics |= self.labels.accuracy(name, answer, batch)
        return Outcome(terms, stats, metrics=metrics)

    def begin_student(self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch]) -> tuple[Tree, Tree]:
        """Copies the teacher's encoders of the same modalities to the student, unless these are to start fresh."""
        if not self.taught:
            return self.begin(params, stats, constants, batches)
        if self.config.student_encoders == "fresh":
            return params, stats
        student, student_stats = (
            self.student.take_encoders(tree["student"], tree["teacher"]) for tree in (params, stats)
        )
        return {**params, "student": student}, {**stats, "student": student_stats}

    def learn(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the student predicts the label, and imitates its teachers as `config.objective` says."""
        view, rows = self.draw_views(batch), batch["mask"]
        drop_key, key = jax.random.split(context.key)
        keep = modalities.drop(drop_key, batch, self.student.modalities, self.config.modality_dropout)
        # Frozen encoders keep their BatchNorm statistics.
        train = self.config.encoder_multiplier > 0
        signals, new_stats = self.student.signals(
            params["student"], stats["student"], batch, view, keep=keep, train=train, key=key
        )
        terms = self.labels.terms("student", signals, batch, rows, self.config.objective.task)
        metrics = self.labels.accuracy("student", signals, batch)
        stats = {**stats, "student": new_stats}
        if not self.distils:
            return Outcome(terms, stats, metrics=metrics)
        answers = jax.lax.stop_gradient(self.answers(params, stats, batch, view))
        pool = [answers[name] for name in self.pool]
        available = [self.teacher.has(name, batch) for name in self.pool]
        evidence = jax.lax.stop_gradient(self.labels.evidence(pool, available, batch))
        counts = context.weigh(evidence, rows) != 0 if context.weigh else jnp.ones((rows.shape[0], len(pool)), bool)
        teacher_features = [(answer.require("features"), has) for answer, has in zip(pool, available, strict=True)]
        student_features = signals.require("features")
        losses, measured = imitation.imitate(self.config, self.pool, student_features, teacher_features, counts)
        return Outcome(terms, stats, losses, rows, evidence, {**metrics, **measured})

    def predict(self, params: Tree, stats: Tree, constants: Tree, batch: Batch) -> dict[str, Signals]:
        """All networks' signals for the evaluation view, and those of student and joint teacher on some modalities."""
        view = views.centre(batch)
        student, teacher = ((params[name], stats[name], batch, view) for name in ("student", "teacher"))
        predicted = {"student": self.student.signals(*student)[0], **self.student.signals_of_variants(*student)}
        if self.taught:
            predicted |= self.answers(params, stats, batch, view) | self.teacher.signals_of_variants(*teacher)
        return predicted

    def observe(self, params: Tree, stats: Tree, constants: Tree, batch: Batch) -> dict[str, Array]:
        """For the report's pictures: features, before and after alignment, and errors; NaN where rows have none."""
        view = views.centre(batch)
        answers = self.answers(params, stats, batch, view)
        student_signals, _ = self.student.signals(params["student"], stats["student"], batch, view)
        observed = {"student": student_signals.require("features")}
        before = tokens(answers[JOINT], self.teacher.modalities) if self.aligned else {}
        for name, answer in answers.items():
            rows = self.teacher.has(name, batch)
            observed[f"teacher/{name}"] = jnp.where(rows[:, None], answer.require("features"), jnp.nan)
            if name in before:
                observed[f"before/{name}"] = jnp.where(rows[:, None], before[name], jnp.nan)
            if name in self.pool:
                observed[f"error/{name}"] = self.labels.error(answer, batch, rows)
        return observed

    def answers(self, params: Tree, stats: Tree, batch: Batch, view: View) -> dict[str, Signals]:
        """The signals of every modality by itself, and of the joint teacher."""
        joint, _ = self.teacher.signals(params["teacher"], stats["teacher"], batch, view)
        by_modality = tokens(joint, self.teacher.modalities)
        return {**modality_signals(params, by_modality, aligned=self.aligned), JOINT: joint}


def _check(config: ml_collections.ConfigDict, devices: int) -> None:
    """Checks the options, and that they fit together."""
    enabled = {name: takes_part(section) for name, section in config.phases.items()}
    if enabled["teach"] != enabled["joint"] or not enabled["teach"] and (enabled["hallucinate"] or enabled["align"]):
        raise InputError(
            "config.phases: teach and joint go together, and hallucinate and align need both; "
            f"enabled are {[name for name, on in enabled.items() if on]}."
        )
    choose(dict.fromkeys(("all", "joint")), config.pool, "config.pool")
    choose(dict.fromkeys(hallucination.LOSSES), config.hallucination.loss, "config.hallucination.loss")
    choose(dict.fromkeys(("teacher", "fresh")), config.student_encoders, "config.student_encoders")
    check_range("config.modality_dropout", config.modality_dropout, 0, 1)
    imitation.check(config, devices)


def default_config() -> ml_collections.ConfigDict:
    """The recipe's configuration with every key that it reads; modalities are the user's to add."""
    config = defaults.run("mtpkdot")
    del config.student
    config.modalities = ml_collections.ConfigDict()
    config.width = 512  # of a token
    config.fusion = ml_collections.ConfigDict({"name": "transformer", "options": {}})
    config.dropout = 0.0
    config.modality_dropout = 0.0  # [ours]
    config.adapter_width = 256
    config.hallucination = ml_collections.ConfigDict({"loss": "mmd", "multiplier": 1.0, "options": {}})
    config.align = ml_collections.ConfigDict(
        {"distance": 0.5, "task": 0.5, "modality": 0.5, "joint_multiplier": 0.02, "detach": False}
    )
    config.objective = ml_collections.ConfigDict({"task": 0.8, "transport": 0.2, "centroid": 0.2, "features": 0.0})
    config.distance = "mse"  # of `features`, point-to-point distillation; or cosine
    config.structure = ml_collections.ConfigDict({"anchors": "least", "k": 30, "blur": 0.1, "solver": "ott"})
    config.structure.rows = 128  # that are compared with one another; 0: the whole batch
    config.pool = "all"  # or joint: PKDOT's one teacher
    config.weighting = ({"name": "most_confident", "per": "batch"},)
    config.student_encoders = "teacher"  # where they start; or fresh [ours]
    config.encoder_multiplier = 1.0  # of the learning rate, in the last phase
    config.affect_loss = "ccc"
    config.label_smoothing = 0.0
    config.class_weights = "none"  # or balanced
    config.phases = ml_collections.ConfigDict(
        {
            "teach": defaults.phase(epochs=10, learning_rate=5e-4),
            "joint": defaults.phase(epochs=10, learning_rate=5e-4),
            "hallucinate": defaults.phase(epochs=10, learning_rate=5e-4),
            "align": defaults.phase(epochs=10, learning_rate=5e-3),
            "student": defaults.phase(epochs=10, learning_rate=5e-4),
        }
    )
    return config
