"""Teachers: networks, or files of answers, that the student learns from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from emokd.data.augment import View
from emokd.errors import InputError
from emokd.models.answers import AnswersSpec
from emokd.models.network import Functional, NetworkSpec, TrainedModel, attach_heads
from emokd.phase import Batch, Tree
from emokd.recipes.common.linear import linear
from emokd.recipes.common.networks import create_network, create_spec
from emokd.recipes.common.task import Task
from emokd.recipes.common.views import see
from emokd.signals import Signals


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher: a network, and its weights unless this run trains them.

    Attributes:
      name: its name in the configuration, and its column in the weighting.
      spec: architecture, heads, input size and normalisation; or what a file of its answers holds.
      network: the functional form of `spec`; None where there are answers alone.
      model: weights read from a file, or None.
      learns: whether the run trains this teacher, in some phase.
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
        return self._functional.module.backbone.feature_size

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """The parameters and statistics that it begins with: those of its file, or fresh ones."""
        return self._functional.init(key) if self.model is None else (self.model.params, self.model.stats)

    def signals(
        self, params: Tree, stats: Tree, batch: Batch, view: View, *, train: bool = False, key: Array | None = None
    ) -> tuple[Signals, Tree]:
        """The teacher's signals for a view, and its statistics after it.

        Where the batch holds the teacher's cached features they are only features and the outputs of heads, and the
        network does not run. Answers from a file are those for the batch's own (id, view), whatever `view` is.
        """
        if isinstance(self.spec, AnswersSpec):
            return self.spec.signals(batch[f"features/{self.name}"]), stats
        cached = batch.get(f"features/{self.name}")
        if cached is not None and not train:
            features = cached.astype(jnp.float32)
            heads = {name: linear(head, features) for name, head in params.get("heads", {}).items()}
            return attach_heads(Signals(features=features), heads), stats
        return self._functional(params, stats, see(self.spec, batch, view), train=train, key=key)

    @property
    def _functional(self) -> Functional:
        assert self.network is not None  # only answers come without a network, and they are read, not computed
        return self.network


def create_teachers(config: ml_collections.ConfigDict, task: Task, models: Mapping[str, TrainedModel]) -> list[Teacher]:
    """The teachers of `config.teachers`, in order of their names.

    Raises:
      InputError: a teacher has neither weights nor a task of its own to learn, or an option is unknown.
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


def frozen_weights(teachers: Sequence[Teacher]) -> Tree:
    """The parameters and statistics of every frozen teacher, by name, for `Recipe.constants`."""
    return {
        teacher.name: {"params": teacher.model.params, "stats": teacher.model.stats}
        for teacher in teachers
        if teacher.model is not None and not teacher.learns
    }


def networks_of(teachers: Sequence[Teacher]) -> dict[str, NetworkSpec]:
    """The specification of each teacher that is a network; teachers from a file of answers are left out."""
    return {teacher.name: teacher.spec for teacher in teachers if isinstance(teacher.spec, NetworkSpec)}


def features_of_frozen(teachers: Sequence[Teacher], constants: Tree, batch: Batch, view: View) -> dict[str, Array]:
    """The features [B, D] of every frozen teacher that is a network, by name: what a teacher cache stores."""
    asked = [teacher for teacher in teachers if teacher.network and not teacher.learns]
    answers = {
        t.name: t.signals(constants[t.name]["params"], constants[t.name]["stats"], batch, view)[0] for t in asked
    }
    return {name: signals.require("features") for name, signals in answers.items()}


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
