"""SMKD: skill-based multi-teacher distillation for visual emotion analysis.

Cladiere, Alata, Ducottet, Konik, Legrand. Visual emotion analysis using skill-based multi-teacher knowledge
distillation. Pattern Analysis and Applications, 2025. doi 10.1007/s10044-025-01426-9.

The three steps (distil, classify, fine-tune) and the per-instance weighting are the paper's. The probe, the
distance, the adapters, the exact weights and all schedules are ours, and each is a switch: see docs/smkd.md.

    teach      teachers without weights learn their own tasks           (only where a teacher has a `task`)
    probe      each teacher gets an emotion classifier h_k on z_k
    distill    the student's features, through adapters, reproduce the teachers', weighted per instance
    classify   the student's classifier learns the emotions; its features rest
    finetune   the whole student learns the emotions
"""

import functools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import ml_collections

from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.losses import features
from emokd.models.network import TrainedModel, attach_heads
from emokd.phase import Batch, Outcome, Recipe, Term, Tree
from emokd.recipes.common import classification, standardize, views
from emokd.recipes.common.linear import create_linear, linear
from emokd.recipes.common.networks import adopt_backbone, create_network, create_spec
from emokd.recipes.common.phases import create_phase, takes_part
from emokd.recipes.common.task import Task, accuracy, choose, require_classes, targets
from emokd.recipes.common.teachers import create_teachers, features_of_frozen, networks_of, teacher_gradients
from emokd.signals import Signals
from emokd.weighting import chain as weighting

DISTANCES = {"mse": features.mean_squared, "cosine": features.cosine}


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration, a task and the models read from files ("student" and teachers, by name).

    Raises:
      InputError: no emotion labels in the data, a teacher without weights or task, or an unknown option.
    """
    classes = require_classes(task, "expression")
    teachers = create_teachers(config, task, models)
    spec = create_spec(config.student, {"expression": len(classes)}, task)
    student = create_network(spec, config, "student")
    augmentation = views.create_augmentation(config.data.augment)
    distance = choose(DISTANCES, config.distance, "config.distance")
    cross_entropy = classification.create_cross_entropy(config, task)
    chain = weighting.create(config.weighting)
    probed = takes_part(config.phases.probe)
    if takes_part(config.phases.distill) and not probed and weighting.needs_logits(config.weighting):
        raise InputError(
            "config.weighting asks how well the teachers predict emotions, which they learn in the probe: set "
            "config.phases.probe.enabled and a duration, or a weighting that asks nothing, such as uniform."
        )
    untrained = [t.name for t in teachers if t.model is None]
    asked = [name for name in ("probe", "distill") if takes_part(config.phases[name])]
    if untrained and asked and not takes_part(config.phases.teach) and not config.start_from:
        raise InputError(
            f"The teachers {', '.join(untrained)} have no weights and learn in the phase teach, which is left out: set "
            "config.phases.teach.enabled and a duration, or give config.teachers.NAME.checkpoint, or config.start_from."
        )

    def init(key):
        student_key, *keys = jax.random.split(key, 1 + 2 * len(teachers))
        params, stats = student.init(student_key)
        if "student" in models:
            params, stats = adopt_backbone(params, stats, models["student"], spec)
        params, stats = {"student": params}, {"student": stats}
        for section in ("adapters", "probes", "teachers"):
            params[section] = {}
        stats["teachers"], stats["standardizer"] = {}, {}
        for teacher, own, adapter in zip(teachers, keys[::2], keys[1::2], strict=True):
            size = teacher.feature_size
            params["adapters"][teacher.name] = create_linear(adapter, student.module.backbone.feature_size, size)
            # A probe is convex: it starts from zero.
            params["probes"][teacher.name] = jax.tree.map(jnp.zeros_like, create_linear(key, size, len(classes)))
            stats["standardizer"][teacher.name] = {"mean": jnp.zeros((size,)), "std": jnp.ones((size,))}
            if teacher.learns:
                weights = (teacher.model.params, teacher.model.stats) if teacher.model else teacher.network.init(own)
                params["teachers"][teacher.name], stats["teachers"][teacher.name] = weights
        return params, stats

    constants = {t.name: {"params": t.model.params, "stats": t.model.stats} for t in teachers if not t.learns}

    def teacher_signals(teacher, params, stats, constants, batch, view, **options):
        frozen = constants.get(teacher.name)
        weights = (
            (frozen["params"], frozen["stats"])
            if frozen
            else (
                params["teachers"][teacher.name],
                stats["teachers"][teacher.name],
            )
        )
        return teacher.signals(*weights, batch, view, **options)

    def standardized(teacher, params, stats, constants, batch, view):
        """z_k: the teacher's features, in evaluation mode, each dimension standardised over the training set."""
        signals, _ = teacher_signals(teacher, params, stats, constants, batch, view)
        return standardize.standardize(stats["standardizer"][teacher.name], signals.features)

    def standardize_teachers(
        params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch], *, log: bool = True
    ) -> tuple[Tree, Tree]:
        """Takes the statistics of every teacher's features; the probes go on answering as before."""

        def raw(weights, batch):
            params, stats, constants = weights
            view = views.centre(batch)
            return {t.name: teacher_signals(t, params, stats, constants, batch, view)[0].features for t in teachers}

        fitted = standardize.fit(raw, (params, stats, constants), batches, log=log) if teachers else {}
        probes = {
            name: standardize.restandardize(params["probes"][name], stats["standardizer"][name], new)
            for name, new in fitted.items()
        }
        return {**params, "probes": probes}, {**stats, "standardizer": fitted}

    def teach(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        terms, metrics, moved = {}, {}, dict(stats["teachers"])
        for k, teacher in enumerate(t for t in teachers if t.model is None):
            signals, moved[teacher.name] = teacher_signals(
                teacher, params, stats, constants, batch, view, train=True, key=jax.random.fold_in(context.key, k)
            )
            column = config.teachers[teacher.name].task
            logits = signals.logits if column == "expression" else signals.intermediates[column]
            labels, rows = targets(batch, column)
            terms[teacher.name] = Term(cross_entropy(logits, labels, column), rows)
            metrics[f"accuracy/{teacher.name}"] = accuracy(logits, labels, rows)
        return Outcome(terms, {**stats, "teachers": moved}, metrics=metrics)

    def probe(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        labels, rows = targets(batch)
        terms, metrics, moved = {}, {}, dict(stats["teachers"])
        for k, teacher in enumerate(teachers):
            tuned = config.teachers[teacher.name].tuning == "full"
            signals, after = teacher_signals(
                teacher, params, stats, constants, batch, view, train=tuned, key=jax.random.fold_in(context.key, k)
            )
            if tuned:
                moved[teacher.name] = after
            z = standardize.standardize(stats["standardizer"][teacher.name], signals.features)
            logits = linear(params["probes"][teacher.name], z)
            terms[teacher.name] = Term(cross_entropy(logits, labels), rows)
            metrics[f"accuracy/{teacher.name}"] = accuracy(logits, labels, rows)
        return Outcome(terms, {**stats, "teachers": moved}, metrics=metrics)

    def distill(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        labels, _ = targets(batch)
        z = [jax.lax.stop_gradient(standardized(t, params, stats, constants, batch, view)) for t in teachers]
        logits = [linear(params["probes"][t.name], z_k) for t, z_k in zip(teachers, z, strict=True)]
        signals, moved = student(
            params["student"], stats["student"], views.see(spec, batch, view), train=True, key=context.key
        )

        def imitation(student_features):
            """d(A_k f_S(x_i), z_k(x_i)), [B, K]."""
            maps = (linear(params["adapters"][t.name], student_features) for t in teachers)
            return jnp.stack([distance(a, z_k) for a, z_k in zip(maps, z, strict=True)], axis=1)

        evidence = {"teacher_logits": jnp.stack(logits, axis=1), "labels": labels}
        if weighting.needs_gradients(config.weighting):
            evidence["gradients"] = teacher_gradients(imitation, signals.features, len(teachers))
        return Outcome(
            {}, {**stats, "student": moved}, imitation(signals.features), batch["mask"], jax.lax.stop_gradient(evidence)
        )

    def emotion(params, stats, batch, view, train, key):
        signals, moved = student(
            params["student"], stats["student"], views.see(spec, batch, view), train=train, key=key
        )
        labels, rows = targets(batch)
        loss = cross_entropy(signals.logits, labels)
        metrics = {"accuracy": accuracy(signals.logits, labels, rows)}
        return Outcome({"emotion": Term(loss, rows)}, {**stats, "student": moved}, metrics=metrics)

    def classify(params, stats, constants, batch, context):
        return emotion(
            params, stats, batch, views.create_views(batch, augmentation, config.data.view_seed), False, context.key
        )

    def finetune(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        # A backbone that rests keeps its BatchNorm statistics.
        return emotion(params, stats, batch, view, config.backbone_multiplier > 0, context.key)

    def frozen_features(constants, batch, centre):
        view = views.centre(batch) if centre else views.create_views(batch, augmentation, config.data.view_seed)
        return features_of_frozen(teachers, constants, batch, view)

    def predict(params, stats, constants, batch):
        view = views.centre(batch)
        signals = {"student": student(params["student"], stats["student"], views.see(spec, batch, view))[0]}
        for teacher in teachers:
            z = standardized(teacher, params, stats, constants, batch, view)
            # Without the probe a teacher has no answer to emotions.
            answers = {"expression": linear(params["probes"][teacher.name], z)} if probed else {}
            signals[teacher.name] = attach_heads(Signals(features=z), answers)
        return signals

    groups = {
        "student_backbone": r"student/backbone/.*",
        "student_head": r"student/heads/.*",
        "adapters": r"adapters/.*",
        "probes": r"probes/.*",
        **{f"teacher_{t.name}": rf"teachers/{t.name}/.*" for t in teachers if t.learns},
    }
    untaught = {f"teacher_{t.name}": 1.0 for t in teachers if t.model is None}
    tuned = {f"teacher_{t.name}": 1.0 for t in teachers if config.teachers[t.name].tuning == "full"}
    student_groups = {"student_backbone": config.backbone_multiplier, "student_head": 1.0}
    # Teachers that rest have the statistics that the probe began with: no second pass over the training set.
    moved = tuned or not probed
    phases = [
        create_phase("teach", config.phases.teach, task, teach, untaught),
        create_phase("probe", config.phases.probe, task, probe, {"probes": 1.0, **tuned}, prepare=standardize_teachers),
        create_phase(
            "distill",
            config.phases.distill,
            task,
            distill,
            {"student_backbone": 1.0, "adapters": 1.0},
            data="all",
            prepare=functools.partial(standardize_teachers, log=not probed) if moved else None,
        ),
        create_phase("classify", config.phases.classify, task, classify, {"student_head": 1.0}, scored=True),
        create_phase("finetune", config.phases.finetune, task, finetune, student_groups, scored=True),
    ]
    return Recipe(
        groups=groups,
        phases=[phase for phase in phases if phase is not None],
        init=init,
        constants=constants,
        predict=predict,
        teachers=[teacher.name for teacher in teachers],
        weighting=chain,
        extract=lambda params, stats: (params["student"], stats["student"]),
        student_spec=spec,
        networks={"student": spec, **networks_of(teachers)},
        frozen_features=frozen_features,
    )


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
