"""A run's data: its splits, its unlabelled pictures, and the centre and unit in which its arrays are read."""

import pathlib
from collections.abc import Mapping

import ml_collections
from absl import logging

from emokd.data import reference, sources
from emokd.data.division import splits
from emokd.data.division.duplicates import Duplicates
from emokd.data.division.label_limit import limit_labels
from emokd.data.examples import Examples
from emokd.jobs import predecessor
from emokd.training.loop import UNLABELLED

Data = tuple[dict[str, Examples], Examples | None]
"""The splits, and the unlabelled pictures where there are any. Among the splits are the training examples whose labels
may not be used (`loop.UNLABELLED`), where `config.data.labels` limits them."""


def load_splits(config: ml_collections.ConfigDict) -> dict[str, Examples]:
    """Reads the data set of `config.data`, splits it, and limits the labels of the training split.

    Raises:
      InputError: the source is unknown, its files are wrong, a split would be too small, or there are fewer labels than
        are asked for.
    """
    parts = divide(load_examples(config.data, config.data.canvas), config.data)
    section = config.data.labels
    labelled, rest = limit_labels(parts["train"], section.limit, section.seed, config.data.split.by_group)
    return {**parts, "train": labelled, **({} if rest is None else {UNLABELLED: rest})}


def divide(
    examples: Examples, data: ml_collections.ConfigDict, duplicates: Duplicates | None = None
) -> dict[str, Examples]:
    """Splits a data set as `data.split` says, and lets its source add what it fits on the training split.

    Args:
      examples: the whole set of `data.source`.
      data: the section `data` of a configuration.
      duplicates: the set's duplicates, where a search has found them already.

    Raises:
      InputError: a split would be too small.
    """
    section = data.split
    parts = splits.split(
        examples,
        {name: section[name] for name in ("train", "validation", "test")},
        section.seed,
        folds=section.folds,
        fold=section.fold,
        by_group=section.by_group,
        use_prescribed=section.use_prescribed,
        leave_one_group_out=section.leave_one_group_out,
        keep_leaks=section.keep_leaks,
        compare_copies=section.compare_copies,
        validation_is_test=section.validation_is_test,
        duplicates=duplicates,
    )
    return sources.finish(data.source, parts, data.options)


def load_examples(section: ml_collections.ConfigDict, canvas: int, *, targets: bool = True) -> Examples:
    """Reads the data set of a section with `source`, `dir` and `options`; JPEGs are decoded no larger than needed.

    Extra examples need no targets.
    """
    return sources.load(section.source, section.dir, section.options.to_dict(), min_side=canvas, targets=targets)


def load_unlabelled(config: ml_collections.ConfigDict) -> Examples | None:
    """The pictures without labels that belong to no split: those of `data.extra`, else those that the set itself has.

    Raises:
      InputError: as `load_examples`.
    """
    data, extra = config.data, config.data.extra
    own = sources.load_unlabelled(data.source, data.dir, data.options.to_dict(), min_side=data.canvas)
    if own and extra.source:
        logging.warning(
            "%s: its %d pictures without a label are not read, since config.data.extra names others.",
            *(own.name, len(own)),
        )
    return load_examples(extra, data.canvas, targets=False) if extra.source else own


def load_data(config: ml_collections.ConfigDict) -> Data:
    """The run's splits and, where it has any, its unlabelled pictures.

    Raises:
      InputError: as `load_splits` and `load_unlabelled`.
    """
    return load_splits(config), load_unlabelled(config)


def refer(
    config: ml_collections.ConfigDict, parts: Mapping[str, Examples], extra: Examples | None, start: pathlib.Path | None
) -> tuple[dict[str, Examples], Examples | None]:
    """The examples with the arrays of all splits relative to the training split's centre, in its units.

    A run that starts from another one keeps that one's centre and units.

    Args:
      config: its modalities say which arrays, and whether all columns of one share a centre and unit.
      parts: the splits.
      extra: the unlabelled examples, or None.
      start: the folder of the run that this one starts from, or None.
    """
    if start:
        references = predecessor.references(start)
    else:
        sections = config.get("modalities", {}).values()
        together: dict[str, bool] = {}
        for section in sections:
            together[section.input] = together.get(section.input, False) or section.standardize == "all"
        references = reference.fit(parts["train"], together)
    referred = {name: reference.refer(part, references) for name, part in parts.items()}
    return referred, extra and reference.refer(extra, references)
