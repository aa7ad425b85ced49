"""What every recipe needs: the task at hand, teachers, linear maps, and phases from their configuration."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from jaxtyping import Array, Bool, Float

from emokd.configuration.config import UNITS, duration
from emokd.configuration.schedules import learning_rate_schedule
from emokd.data.augment import Augmentation, View, centre_views, render, sample_views
from emokd.errors import InputError, nearest
from emokd.losses.affect import CORRELATIONS
from emokd.losses.shapes import check_range
from emokd.models.answers import AnswersSpec
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import PRECISIONS, Functional, NetworkSpec, TrainedModel, attach_heads, functional
from emokd.models.preprocessing import Preprocessing
from emokd.parts import AUGMENTATION, part
from emokd.phase import Batch, Measure, Objective, Phase, Tree
from emokd.signals import Signals

Choice = TypeVar("Choice")


@dataclasses.dataclass(frozen=True)
class Task:
    """What the data offers to a recipe.

    Attributes:
      classes: class names of each classifying column, in order of their ids.
      columns: names of all target columns.
      sizes: number of training examples in each stream ("labelled", "all").
      batch_size: the global batch.
      counts: training examples of each class of each classifying column, fractional where votes are counted.
      inputs: shape of one example of each input that is no picture.
      devices: over how many devices the batch is split.
      names: of the columns of inputs that are tables, where they are known.
    """

    classes: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    sizes: Mapping[str, int]
    batch_size: int
    counts: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    devices: int = 1
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def steps_per_epoch(self, stream: str) -> int:
        """Whole batches in a stream, at least one."""
        return max(self.sizes[stream] // self.batch_size, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher: a network, and its weights unless this run trains them.

    Attributes:
      name: its name in the configuration, and its column in the weighting.
      spec: architecture, heads, input size and normalisation; or what a file of its answers holds.
      network: the functional form of `spec`; None where there are answers alone.
      model: weights read from a file, or None.
      learns: whether the run has to hold its parameters among those that learn.
    """

    name: str
    spec: NetworkSpec | AnswersSpec
    network: Functional | None
    model: TrainedModel | None
    learns: bool

    @property
    def feature_size(self) -> int:
        """Width of the teacher's features."""
        if isinstance(self.spec, AnswersSpec):
            return self.spec.feature_size
        return self.network.module.backbone.feature_size

    def signals(
        self, params: Tree, stats: Tree, batch: Batch, view: View, *, train: bool = False, key: Array | None = None
    ) -> tuple[Signals, Tree]:
        """The teacher's signals for a view; features and heads alone where the batch has its cached features.

        Answers from a file are those for the batch's own (id, view), whatever `view` is.
        """
        cached = batch.get(f"features/{self.name}")
        if isinstance(self.spec, AnswersSpec):
            return self.spec.signals(cached), stats
        if cached is not None and not train:
            features = cached.astype(jnp.float32)
            heads = {name: linear(head, features) for name, head in params.get("heads", {}).items()}
            return attach_heads(Signals(features=features), heads), stats
        return self.network(params, stats, see(self.spec, batch, view), train=train, key=key)


def see(spec: NetworkSpec | MultimodalSpec, batch: Batch, view: View) -> Any:
    """The view of a batch as a network takes it: at its own size and normalisation, [B, H, W, C].

    For a multimodal network, a dict of its modalities: pictures as above, the frames of a video all in the example's
    one view, arrays as they are.
    """
    with part(AUGMENTATION):
        if isinstance(spec, NetworkSpec):
            return spec.preprocessing(render(batch["image"], view, spec.preprocessing.size))
        return {name: _see_modality(seen, batch[seen.input], view) for name, seen in spec.modalities.items()}


def _see_modality(modality: ModalitySpec, values: Array, view: View) -> Float[Array, "B ..."]:
    if modality.preprocessing is None:
        return values.astype(jnp.float32)
    if values.ndim == 4:
        return modality.preprocessing(render(values, view, modality.preprocessing.size))
    rows, frames = values.shape[:2]
    repeated = jax.tree.map(lambda x: jnp.repeat(x, frames, axis=0, total_repeat_length=rows * frames), view)
    flat = render(values.reshape(rows * frames, *values.shape[2:]), repeated, modality.preprocessing.size)
    pixels = modality.preprocessing(flat)
    return pixels.reshape(rows, frames, *pixels.shape[1:])


def create_views(batch: Batch, augmentation: Augmentation, seed: int) -> View:
    """The batch's augmented views, each named by its (id, view)."""
    with part(AUGMENTATION):
        return sample_views(batch["id"], batch["view"], augmentation, seed)


def centre(batch: Batch) -> View:
    """The evaluation view: the whole canvas, unchanged."""
    return centre_views(batch["id"].shape[0])


def create_augmentation(config: ml_collections.ConfigDict) -> Augmentation:
    """The configuration's `augment` section, checked."""
    return Augmentation(**config.to_dict())


def require_classes(task: Task, column: str) -> tuple[str, ...]:
    """The class names of a column.

    Raises:
      InputError: the data has no such column, or fewer than two classes.
    """
    if column not in task.classes:
        raise InputError(f"This recipe needs {column!r} labels, but the data has {sorted(task.columns)}.")
    if len(task.classes[column]) < 2:
        raise InputError(f"There is only one class of {column!r}: {task.classes[column]}. At least two are needed.")
    return task.classes[column]


def choose(options: Mapping[str, Choice], name: str, key: str) -> Choice:
    """The option called `name`; the error names `key` and the nearest option."""
    if name not in options:
        raise InputError(f"{key} is {name!r}.{nearest(name, options)} Known: {', '.join(sorted(options))}.")
    return options[name]


def average_affect(signals: Signals, mirrored: Signals) -> Signals:
    """Valence and arousal averaged with the mirrored picture's, as EmoNet's evaluation does; the rest as it was."""
    if signals.valence_arousal is None:
        return signals
    return signals.replace(valence_arousal=(signals.valence_arousal + mirrored.valence_arousal) / 2)


def joint_heads(task: Task) -> dict[str, int]:
    """Head sizes of expressions, valence and arousal: whichever of them the data has.

    Raises:
      InputError: it has none of them.
    """
    heads = {}
    if "expression" in task.classes:
        heads["expression"] = len(require_classes(task, "expression"))
    if "valence_arousal" in task.columns:
        heads["valence_arousal"] = 2
    if not heads:
        raise InputError(f"This recipe needs expressions, or valence and arousal; the data has {list(task.columns)}.")
    return heads


def resized(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """The same normalisation for pictures of another side."""
    return dataclasses.replace(preprocessing, size=size)


def adopt_backbone(params: Tree, stats: Tree, model: TrainedModel, spec: NetworkSpec) -> tuple[Tree, Tree]:
    """Fresh parameters with the backbone replaced by a trained model's; the heads stay fresh.

    Raises:
      InputError: the model is of another architecture or width.
    """
    if (model.spec.backbone, dict(model.spec.options)) != (spec.backbone, dict(spec.options)):
        raise InputError(
            f"config.student.init is a {model.spec.backbone} with options {dict(model.spec.options)} ({model.origin}), "
            f"but config.student asks for a {spec.backbone} with options {dict(spec.options)}."
        )
    adopted_stats = {**stats, "backbone": model.stats["backbone"]} if "backbone" in stats else stats
    return {**params, "backbone": model.params["backbone"]}, adopted_stats


def correlations(affect_loss: str, targets: Iterable[str]) -> str:
    """What compares the examples of a batch in the losses of these targets, for `Phase.relational`."""
    return f"config.affect_loss={affect_loss}" if affect_loss in CORRELATIONS and "valence_arousal" in targets else ""


def teacher_gradients(
    losses: Callable[[Float[Array, "B D"]], Float[Array, "B K"]], outputs: Float[Array, "B D"], teachers: int
) -> Float[Array, "B K D"]:
    """Gradient of each teacher's loss with respect to the student's outputs, for AEKD."""
    _, backward = jax.vjp(losses, outputs)
    rows = outputs.shape[0]
    one_hot = jnp.eye(teachers, dtype=outputs.dtype)
    return jnp.stack(
        [backward(jnp.broadcast_to(one_hot[k][None], (rows, teachers)))[0] for k in range(teachers)], axis=1
    )


def targets(batch: Batch, column: str = "expression") -> tuple[Array, Bool[Array, " B"]]:
    """Targets of a classifying column (ids [B], or vote distributions [B, C]) and which rows have one."""
    if column == "expression" and "votes" in batch:
        return batch["votes"], batch["mask"] & (batch["votes"].sum(-1) > 0)
    return batch[column], batch["mask"] & (batch[column] >= 0)


def accuracy(logits: Float[Array, "B C"], labels: Array, rows: Bool[Array, " B"]) -> Measure:
    """1 where the likeliest class is the label (the majority, for votes), else 0; of the rows that have one."""
    ids = labels.argmax(-1) if labels.ndim == 2 else labels
    return Measure((logits.argmax(-1) == ids.astype(jnp.int32)).astype(jnp.float32), rows)


def create_linear(key: Array, inputs: int, outputs: int) -> Tree:
    """A linear map's fresh parameters: LeCun-normal kernel, zero bias."""
    kernel = jax.nn.initializers.lecun_normal()(key, (inputs, outputs), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros((outputs,), jnp.float32)}


def linear(params: Tree, features: Float[Array, "B D"]) -> Float[Array, "B E"]:
    """Applies a linear map."""
    return features @ params["kernel"] + params["bias"][None]


def create_network(spec: NetworkSpec | MultimodalSpec, config: ml_collections.ConfigDict, name: str) -> Functional:
    """The functional form of a network of this run, with `config.precision` and `config.remat`, under its name there.

    Raises:
      InputError: the precision is unknown.
    """
    choose(PRECISIONS, config.precision, "config.precision")
    return functional(spec, precision=config.precision, remat=config.remat, name=name)


def create_teachers(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> list[Teacher]:
    """The teachers of `config.teachers`, in order of their names.

    Raises:
      InputError: a teacher has neither weights nor a task of its own to learn.
    """
    teachers = []
    for name in sorted(config.teachers):
        section = config.teachers[name]
        model = models.get(name)
        if model is not None:
            spec = model.spec
        elif section.task:
            if section.task not in task.classes:
                raise InputError(
                    f"config.teachers.{name}.task is {section.task!r}, but the data has {sorted(task.classes)}."
                )
            spec = create_spec(section, heads={section.task: len(task.classes[section.task])}, task=task)
        else:
            raise InputError(
                f"Teacher {name!r} has no weights: give config.teachers.{name}.checkpoint (a model folder or a weights "
                f"file), .answers (a file of its answers), .train (the configuration that trains it), or .task (a "
                f"column that it learns in this run)."
            )
        learns = model is None or section.tuning == "full"
        if section.tuning not in ("linear_probe", "full"):
            raise InputError(f"config.teachers.{name}.tuning must be linear_probe or full, not {section.tuning!r}.")
        if learns and isinstance(spec, AnswersSpec):
            raise InputError(f"config.teachers.{name}: answers from a file cannot learn; tuning must be linear_probe.")
        network = None if isinstance(spec, AnswersSpec) else create_network(spec, config, name)
        teachers.append(Teacher(name, spec, network, model, learns))
    return teachers


def networks_of(teachers: Sequence[Teacher]) -> dict[str, NetworkSpec]:
    """The architecture of each teacher that has one here; those known by a file of answers are left out."""
    return {teacher.name: teacher.spec for teacher in teachers if isinstance(teacher.spec, NetworkSpec)}


def frozen_features(teachers: Sequence[Teacher], constants: Tree, batch: Batch, view: View) -> dict[str, Array]:
    """The features of every teacher that never learns and is asked live: what a teacher cache stores."""
    asked = [teacher for teacher in teachers if teacher.network and not teacher.learns]
    return {
        t.name: t.signals(constants[t.name]["params"], constants[t.name]["stats"], batch, view)[0].features
        for t in asked
    }


def create_spec(section: ml_collections.ConfigDict, heads: Mapping[str, int], task: Task) -> NetworkSpec:
    """The network of a configuration section with `backbone`, `options`, `size` (0: the backbone's own), `dropout`."""
    options = section.options.to_dict()
    spec = NetworkSpec(
        backbone=section.backbone,
        options=options,
        heads=dict(heads),
        classes={name: tuple(task.classes[name]) for name in heads if name in task.classes},
        dropout=section.get("dropout", 0.0),
    )
    preprocessing = functional(spec).module.backbone.preprocessing
    if section.get("size", 0):
        preprocessing = resized(preprocessing, section.size)
    return dataclasses.replace(spec, preprocessing=preprocessing)


def takes_part(section: ml_collections.ConfigDict) -> bool:
    """Whether a section of `config.phases` is a phase of the run: it is enabled, and its duration is not 0."""
    return section.enabled and not any(section.get(f"duration_{unit}") == 0 for unit in UNITS)


def create_phase(
    name: str,
    section: ml_collections.ConfigDict,
    task: Task,
    objective: Objective,
    learns: Mapping[str, float],
    *,
    data: str = "labelled",
    **options,
) -> Phase | None:
    """A phase from its section of `config.phases`, or None where it is left out.

    A group whose multiplier is 0 rests: it is not differentiated at all. A warm-up that is shorter than the phase stays
    so when it is rounded: a phase of 1 step has none.

    Raises:
      InputError: a duration or the learning rate is not one, or the warm-up is as long as the phase.
    """
    learns = {group: multiplier for group, multiplier in learns.items() if multiplier}
    if not takes_part(section) or not learns:
        return None
    key = f"config.phases.{name}."
    length = functools.partial(
        duration, section, steps_per_epoch=task.steps_per_epoch(data), batch_size=task.batch_size, section=key
    )
    steps = length("duration")
    warmup = length("warmup", total_steps=steps, below=steps)
    if warmup >= steps:
        raise InputError(
            f"{key}warmup_*: a warm-up of {warmup} steps leaves nothing of a phase of {steps}; shorten the warm-up, or "
            "set it to 0."
        )
    if steps == 1 and not section.get("duration_steps"):
        logging.info("Phase %s is 1 step: its duration is no more than that of a batch of %d.", name, task.batch_size)
    check_range(f"{key}learning_rate", section.learning_rate, 0)
    return Phase(
        name=name,
        objective=objective,
        learns=learns,
        steps=steps,
        learning_rate=learning_rate_schedule(section.learning_rate, steps, warmup, section.schedule),
        data=data,
        **options,
    )
