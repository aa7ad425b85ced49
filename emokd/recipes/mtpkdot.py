"""MT-PKDOT: several privileged teachers, optimal transport, and a student that does without their modalities.

Multi-teacher privileged knowledge distillation with optimal transport, and its predecessor PKDOT (one joint teacher).
What the papers and the authors' release say is in docs/mtpkdot.md, and what is ours.

    teach        each modality's encoder learns the task, with a head of its own
    joint        the fusion of all modalities learns it; the encoders rest
    hallucinate  T-Nets learn to imagine the privileged modalities' tokens from the visible ones'
    align        through an adapter each, the modalities' tokens come near the joint features
    student      sees the visible modalities alone; learns from labels and from the batch's structure in the teachers

The teachers of the last phase are the modalities (aligned) and the joint one; `config.weighting` says which counts,
the most confident one of the batch by default. With `pool = "joint"` the same recipe is PKDOT; with the weight on
`features` instead of `transport` it is point-to-point distillation; with all three at 0, no teacher.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.losses import affect, features, mmd
from emokd.losses.shapes import check_range
from emokd.models.multimodal import is_present
from emokd.models.network import TrainedModel
from emokd.phase import Batch, Measure, Outcome, Phase, Recipe, Term, Tree
from emokd.recipes.common import classification, imitation, modalities, relations, views
from emokd.recipes.common.linear import create_linear, linear
from emokd.recipes.common.networks import create_network
from emokd.recipes.common.phases import correlations, create_phase, takes_part
from emokd.recipes.common.task import Task, accuracy, choose, joint_heads, targets
from emokd.signals import Signals
from emokd.weighting import chain as weighting

HALLUCINATION_LOSSES = ("mmd", *imitation.DISTANCES)
POOLS = ("all", "joint")
JOINT = "joint"


def build(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> Recipe:
    """The recipe for a configuration and a task; encoders may start from the weights in `models`, by modality.

    Raises:
      InputError: a modality is not in the data, all are privileged, the batch is no larger than the number of
        anchors, or an option is unknown or outside its range.
    """
    heads = joint_heads(task)
    specs = modalities.create_specs(config, task)
    visible = tuple(name for name in specs if not config.modalities[name].privileged)
    privileged = tuple(name for name in specs if config.modalities[name].privileged)
    _check(config, visible, task.devices)
    imagined = privileged if takes_part(config.phases.hallucinate) else ()
    teacher_spec = modalities.create_network_spec(config, specs, (), heads, task)
    seen = {name: specs[name] for name in visible}
    student_spec = modalities.create_network_spec(config, seen, imagined, heads, task)
    teacher = create_network(teacher_spec, config, JOINT)
    student = create_network(student_spec, config, "student")
    cross_entropy = classification.create_cross_entropy(config, task)
    augmentation = views.create_augmentation(config.data.augment)
    aligned = takes_part(config.phases.align)
    pool = (JOINT,) if config.pool == "joint" else (*specs, JOINT)
    taught = takes_part(config.phases.teach)
    weights = config.objective
    distils = taught and bool(weights.transport or weights.centroid or weights.features)
    joint_width = teacher.module.feature_size

    def init(key):
        teacher_key, student_key, *keys = jax.random.split(key, 2 + 4 * len(specs))
        params, stats = teacher.init(teacher_key)
        own, own_stats = student.init(student_key)
        params, stats = modalities.adopt_encoders(params, stats, models, specs)
        own, own_stats = modalities.adopt_encoders(own, own_stats, models, seen)
        tree: Tree = {"teacher": params, "student": own, "modality_heads": {}, "adapters": {}, "aligned_heads": {}}
        for m, name in enumerate(specs):
            first, down, up, last = keys[4 * m : 4 * m + 4]
            tree["modality_heads"][name] = _create_heads(first, config.width, heads)
            tree["adapters"][name] = {
                "down": create_linear(down, config.width, config.adapter_width),
                "up": create_linear(up, config.adapter_width, joint_width),
            }
            tree["aligned_heads"][name] = _create_heads(last, joint_width, heads)
        return tree, {"teacher": stats, "student": own_stats}

    def ask_teacher(params, stats, batch, view, *, train=False, key=None, keep=None):
        inputs = views.see(teacher_spec, batch, view)
        return teacher(params["teacher"], stats["teacher"], inputs, keep, train=train, key=key)

    def ask_student(params, stats, batch, view, *, train=False, key=None, keep=None):
        inputs = views.see(student_spec, batch, view)
        return student(params["student"], stats["student"], inputs, keep, train=train, key=key)

    def modality_signals(params, signals: Signals) -> dict[str, Signals]:
        """Each modality's own answer: through its adapter, once there is one."""
        found = {}
        for name in specs:
            token = signals.intermediates[f"token/{name}"]
            if aligned:
                token = linear(params["adapters"][name]["up"], linear(params["adapters"][name]["down"], token))
            found[name] = _answer(params["aligned_heads" if aligned else "modality_heads"][name], token)
        return found

    def has(name: str, batch: Batch) -> Bool[Array, " B"]:
        return batch["mask"] & is_present(batch[specs[name].input])

    def task_terms(name: str, signals: Signals, batch: Batch, rows: Array, share: float = 1.0) -> dict[str, Term]:
        """The task's losses of one network."""
        terms = {}
        if "expression" in heads:
            labels, labelled = targets(batch)
            terms[f"{name}/expression"] = Term(cross_entropy(signals.logits, labels), rows & labelled, share)
        if "valence_arousal" in heads:
            target = batch["valence_arousal"]
            labelled = rows & ~jnp.isnan(target).all(-1)
            affect_loss = choose(affect.AFFECT_LOSSES, config.affect_loss, "config.affect_loss")
            values = affect_loss(signals.valence_arousal, target, mask=labelled)
            terms[f"{name}/valence_arousal"] = Term(values, labelled, share)
        return terms

    def teach(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        signals, moved = ask_teacher(params, stats, batch, view, train=True, key=context.key)
        terms: dict[str, Term] = {}
        metrics: dict[str, Measure] = {}
        for name in specs:
            answer = _answer(params["modality_heads"][name], signals.intermediates[f"token/{name}"])
            terms |= task_terms(name, answer, batch, has(name, batch))
            metrics |= _accuracy(name, answer, batch)
        return Outcome(terms, {**stats, "teacher": moved}, metrics=metrics)

    def joint(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        keep = modalities.drop(context.key, batch, specs, config.modality_dropout)
        signals, _ = ask_teacher(params, stats, batch, view, keep=keep)
        return Outcome(
            task_terms(JOINT, signals, batch, batch["mask"]), stats, metrics=_accuracy(JOINT, signals, batch)
        )

    def hallucinate(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        signals, _ = ask_teacher(params, stats, batch, view)
        own = {**params["student"], "encoders": {n: params["teacher"]["encoders"][n] for n in visible}}
        own_stats = modalities.take_encoders(stats["student"], stats["teacher"], visible)
        imagination, _ = ask_student({"student": own}, {"student": own_stats}, batch, view)
        tokens = {name: imagination.intermediates[f"token/{name}"] for name in imagined}
        true = {
            name: (jax.lax.stop_gradient(signals.intermediates[f"token/{name}"]), has(name, batch)) for name in imagined
        }
        distances = _apart(config.hallucination.loss, tokens, true)
        return Outcome({name: Term(distances[name], rows) for name, (_, rows) in true.items()}, stats)

    def align(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        signals, _ = ask_teacher(params, stats, batch, view)
        terms = task_terms(JOINT, signals, batch, batch["mask"], config.align.task)
        metrics = _accuracy(JOINT, signals, batch)
        for name, answer in modality_signals(params, signals).items():
            rows = has(name, batch)
            distances = features.cosine(answer.features, signals.features)
            if not config.align.detach:  # the joint features move as well, as in the release
                back = features.cosine(signals.features, answer.features)
                distances += back - jax.lax.stop_gradient(back)
            terms[f"align/{name}"] = Term(distances, rows, config.align.distance)
            terms |= task_terms(name, answer, batch, rows, config.align.task * config.align.modality)
            metrics |= _accuracy(name, answer, batch)
        return Outcome(terms, stats, metrics=metrics)

    def learn(params, stats, constants, batch, context):
        view = views.create_views(batch, augmentation, config.data.view_seed)
        drop_key, key = jax.random.split(context.key)
        rows = batch["mask"]
        keep = modalities.drop(drop_key, batch, seen, config.modality_dropout)
        # Encoders that rest keep their BatchNorm statistics.
        train = config.encoder_multiplier > 0
        signals, moved = ask_student(params, stats, batch, view, train=train, key=key, keep=keep)
        terms = task_terms("student", signals, batch, rows, weights.task)
        metrics = _accuracy("student", signals, batch)
        stats = {**stats, "student": moved}
        if not distils:
            return Outcome(terms, stats, metrics=metrics)
        answers = jax.lax.stop_gradient(teacher_answers(params, stats, batch, view))
        known = [rows if name == JOINT else has(name, batch) for name in pool]
        theirs = [(answers[name].features, r) for name, r in zip(pool, known, strict=True)]
        evidence = jax.lax.stop_gradient(_evidence([answers[name] for name in pool], known, batch, heads))
        counts = context.weigh(evidence, rows) != 0 if context.weigh else jnp.ones((rows.shape[0], len(pool)), bool)
        losses, measured = imitation.imitate(config, pool, signals.features, theirs, counts)
        return Outcome(terms, stats, losses, rows, evidence, {**metrics, **measured})

    def teacher_answers(params, stats, batch, view) -> dict[str, Signals]:
        signals, _ = ask_teacher(params, stats, batch, view)
        return {**modality_signals(params, signals), JOINT: signals}

    def begin(params, stats, constants, batches):
        """Statistics of the arrays, once, for all encoders."""
        fitted = modalities.fit_standardizers(specs, batches, task.names)
        stats = {**stats, "teacher": modalities.set_standardizers(stats["teacher"], fitted)}
        return params, {**stats, "student": modalities.set_standardizers(stats["student"], fitted)}

    def begin_student(params, stats, constants, batches):
        """The student sees with the eyes of its teachers of the same modalities."""
        if not taught:
            return begin(params, stats, constants, batches)
        if config.student_encoders == "fresh":
            return params, stats
        own = {**params["student"], "encoders": {n: params["teacher"]["encoders"][n] for n in visible}}
        own_stats = modalities.take_encoders(stats["student"], stats["teacher"], visible)
        return {**params, "student": own}, {**stats, "student": own_stats}

    def predict(params, stats, constants, batch):
        view, rows = views.centre(batch), batch["id"].shape[0]
        found = {"student": ask_student(params, stats, batch, view)[0]}
        for names in modalities.subsets(visible):
            found[f"student({'+'.join(names)})"] = ask_student(
                params, stats, batch, view, keep=modalities.keep_only(names, visible, rows)
            )[0]
        if not taught:
            return found
        found |= teacher_answers(params, stats, batch, view)
        for names in modalities.subsets(tuple(specs)):
            found[f"joint({'+'.join(names)})"] = ask_teacher(
                params, stats, batch, view, keep=modalities.keep_only(names, tuple(specs), rows)
            )[0]
        return found

    def observe(params, stats, constants, batch):
        view = views.centre(batch)
        signals, _ = ask_teacher(params, stats, batch, view)
        answers = {**modality_signals(params, signals), JOINT: signals}
        found = {"student": ask_student(params, stats, batch, view)[0].features}
        labelled = targets(batch)[1] if "expression" in heads else batch["mask"]
        for name, answer in answers.items():
            seen = batch["mask"] if name == JOINT else has(name, batch)
            found[f"teacher/{name}"] = jnp.where(seen[:, None], answer.features, jnp.nan)
            if name != JOINT and aligned:
                found[f"before/{name}"] = jnp.where(seen[:, None], signals.intermediates[f"token/{name}"], jnp.nan)
            if name in pool:
                found[f"error/{name}"] = jnp.where(seen & labelled, _error(answer, batch, heads), jnp.nan)
        return found

    phases = _create_phases(
        config,
        task,
        {"teach": teach, "joint": joint, "hallucinate": hallucinate, "align": align, "student": learn},
        {"teach": begin, "student": begin_student},
        bool(imagined),
        _relational(config, heads, distils),
    )
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
        phases=phases,
        init=init,
        constants={},
        predict=predict,
        teachers=pool if distils else (),
        weighting=weighting.create(config.weighting) if distils else None,
        extract=lambda params, stats: (params["student"], stats["student"]),
        observe=observe if taught else None,
        student_spec=student_spec,
        networks={"student": student_spec, **({JOINT: teacher_spec} if taught else {})},
        variants=[f"student({'+'.join(names)})" for names in modalities.subsets(visible)]
        + ([f"{JOINT}({'+'.join(names)})" for names in modalities.subsets(tuple(specs))] if taught else []),
    )


def _check(config: ml_collections.ConfigDict, visible: tuple[str, ...], devices: int) -> None:
    """Checks the options, and that they fit together."""
    if not visible:
        raise InputError("Every modality is privileged, so the student would see nothing: set one's privileged=False.")
    enabled = {name: takes_part(section) for name, section in config.phases.items()}
    if enabled["teach"] != enabled["joint"] or not enabled["teach"] and (enabled["hallucinate"] or enabled["align"]):
        raise InputError(
            "config.phases: teach and joint go together, and hallucinate and align need both; "
            f"enabled are {[name for name, on in enabled.items() if on]}."
        )
    choose(dict.fromkeys(POOLS), config.pool, "config.pool")
    choose(dict.fromkeys(HALLUCINATION_LOSSES), config.hallucination.loss, "config.hallucination.loss")
    choose(affect.AFFECT_LOSSES, config.affect_loss, "config.affect_loss")
    choose(dict.fromkeys(("teacher", "fresh")), config.student_encoders, "config.student_encoders")
    check_range("config.modality_dropout", config.modality_dropout, 0, 1)
    imitation.check(config, devices)


def _create_phases(
    config: ml_collections.ConfigDict,
    task: Task,
    objectives: Mapping[str, Any],
    prepare: Mapping[str, Any],
    imagines: bool,
    relational: Mapping[str, str],
) -> list[Phase]:
    """The phases that are enabled, in order."""
    hallucinators = {"hallucinators": config.hallucination.multiplier} if imagines else {}
    learns = {
        "teach": {"teacher_encoders": 1.0, "modality_heads": 1.0},
        "joint": {"teacher_fusion": 1.0},
        "hallucinate": {"hallucinators": 1.0} if imagines else {},
        "align": {"teacher_fusion": config.align.joint_multiplier, "adapters": 1.0},
        "student": {"student_encoders": config.encoder_multiplier, "student_fusion": 1.0, **hallucinators},
    }
    remark = functools.partial(imitation.transport_remark, solver=config.structure.solver)
    phases = []
    for name, groups in learns.items():
        phase = create_phase(
            name,
            config.phases[name],
            task,
            objectives[name],
            groups,
            prepare=prepare.get(name),
            scored=name == "student",
            remark=remark if name == "student" else None,
            relational=relational[name],
        )
        if phase is not None:
            phases.append(phase)
    return phases


def _relational(config: ml_collections.ConfigDict, heads: Mapping[str, int], distils: bool) -> dict[str, str]:
    """What compares the examples of a batch, by phase."""
    fusion = "config.fusion.options.attend=batch" if config.fusion.options.get("attend") == "batch" else ""
    losses = dict.fromkeys(config.phases, correlations(config.affect_loss, heads))
    losses["hallucinate"] = "config.hallucination.loss=mmd" if config.hallucination.loss == "mmd" else ""
    parts = [f"config.objective.{name}" for name in ("transport", "centroid") if distils and config.objective[name]]
    losses["student"] = ", ".join(filter(None, [losses["student"], *parts]))
    return {name: ", ".join(filter(None, [fusion, loss])) for name, loss in losses.items()}


def _create_heads(key: Array, inputs: int, heads: Mapping[str, int]) -> Tree:
    keys = jax.random.split(key, len(heads))
    return {name: create_linear(k, inputs, size) for k, (name, size) in zip(keys, heads.items(), strict=True)}


def _answer(heads: Tree, token: Float[Array, "B D"]) -> Signals:
    """The signals of linear heads on features."""
    outputs = {name: linear(head, token) for name, head in heads.items()}
    return Signals(features=token, logits=outputs.get("expression"), valence_arousal=outputs.get("valence_arousal"))


def _accuracy(name: str, signals: Signals, batch: Batch) -> dict[str, Measure]:
    if signals.logits is None:
        return {}
    return {f"accuracy/{name}": accuracy(signals.logits, *targets(batch))}


def _apart(
    loss: str, tokens: Mapping[str, Float[Array, "B D"]], true: Mapping[str, tuple[Float[Array, "B D"], Array]]
) -> dict[str, Float[Array, " B"]]:
    """How far hallucinated tokens are from the true ones, which come with the rows that have them, by modality."""
    if loss != "mmd":
        return {name: imitation.DISTANCES[loss](token, true[name][0]) for name, token in tokens.items()}

    def compare(tokens: Mapping[str, Array], true: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
        return {name: mmd.gaussian_mmd(tokens[name], theirs, mask=rows) for name, (theirs, rows) in true.items()}

    return relations.of_the_batch(compare)(tokens, true)  # all modalities at once: one gather of each side


def _evidence(answers: list[Signals], known: list[Array], batch: Batch, heads: Mapping[str, int]) -> dict[str, Array]:
    """What the weighting may ask: logits and labels; without expressions, squared errors of valence and arousal.

    A teacher whose modality an example lacks knows nothing of it: all classes alike, or the middle of the scale.
    """

    def told(name):
        values = (jnp.where(rows[:, None], getattr(a, name), 0.0) for a, rows in zip(answers, known, strict=True))
        return jnp.stack(list(values), axis=1)

    if "expression" in heads:
        return {"teacher_logits": told("logits"), "labels": targets(batch)[0]}
    return {"errors": ((told("valence_arousal") - batch["valence_arousal"][:, None]) ** 2).sum(-1)}


def _error(answer: Signals, batch: Batch, heads: Mapping[str, int]) -> Float[Array, " B"]:
    """By what the most confident teacher is chosen: cross-entropy, or the squared error of valence and arousal."""
    if "expression" in heads:
        return affect.cross_entropy(answer.logits, targets(batch)[0])
    return ((answer.valence_arousal - batch["valence_arousal"]) ** 2).sum(-1)


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
    config.structure = ml_collections.ConfigDict({"anchors": "least", "k": 30, "blur": 0.1, "solver": "converged"})
    config.structure.local = False  # of each device's rows alone [ours]
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
