"""A run's folder: whose configuration it holds, and files written whole or not at all."""

import pathlib

import jax
import ml_collections

from emokd import config as configuration
from emokd import recipes
from emokd.errors import InputError, excerpt

# Keys that change how a run works, not what it computes: they may differ when it is continued.
OPERATIONAL = (
    "log.",
    "data.num_threads",
    "data.dir",
    "data.extra.dir",
    "data.in_memory",
    "devices",
    "mesh.",
    "sharding.",
    "checkpoint.",
)


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Makes `workdir` this configuration's, or raises InputError naming the keys in which the run there differs."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    if not path.exists():
        if jax.process_index() == 0:
            write_atomically(path, configuration.to_json(config))
        return
    stored = read_config(path)
    differing = [
        key for key in configuration.differing_keys(with_defaults(config), stored) if not key.startswith(OPERATIONAL)
    ]
    if differing:
        raise InputError(
            f"{workdir} holds a run of another configuration; these keys differ: {excerpt(differing)}. "
            f"Use another --workdir, or the configuration in {path}."
        )


def read_config(path: pathlib.Path) -> ml_collections.ConfigDict:
    """A run's configuration; a key that came with a newer emokd was at its default then."""
    return with_defaults(configuration.from_json(path.read_text()))


def with_defaults(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration with what its recipe reads and it lacks, at the defaults."""
    if "recipe" not in config:
        return config
    return configuration.with_missing(config, recipes.find(config.recipe).default_config())


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
