"""Trains, or continues, the job that a configuration describes.

    python -m emokd.train --config=configs/smkd/quickstart.py --workdir=runs/quickstart [--config.seed=1]
"""

import json
import pathlib

import jax
import ml_collections
from absl import flags, logging

from emokd import config as configuration
from emokd import job as jobs
from emokd.command import run
from emokd.errors import InputError, excerpt
from emokd.models.cost import describe
from emokd.reporting.scoreboard import scoreboard
from emokd.training import loop
from emokd.weights import model_folder

# Keys that change how a run works, not what it computes: they may differ when it is continued.
OPERATIONAL = ("log.", "data.num_threads", "data.dir", "data.extra.dir", "data.in_memory", "devices", "checkpoint.")


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict:
    """Runs the job in `workdir`, continuing it if it has begun; returns the scores, also in `scores.json`.

    Raises:
      InputError: the input is wrong, or `workdir` holds a run of another configuration.
    """
    workdir = pathlib.Path(workdir)
    claim(workdir, config)
    if (workdir / "scores.json").exists():
        logging.info("%s is done already.", workdir)
        return json.loads((workdir / "scores.json").read_text())

    def train_teacher(file: str, name: pathlib.Path) -> pathlib.Path:
        logging.info("Training teacher %s with %s.", name, file)
        folder = workdir / "teachers" / name
        train(configuration.load(file), folder)
        return folder / "student"

    job = jobs.create_job(config, train_teacher)
    state, scores = loop.train(job, workdir)
    for name, entry in {"student": scores["student"], **scores["teachers"]}.items():
        entry |= describe(job.recipe.networks[name])
    params, stats = job.recipe.extract(*jax.device_get((state.params, state.stats)))
    if jax.process_index() == 0:
        provenance = {"config": configuration.to_json(config), "step": int(state.step), "split": scores["split"]}
        model_folder.save_model(workdir / "student", job.recipe.student_spec, params, stats, provenance)
        write_atomically(workdir / "scores.json", json.dumps(scores, indent=2))
    return scores


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Makes `workdir` this configuration's, or raises InputError naming the keys in which the run there differs."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    if not path.exists():
        if jax.process_index() == 0:
            write_atomically(path, configuration.to_json(config))
        return
    differing = [
        key
        for key in configuration.differing_keys(config, configuration.from_json(path.read_text()))
        if not key.startswith(OPERATIONAL)
    ]
    if differing:
        raise InputError(
            f"{workdir} holds a run of another configuration; these keys differ: {excerpt(differing)}. "
            f"Use another --workdir, or the configuration in {path}."
        )


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


CONFIG = configuration.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs, scores and the student.", required=True)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    config = CONFIG.value
    for line in configuration.diff(config, configuration.load(configuration.file_of(CONFIG))):
        logging.info("config: %s", line)
    scores = train(config, WORKDIR.value)
    print(scoreboard(scores))
    print(f"\nWorkdir: {pathlib.Path(WORKDIR.value).absolute()}")


if __name__ == "__main__":
    run(main)
