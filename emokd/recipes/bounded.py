"""Teacher-bounded students: expressions, valence and arousal from a face, all at once.

EmoNet (Toisoul et al., Nature Machine Intelligence 2021) taught to light networks with soft targets (Hinton et al.,
2015) and a regression loss that stops once the student beats its teacher (Chen et al., NeurIPS 2017):

    L = (1 - alpha) CE + alpha T^2 KL(teacher || student) + sum over valence, arousal of (smoothL1 + nu L_b)

The formula is the paper's; nu = 0.5 is Chen et al.'s; T = 4, alpha = 0.5 and margin 0 are ours, and each is a switch.
With several teachers the terms that have a teacher in them are weighted per example by `config.weighting`. [ours]

    head       the new heads learn on the resting backbone    (for imported weights; off by default)
    distill    the whole student learns from labels and teachers
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.configuration import defaults
from emokd.data.augment import centre_views
from emokd.errors import InputError, excerpt
from emokd.losses import affect, bounded, soft_targets
from emokd.losses.shapes import check_range
from emokd.models.network import TrainedModel
from emokd.names import essence, normal
from emokd.phase import Measure, Outcome, Recipe, TeacherTerm, Term
from emokd.recipes.common import classification, views
from emokd.recipes.common.networks import adopt_backbone, create_network, create_spec
from emokd.recipes.common.phases import correlations, create_phase
from emokd.recipes.common.task import Task, accuracy, choose, joint_heads, targets
from emokd.recipes.common.teachers import Teacher, create_teachers, features_of_frozen, networks_of
from emokd.signals import Signals
from emokd.weighting import chain as weighting

REGRESSIONS = (*affect.AFFECT_LOSSES, "emonet")


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What one teacher has to say about this data.

    Attributes:
      classes: the place among the teacher's logits of each of the data's expressions; None if it knows none.
      soft_targets: whether its logits are imitated.
      bound: whether its valence and arousal bound the student's.
    """

    classes: tuple[int, ...] | None
    soft_targets: bool
    bound: bool


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration, a task and the models read from files ("student" and teachers, by name).

    Raises:
      InputError: the data has neither expressions nor valence and arousal, a teacher does not know one of the data's
        classes, nothing is left for a teacher to teach, or an option is unknown or outside its range.
    """
    heads = joint_heads(task)
    _check_options(config)
    spec = create_spec(config.student, heads, task)
    student = create_network(spec, config, "student")
    teachers = create_teachers(config, task, models)
    lessons = {teacher.name: _create_lesson(teacher, config, task, heads) for teacher in teachers}
    soft, bound = config.soft_targets, config.bound
    augmentation = views.create_augmentation(config.data.augment)
    cross_entropy = classification.create_cross_entropy(config, task)
    chain = weighting.create(config.weighting) if teachers else None
    if teachers and weighting.needs_gradients(config.weighting):
        raise InputError("config.weighting: aekd compares features, but this recipe's teachers teach outputs.")
    label_share = 1.0 - soft.alpha if any(lesson.soft_targets for lesson in lessons.values()) else 1.0

    def init(key):
        params, stats = student.init(key)
        if "student" in models:
            params, stats = adopt_backbone(params, stats, models["student"], spec)
        return {"student": params}, {"student": stats}

    constants = {t.name: {"params": t.model.params, "stats": t.model.stats} for t in teachers if t.model}

    def ask(teacher, constants, batch, view) -> Signals:
        """The teacher's signals, with the logits of the data's classes in the data's order."""
        weights, classes = constants[teacher.name], lessons[teacher.name].classes
        signals, _ = teacher.signals(weights["params"], weights["stats"], batch, view)
        return signals.replace(logits=None if classes is None else signals.logits[:, jnp.array(classes)])

    def affect_rows(batch) -> Bool[Array, " B"]:
        """Rows with valence, arousal or both: the two parts of the paper's L_reg are means over these."""
        return batch["mask"] & ~jnp.isnan(batch["valence_arousal"]).all(-1)

    def label_terms(signals, batch, key) -> tuple[dict[str, Term], dict[str, Array | Measure]]:
        """What the labels say; with nothing from teachers it is the paper's baseline."""
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        if "expression" in heads:
            labels, rows = targets(batch)
            terms["expression"] = Term(cross_entropy(signals.logits, labels), rows, label_share)
            metrics["accuracy"] = accuracy(signals.logits, labels, rows)
        if "valence_arousal" in heads:
            target = batch["valence_arousal"]
            rows = affect_rows(batch)
            if config.affect_loss == "emonet":
                values = affect.emonet_mixture(signals.valence_arousal, target, key, mask=rows)
            else:
                values = affect.AFFECT_LOSSES[config.affect_loss](signals.valence_arousal, target, mask=rows)
            terms["valence_arousal"] = Term(values, rows)
        return terms, metrics

    def imitation(lesson, signals, theirs, batch) -> Float[Array, " B"]:
        """alpha T^2 KL of one teacher; 0 where it has no soft targets."""
        if not lesson.soft_targets:
            return jnp.zeros(batch["mask"].shape, jnp.float32)
        return soft.alpha * soft_targets.kl_divergence(signals.logits, theirs.logits, temperature=soft.temperature)

    def bounding(lesson, signals, theirs, batch, rows) -> Float[Array, " B"]:
        """nu L_b of one teacher; 0 where it has no bound."""
        if not lesson.bound:
            return jnp.zeros(rows.shape, jnp.float32)
        return bound.nu * bounded.teacher_bound(
            signals.valence_arousal,
            theirs.valence_arousal,
            batch["valence_arousal"],
            margin=bound.margin,
            joint=bound.joint,
            mask=rows,
        )

    def learn(params, stats, constants, batch, key, train):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        dropout_key, mixture_key = jax.random.split(key)
        signals, moved = student(
            params["student"], stats["student"], views.see(spec, batch, view), train=train, key=dropout_key
        )
        terms, metrics = label_terms(signals, batch, mixture_key)
        stats = {**stats, "student": moved}
        if not any(lesson.soft_targets or lesson.bound for lesson in lessons.values()):
            return Outcome(terms, stats, metrics=metrics)
        theirs = {t.name: jax.lax.stop_gradient(ask(t, constants, batch, view)) for t in teachers}
        losses = [imitation(lessons[t.name], signals, theirs[t.name], batch) for t in teachers]
        further = {}
        if any(lesson.bound for lesson in lessons.values()):
            rows = affect_rows(batch)
            bounds = [bounding(lessons[t.name], signals, theirs[t.name], batch, rows) for t in teachers]
            further["bound"] = TeacherTerm(jnp.stack(bounds, axis=1), rows)
            metrics |= {
                f"beaten/{name}": Measure(_beaten(signals, theirs[name], batch["valence_arousal"]), rows)
                for name, lesson in lessons.items()
                if lesson.bound
            }
        evidence = {}
        if "expression" in heads and all(lesson.classes for lesson in lessons.values()):
            evidence["teacher_logits"] = jnp.stack([theirs[t.name].logits for t in teachers], axis=1)
            evidence["labels"], _ = targets(batch)
        evidence = jax.lax.stop_gradient(evidence)
        return Outcome(terms, stats, jnp.stack(losses, axis=1), batch["mask"], evidence, metrics, further)

    def head(params, stats, constants, batch, context):
        return learn(params, stats, constants, batch, context.key, train=False)

    def distill(params, stats, constants, batch, context):
        # A backbone that rests keeps its BatchNorm statistics.
        return learn(params, stats, constants, batch, context.key, train=config.backbone_multiplier > 0)

    def frozen_features(constants, batch, centre):
        view = views.centre(batch) if centre else views.create_views(batch, augmentation, config.data.view_seed)
        return features_of_frozen(teachers, constants, batch, view)

    def predict(params, stats, constants, batch):
        rows = batch["id"].shape[0]

        def look(view):
            own = student(params["student"], stats["student"], views.see(spec, batch, view))[0]
            return {"student": own, **{t.name: ask(t, constants, batch, view) for t in teachers}}

        straight = look(centre_views(rows))
        if not config.mirror:
            return straight
        # No cache holds the mirrored picture. Nor does a file of answers, which stand for it as they are.
        cached = {f"features/{t.name}" for t in teachers if t.network}
        batch = {name: values for name, values in batch.items() if name not in cached}
        mirrored = look(centre_views(rows, mirrored=True))
        return {name: views.average_affect(signals, mirrored[name]) for name, signals in straight.items()}

    relational = correlations(config.affect_loss, heads)
    both = {"student_backbone": config.backbone_multiplier, "student_head": 1.0}
    phases = [
        create_phase("head", config.phases.head, task, head, {"student_head": 1.0}, scored=True, relational=relational),
        create_phase("distill", config.phases.distill, task, distill, both, scored=True, relational=relational),
    ]
    return Recipe(
        groups={"student_backbone": r"student/backbone/.*", "student_head": r"student/heads/.*"},
        phases=[phase for phase in phases if phase is not None],
        init=init,
        constants=constants,
        predict=predict,
        teachers=[teacher.name for teacher in teachers],
        weighting=chain,
        extract=lambda params, stats: (params["student"], stats["student"]),
        student_spec=spec,
        networks={"student": spec, **networks_of(teachers)},
        frozen_features=frozen_features if teachers else None,
    )


def _check_options(config: ml_collections.ConfigDict) -> None:
    choose(dict.fromkeys(REGRESSIONS), config.affect_loss, "config.affect_loss")
    check_range("config.soft_targets.alpha", config.soft_targets.alpha, 0, 1)
    check_range("config.soft_targets.temperature", config.soft_targets.temperature, 0, above=True)
    check_range("config.bound.nu", config.bound.nu, 0)
    check_range("config.bound.margin", config.bound.margin, 0)


def _create_lesson(teacher: Teacher, config: ml_collections.ConfigDict, task: Task, heads: Mapping[str, int]) -> Lesson:
    """What the teacher can teach here.

    Raises:
      InputError: it has no weights, no output that the data has a target for, or not all of the data's classes.
    """
    key = f"config.teachers.{teacher.name}"
    if teacher.model is None or teacher.learns:
        raise InputError(
            f"{key}: this recipe's teachers are frozen; give .checkpoint or .train, and tuning linear_probe."
        )
    known = [head for head in heads if head in teacher.spec.heads]
    if not known:
        raise InputError(
            f"{key} has the heads {sorted(teacher.spec.heads)}, but the data has targets for {list(heads)}."
        )
    classes = None
    if "expression" in known:
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
        bound="valence_arousal" in known and config.bound.nu > 0,
    )


def _beaten(signals: Signals, theirs: Signals, target: Float[Array, "B 2"]) -> Float[Array, " B"]:
    """1 where the student's squared error of what is labelled is below the teacher's, else 0."""
    labelled = ~jnp.isnan(target)
    own, other = (jnp.where(labelled, s.valence_arousal - target, 0.0) ** 2 for s in (signals, theirs))
    return (own.sum(-1) < other.sum(-1)).astype(jnp.float32)


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
