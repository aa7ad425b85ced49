"""The student of a recipe on pictures: one network, and the weights from which it starts."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from emokd.data.augment import View
from emokd.errors import InputError
from emokd.models.network import Functional, NetworkSpec, TrainedModel
from emokd.models.rounding import RANGES
from emokd.phase import Batch, Prepare, Tree
from emokd.recipes.common import quantizing
from emokd.recipes.common.networks import create_network, create_spec
from emokd.recipes.common.task import Task
from emokd.recipes.common.views import centre, see
from emokd.signals import Signals

GROUPS = {"student_backbone": r"student/backbone/.*", "student_head": r"student/heads/.*"}
"""The student's parameter groups, for `Recipe.groups`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """The network that learns.

    Attributes:
      spec: architecture, heads, input size and normalisation.
      network: the functional form of `spec`.
      model: the trained model whose backbone it starts from, or None.
    """

    spec: NetworkSpec
    network: Functional
    model: TrainedModel | None

    @property
    def feature_size(self) -> int:
        """Width of the student's features."""
        return self.network.module.backbone.feature_size

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh parameters and statistics, the backbone's replaced by the trained model's; the heads stay fresh.

        Raises:
          InputError: the model is of another architecture or width.
        """
        params, stats = self.network.init(key)
        if self.model is None:
            return params, stats
        init, wanted = self.model.spec, self.spec
        if (init.backbone, dict(init.options)) != (wanted.backbone, dict(wanted.options)):
            raise InputError(
                f"config.student.init is a {init.backbone} with options {dict(init.options)} ({self.model.origin}), "
                f"but config.student asks for a {wanted.backbone} with options {dict(wanted.options)}."
            )
        adopted_stats = {**stats, "backbone": self.model.stats["backbone"]} if "backbone" in stats else stats
        return {**params, "backbone": self.model.params["backbone"]}, adopted_stats

    def signals(
        self,
        params: Tree,
        stats: Tree,
        batch: Batch,
        view: View,
        *,
        train: bool = False,
        key: Array | None = None,
        integers: bool = False,
    ) -> tuple[Signals, Tree]:
        """The student's signals for a view of the batch, and its statistics after it; `integers` as in `Functional`."""
        return self.network(params, stats, see(self.spec, batch, view), train=train, key=key, integers=integers)

    def last_phase(self, multiplier: float) -> dict[str, bool]:
        """How `signals` learns in the recipe's last phase: BatchNorm's statistics rest with a backbone that does.

        Args:
          multiplier: of the backbone's learning rate.
        """
        return {"train": multiplier > 0 and not self.spec.quantized, "integers": self.spec.quantized}

    def answers(self, params: Tree, stats: Tree, batch: Batch, view: View) -> Signals:
        """The signals that are scored: those of simulated integers once the ranges have been taken."""
        floating, _ = self.signals(params, stats, batch, view)
        if not self.spec.quantized:
            return floating
        rounded, _ = self.signals(params, stats, batch, view, integers=True)
        taken = quantizing.are_taken(stats)
        return jax.tree.map(lambda x, y: jnp.where(taken, x, y), rounded, floating)

    @property
    def prepare(self) -> Prepare | None:
        """What prepares the phase in which it learns to compute in integers; None where it does not."""
        return self._take_ranges if self.spec.quantized else None

    def _take_ranges(self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch]) -> tuple[Tree, Tree]:

        def look(weights: tuple[Tree, Tree], batch: Batch) -> None:
            self.signals(*weights, batch, centre(batch))

        ranges = quantizing.take_ranges(look, (params["student"], stats["student"]), batches)
        return params, {**stats, "student": {**stats["student"], RANGES: ranges}}


def create_student(
    config: ml_collections.ConfigDict, heads: Mapping[str, int], task: Task, models: Mapping[str, TrainedModel]
) -> Student:
    """The student of `config.student` with these heads; it starts from the model "student", where there is one.

    Raises:
      InputError: an option is unknown, or the student is to be quantised and cannot.
    """
    spec = create_spec(config.student, heads, task, quantized=quantizing.is_wanted(config))
    return Student(spec, create_network(spec, config, "student"), models.get("student"))


def extract_student(params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """The student's own parameters and statistics, for `Recipe.extract`."""
    return params["student"], stats["student"]
