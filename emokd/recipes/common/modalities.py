"""Modalities of a recipe: specifications, encoders, statistics of arrays, subsets, and modality dropout."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool

from emokd.errors import InputError, nearest
from emokd.models.multimodal import ModalitySpec, MultimodalSpec, is_present
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.phase import Batch, Tree
from emokd.recipes.common import standardize
from emokd.recipes.common.networks import resized
from emokd.recipes.common.task import Task

Specs = Mapping[str, ModalitySpec]
STANDARDIZE = ("columns", "all")
MOST_SUBSETS = 4  # up to so many modalities all subsets are scored


def create_specs(config: ml_collections.ConfigDict, task: Task) -> dict[str, ModalitySpec]:
    """The modalities of `config.modalities` in the order of their names.

    Raises:
      InputError: there is none, or one reads an input that the data does not have; the nearest is named.
    """
    if not config.modalities:
        raise InputError("config.modalities is empty: add one with emokd.configuration.defaults.modality.")
    return {name: _create_spec(name, config.modalities[name], task) for name in sorted(config.modalities)}


def _create_spec(name: str, section: ml_collections.ConfigDict, task: Task) -> ModalitySpec:
    inputs = {**task.inputs, "image": ()}
    if section.input not in inputs:
        raise InputError(
            f"config.modalities.{name}.input is {section.input!r}, which the data does not have."
            f"{nearest(section.input, inputs)} It has: {', '.join(sorted(task.inputs)) or 'pictures alone'}."
        )
    if section.standardize not in STANDARDIZE:
        raise InputError(
            f"config.modalities.{name}.standardize is {section.standardize!r}."
            f"{nearest(section.standardize, STANDARDIZE)} Known: {', '.join(STANDARDIZE)}."
        )
    options, shape = section.options.to_dict(), task.inputs.get(section.input, ())
    if section.input != "image" and len(shape) != 4:
        return ModalitySpec(section.input, tuple(shape), section.backbone, options, None, section.standardize)
    native = functional(NetworkSpec(section.backbone, options)).module.backbone.preprocessing
    size = section.size or native.size
    sides = (size, size, native.channels)
    shape = sides if section.input == "image" else (shape[0], *sides)
    preprocessing = resized(native, size)
    return ModalitySpec(section.input, shape, section.backbone, options, preprocessing, section.standardize)


def visible(config: ml_collections.ConfigDict, specs: Specs) -> dict[str, ModalitySpec]:
    """The modalities that the student sees: those that are not privileged.

    Raises:
      InputError: there are none.
    """
    unprivileged = {name: spec for name, spec in specs.items() if not config.modalities[name].privileged}
    if not unprivileged:
        raise InputError("Every modality is privileged, so the student would see nothing: set one's privileged=False.")
    return unprivileged


def create_network_spec(
    config: ml_collections.ConfigDict,
    specs: Specs,
    hallucinated: Sequence[str],
    heads: Mapping[str, int],
    task: Task,
) -> MultimodalSpec:
    """A network over these modalities, with the configuration's fusion."""
    return MultimodalSpec(
        modalities=dict(specs),
        hallucinated=tuple(hallucinated),
        width=config.width,
        fusion=config.fusion.name,
        fusion_options=config.fusion.options.to_dict(),
        hallucination=config.hallucination.options.to_dict(),
        heads=dict(heads),
        classes={name: tuple(task.classes[name]) for name in heads if name in task.classes},
        dropout=config.dropout,
    )


def adopt_encoders(params: Tree, stats: Tree, models: Mapping[str, TrainedModel], specs: Specs) -> tuple[Tree, Tree]:
    """Replaces the backbones of encoders by those of trained models, where there are some, in fresh parameters.

    Raises:
      InputError: a model is of another architecture.
    """
    for name in specs:
        model = models.get(name)
        if model is None:
            continue
        if (model.spec.backbone, dict(model.spec.options)) != (specs[name].backbone, dict(specs[name].options)):
            raise InputError(
                f"config.modalities.{name}.init is a {model.spec.backbone} with options {dict(model.spec.options)} "
                f"({model.origin}), but the encoder is a {specs[name].backbone} with {dict(specs[name].options)}."
            )
        params = _replace_encoder(params, name, {"backbone": model.params["backbone"]})
        if model.stats.get("backbone"):
            stats = _replace_encoder(stats, name, {"backbone": model.stats["backbone"]})
    return params, stats


def take_encoders(tree: Tree, other: Tree, names: Sequence[str]) -> Tree:
    """Copies the encoders `names` of another network into a network's own parameters, or statistics."""
    for name in names:
        if name in other.get("encoders", {}):
            tree = _replace_encoder(tree, name, other["encoders"][name])
    return tree


def _replace_encoder(tree: Tree, name: str, values: Tree) -> Tree:
    encoders = tree.get("encoders", {})
    return {**tree, "encoders": {**encoders, name: {**encoders.get(name, {}), **values}}}


def fit_standardizers(
    specs: Specs, batches: Iterable[Batch], names: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Tree]:
    """Mean and deviation of each array modality over a data set, in one pass; missing entries do not count.

    The log names the columns that are dead, and those with values far out.

    Args:
      specs: the modalities.
      batches: the data set.
      names: for each input the names of its columns, for the log.

    Returns:
      For each array modality {"mean", "std"}, [columns] or [] as its `standardize` says.

    Raises:
      InputError: a modality is missing from every example, or a column of it is infinite.
    """
    arrays = {name: spec for name, spec in specs.items() if spec.preprocessing is None}
    if not arrays:
        return {}
    keys = {"mask", *(spec.input for spec in arrays.values())}

    def select(weights: Tree, batch: Batch) -> standardize.Measured:
        del weights  # an array is measured as it is
        measured = {}
        for name, spec in arrays.items():
            values = batch[spec.input].astype(jnp.float32)
            rows = batch["mask"].reshape(-1, *(1,) * (values.ndim - 1))
            measured[name] = (values, ~jnp.isnan(values) & jnp.broadcast_to(rows, values.shape))
        return measured

    selected = ({key: batch[key] for key in keys} for batch in batches)
    moments_by_name, everywhere = standardize.measure(select, {}, selected)
    if not moments_by_name:
        raise InputError("There is no training example to take statistics of the modalities from.")
    fitted = {}
    for name, moments in moments_by_name.items():
        spec = arrays[name]
        together = moments.pooled() if spec.standardize == "all" else None
        _check_there(name, spec, moments if together is None else together)
        standardize.check_finite(f"Modality {name!r} ({spec.input}): values", moments)
        standardize.remark(f"Modality {name!r} ({spec.input})", moments, (names or {}).get(spec.input, ()), together)
        statistics = moments.statistics() if together is None else together.statistics()
        fitted[name] = statistics if together is None else {key: value[0] for key, value in statistics.items()}
    return jax.device_put(fitted, everywhere)


def _check_there(name: str, spec: ModalitySpec, moments: standardize.Moments) -> None:
    if not moments.number.any():
        raise InputError(
            f"Modality {name!r} ({spec.input}) has no value in any training example. Leave the modality out of "
            "config.modalities, or correct the data."
        )


def set_standardizers(stats: Tree, fitted: Mapping[str, Tree]) -> Tree:
    """Puts the fitted statistics of array modalities into a network's statistics."""
    for name, values in fitted.items():
        if name in stats.get("encoders", {}):
            stats = _replace_encoder(stats, name, {"standardizer": values})
    return stats


def drop(key: Array, batch: Batch, specs: Specs, rate: float) -> Bool[Array, "B M"] | None:
    """Modality dropout: which modalities each example keeps, at least one that it has. None where the rate is 0."""
    if rate == 0 or len(specs) == 1:
        return None
    present = jnp.stack([is_present(batch[spec.input]) for spec in specs.values()], axis=1)
    keep_key, spare_key = jax.random.split(key)
    keep = present & jax.random.bernoulli(keep_key, 1 - rate, present.shape)
    order = jnp.where(present, jax.random.uniform(spare_key, present.shape), -1.0)
    spare = jax.nn.one_hot(order.argmax(1), len(specs), dtype=bool)
    return jnp.where(keep.any(1, keepdims=True), keep, spare)


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The proper subsets of the modalities, smallest first; of more than `MOST_SUBSETS`, only those that lack one."""
    sizes = range(1, len(names)) if len(names) <= MOST_SUBSETS else [len(names) - 1]
    return [subset for size in sizes for subset in itertools.combinations(names, size)]


def keep_only(kept: Sequence[str], names: Sequence[str], rows: int) -> Bool[Array, "B M"]:
    """The mask that leaves every example the modalities `kept` of `names`."""
    return jnp.broadcast_to(jnp.array([name in kept for name in names])[None], (rows, len(names)))
