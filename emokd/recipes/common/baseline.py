"""What distillation is compared with: the student of a recipe, trained on labels alone for as many steps.

Any recipe has it, one's own included: all that it needs is in the `Recipe`. The network, its initial parameters, data,
order and views are the student's. Its steps are those of all phases in which the student learns, so that what a teacher
adds is not merely that the student was trained for longer. [ours]
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from jaxtyping import Array, Float

from emokd.data.augment import View, centre_views
from emokd.errors import InputError
from emokd.losses import affect
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import Functional, NetworkSpec
from emokd.phase import Batch, Context, Measure, Outcome, Phase, Recipe, Term, Tree, label_parameters, path_string
from emokd.recipes.common import classification, modalities, views
from emokd.recipes.common.networks import create_network
from emokd.recipes.common.task import Task, accuracy, choose, targets
from emokd.signals import Signals

PHASE = "baseline"

AffectLoss = Callable[..., Float[Array, " B"]]
"""(prediction [B, 2], target [B, 2], key, *, mask) -> the loss of each example."""


def create_baseline(recipe: Recipe, config: ml_collections.ConfigDict, task: Task) -> Recipe:
    """The recipe of one phase that trains the student of another recipe on labels alone.

    Each of the student's groups learns with the multiplier of the last phase in which it learns. The learning rate
    follows the last phase in which any of them learns, stretched over all steps; `config.baseline.learning_rate` is its
    highest value, and 0 leaves that phase's.

    Args:
      recipe: with every phase that teaches the student.
      config: the run's configuration.
      task: what the data offers.

    Raises:
      InputError: the student learns in no phase, the data has a label for none of its heads, or the learning rate that
        is to be scaled is 0 throughout.
    """
    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    groups, _ = recipe.extract(label_parameters(params, recipe.groups), stats)
    patterns = _patterns(groups)
    sources = {group: {group, recipe.adopts.get(group, group)} for group in patterns}
    phases = [phase for phase in recipe.phases if any(phase.learns.keys() & origins for origins in sources.values())]
    if not phases:
        raise InputError(
            "config.baseline.enabled: the student learns in no phase of this run, so there is nothing to compare. "
            "Set it to False."
        )
    learns: dict[str, float] = {}
    for phase in phases:
        learns |= {
            group: max(phase.learns[g] for g in origins & phase.learns.keys())
            for group, origins in sources.items()
            if origins & phase.learns.keys()
        }
    steps = sum(phase.steps for phase in phases)
    spec = recipe.student_spec
    method = Baseline(
        spec=spec,
        heads=_heads(spec, task),
        network=create_network(spec, config, "student"),
        rests=learns.keys() != patterns.keys(),
        draw_views=views.create_sampler(config.data),
        cross_entropy=_cross_entropy(config, task),
        affect_loss=_affect_loss(config.get("affect_loss", "ccc")),
        modality_dropout=config.get("modality_dropout", 0.0),
        mirror=config.get("mirror", False),
        columns=task.names,
    )
    phase = dataclasses.replace(
        phases[-1],
        name=PHASE,
        objective=method.learn,
        learns=learns,
        steps=steps,
        learning_rate=_learning_rate(phases[-1], steps, config.baseline.learning_rate),
        scored=True,
        data="labelled",
        prepare=method.begin if isinstance(spec, MultimodalSpec) else None,
        remark=None,
    )
    logging.info(
        "config.baseline: the student's network learns from labels alone as well, for the %d steps of %s.",
        *(steps, ", ".join(phase.name for phase in phases)),
    )

    def init(key: Array) -> tuple[Tree, Tree]:
        params, stats = recipe.extract(*recipe.init(key))
        return {"student": params}, {"student": stats}

    return Recipe(
        groups=patterns,
        phases=[phase],
        init=init,
        constants={},
        predict=method.predict,
        teachers=[],
        weighting=None,
        extract=lambda params, stats: (params["student"], stats["student"]),
        student_spec=spec,
        networks={"student": spec},
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """Training on labels alone, of a network on pictures or of several modalities.

    Attributes:
      spec: architecture, heads, input size and normalisation.
      heads: those that the data has a label for.
      network: the functional form of `spec`.
      rests: whether a part of it rests, and with it the BatchNorm statistics.
      draw_views: a batch's augmented views.
      cross_entropy: the loss of classes.
      affect_loss: the loss of valence and arousal.
      modality_dropout: how often a modality is hidden in training.
      mirror: whether valence and arousal are averaged with the mirrored picture's when scoring.
      columns: the names of the columns of inputs that are tables, where they are known.
    """

    spec: NetworkSpec | MultimodalSpec
    heads: tuple[str, ...]
    network: Functional
    rests: bool
    draw_views: Callable[[Batch], View]
    cross_entropy: classification.CrossEntropy
    affect_loss: AffectLoss
    modality_dropout: float
    mirror: bool
    columns: Mapping[str, tuple[str, ...]]

    def begin(self, params: Tree, stats: Tree, constants: Tree, batches: Iterable[Batch]) -> tuple[Tree, Tree]:
        """Takes the statistics of the arrays that it reads."""
        assert isinstance(self.spec, MultimodalSpec)  # pictures have no such statistics
        fitted = modalities.fit_standardizers(self.spec.modalities, batches, self.columns)
        return params, {**stats, "student": modalities.set_standardizers(stats["student"], fitted)}

    def learn(self, params: Tree, stats: Tree, constants: Tree, batch: Batch, context: Context) -> Outcome:
        """Objective: the labels."""
        drop_key, dropout_key, mixture_key = jax.random.split(context.key, 3)
        shown: tuple[Array | None, ...] = ()
        if isinstance(self.spec, MultimodalSpec):
            shown = (modalities.drop(drop_key, batch, self.spec.modalities, self.modality_dropout),)
        inputs = views.see(self.spec, batch, self.draw_views(batch))
        signals, new_stats = self.network(
            params["student"], stats["student"], inputs, *shown, train=not self.rests, key=dropout_key
        )
        terms: dict[str, Term] = {}
        metrics: dict[str, Array | Measure] = {}
        for head in self.heads:
            labels, rows = targets(batch, head)
            if head == "valence_arousal":
                values = self.affect_loss(signals.valence_arousal, labels, mixture_key, mask=rows)
            else:
                logits = signals.logits if head == "expression" else signals.intermediates[head]
                values = self.cross_entropy(logits, labels, head)
                metrics[f"accuracy/{head}"] = accuracy(logits, labels, rows)
            terms[head] = Term(values, rows)
        return Outcome(terms, {**stats, "student": new_stats}, metrics=metrics)

    def predict(self, params: Tree, stats: Tree, constants: Tree, batch: Batch) -> dict[str, Signals]:
        """The network's signals for the evaluation view; affect with the mirrored one's on demand."""
        rows = batch["id"].shape[0]

        def look(mirrored: bool) -> Signals:
            inputs = views.see(self.spec, batch, centre_views(rows, mirrored=mirrored))
            return self.network(params["student"], stats["student"], inputs)[0]

        signals = look(False)
        return {"student": views.average_affect(signals, look(True)) if self.mirror else signals}


def _patterns(groups: Tree) -> dict[str, str]:
    """The student's groups as patterns over the paths of {"student": its parameters}."""
    paths: dict[str, list[str]] = {}
    for path, group in jax.tree_util.tree_leaves_with_path({"student": groups}):
        paths.setdefault(group, []).append(re.escape(path_string(path)))
    return {group: "|".join(names) for group, names in paths.items()}


def _heads(spec: NetworkSpec | MultimodalSpec, task: Task) -> tuple[str, ...]:
    heads = tuple(head for head in spec.heads if head in task.columns or head in task.classes)
    if not heads:
        raise InputError(
            f"config.baseline.enabled: the student has the heads {list(spec.heads)}, but the data has labels for "
            f"{list(task.columns)}, so it cannot learn from labels. Set it to False."
        )
    return heads


def _cross_entropy(config: ml_collections.ConfigDict, task: Task) -> classification.CrossEntropy:
    """That of the recipe; one's own recipe may know neither smoothing nor weights of classes."""
    defaults = {"label_smoothing": 0.0, "class_weights": "none"}
    settings = {name: config.get(name, default) for name, default in defaults.items()}
    return classification.create_cross_entropy(ml_collections.ConfigDict(settings), task)


def _affect_loss(name: str) -> AffectLoss:
    if name == "emonet":
        return affect.emonet_mixture
    loss = choose(affect.AFFECT_LOSSES, name, "config.affect_loss")
    return lambda prediction, target, key, *, mask: loss(prediction, target, mask=mask)


def _learning_rate(last: Phase, steps: int, peak: float) -> Callable[[Array], Array]:
    """The schedule of a phase stretched over so many steps, and scaled to a highest value unless that is 0."""
    factor = 1.0
    if peak:
        highest = float(jnp.max(jax.vmap(last.learning_rate)(jnp.arange(last.steps, dtype=jnp.float32))))
        if not highest:
            raise InputError(
                f"config.baseline.learning_rate is {peak}, the highest value of the schedule of phase {last.name}, but "
                "that phase's own learning rate is 0. Give it one."
            )
        factor = peak / highest
    if last.steps == steps and factor == 1.0:
        return last.learning_rate
    return lambda step: factor * last.learning_rate(jnp.asarray(step, jnp.float32) * (last.steps / steps))
