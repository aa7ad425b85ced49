"""The training loop: phases in order, each one compiled program; resumes at any step, bit for bit."""

import collections
import contextlib
import dataclasses
import math
import pathlib
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from emokd.configuration.config import leaves
from emokd.configuration.durations import duration
from emokd.data.examples import Examples
from emokd.data.prefetch import DeviceIterator
from emokd.errors import excerpt
from emokd.phase import Phase, Recipe, Tree
from emokd.reporting.metrics_log import MetricsLog
from emokd.reporting.progress import Progress
from emokd.training import averaging, divergence, skipping
from emokd.training.checkpoints import Checkpoints, abstract_like
from emokd.training.distributed import agreed
from emokd.training.observing import Observer
from emokd.training.programs import PhaseStep, Programs
from emokd.training.scores import Scorer, flatten
from emokd.training.selection import Best
from emokd.training.sharding import check_batch_size
from emokd.training.state import State, enter, weights_for_use
from emokd.training.stopped import Stopped
from emokd.training.stopping import StopRequest
from emokd.training.streams import Attach, Streams
from emokd.training.teacher_weights import TeacherWeights
from emokd.training.waiting import STEPS_AHEAD, DataWait

UNLABELLED = "unlabelled"
"""Among a job's splits: training examples whose labels are not used."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A recipe on data.

    Attributes:
      config: the resolved configuration.
      recipe: phases, networks and what they learn.
      splits: "train", "validation" and "test" examples, and `UNLABELLED` ones that phases with data="all" read as well,
        where labels are limited.
      extra: unlabelled examples of another set that these phases read as well, or None.
      programs: what the recipe compiles to; runs of one process may share it.
      attach: adds cached teacher features to a host batch; the identity where nothing is cached.
      begin: parameters and statistics of another run to begin with, or None for fresh ones.
      baseline: the same student's training on labels alone, or None; `train` does not look at it.
    """

    config: ml_collections.ConfigDict
    recipe: Recipe
    splits: Mapping[str, Examples]
    extra: Examples | None
    programs: Programs
    attach: Attach = dict
    begin: tuple[Tree, Tree] | None = None
    baseline: "Job | None" = None

    def without_labels(self, phase: Phase) -> list[Examples]:
        """The sets that a phase reads besides the training split."""
        candidates = (self.splits.get(UNLABELLED), self.extra) if phase.data == "all" else ()
        return [examples for examples in candidates if examples is not None]


def train(job: Job, workdir: pathlib.Path) -> tuple[State, dict]:
    """Trains, or continues from the last checkpoint in `workdir`.

    Returns:
      (the state to keep: the best or the last one, scores of student and teachers with their weights)

    Raises:
      InputError: the batch does not fit the data or the devices, or the run has diverged.
      Stopped: SIGTERM or Ctrl-C came; the step that it names is saved.
    """
    run = _Run(job, workdir)
    try:
        return run.all_phases()
    except KeyboardInterrupt:
        # Between steps, as while a phase is compiled: the run goes on from what it has saved.
        run.checkpoints.wait()
        saved = run.checkpoints.latest()
        if saved is None:
            raise
        raise Stopped(signal.SIGINT, saved) from None
    finally:
        run.close()


class _Run:
    """One training run: its state, its streams, and what writes its folder."""

    def __init__(self, job: Job, workdir: pathlib.Path):
        config = job.config
        expressions = job.splits["train"].classes.get("expression", ())
        self.programs = job.programs
        recipe, self.mesh, self.placement = self.programs.recipe, self.programs.mesh, self.programs.placement
        self.job, self.config, self.recipe, self.workdir = job, config, recipe, workdir
        check_batch_size(config.batch_size, self.mesh, config.accumulate)
        self.constants = jax.device_put(recipe.constants, self.placement.constants)
        self.streams = Streams(config, self.mesh, job.attach, job.splits)
        self.observer = Observer(self.programs, self.streams, job.splits, workdir, config.batch_size)
        self.checkpoints = Checkpoints(workdir, config.checkpoint.keep, config.select.which == "best")
        self.saved = float("-inf")
        self.best = Best()
        weighed = recipe.teachers if recipe.weighting is not None else ()
        self.weights = TeacherWeights(workdir, weighed, expressions)
        self.remarked: set[str] = set()
        self.first: tuple[str, Any] = ("", None)  # the phase that is under way, and the loss of its first step here
        self.names_in: Callable[[int], Sequence[str]] = lambda step: ()  # the examples of a step of the present phase
        self.scorer = Scorer(config, self.programs, self.streams, job.splits, self.constants)
        self.state = self.initial_state()
        self.skipped = [step for step, _ in self.described(jax.device_get(self.state.failed))]
        self.log = MetricsLog(
            workdir, resume_step=int(self.state.step), sinks=config.log.sinks, facts=dict(leaves(config))
        )
        self.progress = Progress(
            [(p.name, p.steps) for p in recipe.phases], batch_size=config.batch_size, devices=self.mesh.size
        )

    def close(self) -> None:
        with contextlib.ExitStack() as each:  # each is closed, also where the one before failed
            each.callback(self.progress.close)
            each.callback(self.log.close)
            each.callback(self.checkpoints.close)

    def initial_state(self) -> State:
        """The last checkpoint's state, or a fresh one; created on its shardings either way."""
        latest = self.checkpoints.latest()
        if latest is None:
            state = self.programs.create(jax.random.key(self.config.seed))
            if self.job.begin is None:
                return state
            params, stats = self.job.begin
            return dataclasses.replace(state, params=params, stats=stats)
        abstract = abstract_like(self.programs.abstract, self.placement.state)
        state, self.best = self.checkpoints.restore(latest, abstract)
        logging.info("Continuing from step %d.", latest)
        return state

    def all_phases(self) -> tuple[State, dict]:
        for index, phase in enumerate(self.recipe.phases):
            if index >= int(self.state.phase):
                self.one_phase(phase, index)
            else:
                self.weights.recall(phase.name)
        self.checkpoints.wait()
        if self.config.select.which == "best" and self.best.step >= 0:
            self.state = self.checkpoints.restore_weights(self.best.step, self.state)
        scores = self.scorer.final("test", self.state, self.best, self.weights.phases, self.workdir)
        remarks = [*self.best.grown.values(), *scores["remarks"]]
        return self.state, {**scores, "skipped_steps": self.skipped, "remarks": remarks}

    def one_phase(self, phase: Phase, index: int) -> None:
        """Runs a phase to its end, from the step of it that the state has reached."""
        step, taken = int(self.state.step), int(self.state.phase_step)
        extra = self.job.without_labels(phase)
        stream = self.streams.training(self.job.splits["train"], extra, index)
        before = step - taken
        self.names_in = lambda n: self.streams.names(self.job.splits["train"], extra, index, n - before - 1)
        if taken == 0:
            self.begin(phase, index)
            if phase.scored:
                self.observe(phase, step)
        else:
            self.checkpoints.restore_iterator(step, stream)
        batch = next(stream)
        take = self.compile(phase, index, batch)
        leaves = take.flatten(self.state)
        every = evaluation_interval(self.job, phase)
        self.progress.begin(phase.name, taken)
        in_flight: collections.deque = collections.deque()
        over = False
        with jax.transfer_guard("disallow"), contextlib.closing(DataWait()) as wait, StopRequest(self.mesh) as stop:
            while not over:
                leaves, metrics = take(leaves, self.constants, batch)
                step, taken = step + 1, taken + 1
                if self.first[0] != phase.name:
                    self.first = phase.name, metrics["loss"]
                wait.watch(metrics["loss"])
                in_flight.append(metrics["loss"])
                if len(in_flight) > STEPS_AHEAD:
                    in_flight.popleft().block_until_ready()
                self.progress.step(waited=wait.seconds)
                over = taken == phase.steps
                due = over or taken % every == 0
                if due or taken % self.config.log.every_steps == 0:
                    # Waits for the steps under way, so that they count as training time.
                    self.write_metrics(phase, step, *jax.device_get((metrics, take.failed(leaves))))
                if due:
                    self.state = take.unflatten(leaves)
                    with self.progress.pause():
                        over = self.evaluate_and_save(phase, index, stream, over)
                if (by := stop.agreed(now=due)) is not None:
                    if not due:  # after an evaluation the state is looked at, and may be the next phase's already
                        self.finite(phase, step, *jax.device_get((metrics, take.failed(leaves))))
                        self.state = take.unflatten(leaves)
                    self.checkpoints.save(self.state, stream, self.best)
                    raise Stopped(by, step)
                if not over:
                    batch = wait.next(stream)
        self.progress.end()

    def begin(self, phase: Phase, index: int) -> None:
        """Enters a phase: runs its `prepare` on the training set; resets tally, average, moments and early stopping."""
        self.best = self.best.begun(anew=phase.selects_anew)
        state = enter(self.state, index)
        if phase.prepare is not None:
            params, stats = phase.prepare(
                state.params, state.stats, self.constants, self.streams.evaluation(self.job.splits["train"])
            )
            state = dataclasses.replace(state, params=params, stats=stats)
        tally = jax.tree.map(jnp.zeros_like, state.tally)
        average = averaging.restart(state.average, state.params, state.stats)
        optimizer = state.optimizer
        if self.config.optimizer.fresh_moments:
            optimizer = jax.tree.map(jnp.zeros_like, optimizer)  # as every rule of the optimiser begins
        # A copy, because the step donates its state and `prepare` may return arrays that are held elsewhere too.
        self.state = jax.device_put(
            jax.tree.map(jnp.copy, dataclasses.replace(state, tally=tally, average=average, optimizer=optimizer)),
            self.placement.state,
        )

    def compile(self, phase: Phase, index: int, batch: Tree) -> PhaseStep:
        """Compiles the phase's step; its time, FLOPs and memory go to the log."""
        begun = time.perf_counter()
        step = self.programs.step(index, self.state, self.constants, batch)
        seconds = time.perf_counter() - begun
        memory = step.compiled.memory_analysis()
        cost = step.compiled.cost_analysis() or {}
        self.log.write(
            int(self.state.step),
            phase.name,
            {
                "compile_seconds": seconds,
                "flops_per_step": cost.get("flops", 0.0),
                "device_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else 0,
            },
        )
        logging.info("Compiled phase %s in %.1f s.", phase.name, seconds)
        return step

    def write_metrics(self, phase: Phase, step: int, values: Mapping[str, Any], failed: np.ndarray) -> None:
        """Writes and shows a step's metrics, unless the run has diverged; of a skipped step those that are finite."""
        metrics = self.finite(phase, step, values, failed)
        remark = phase.remark(metrics) if phase.remark else ""
        if remark and phase.name not in self.remarked:
            self.remarked.add(phase.name)
            logging.warning("Step %d of phase %s: %s", step, phase.name, remark)
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        metrics |= self.progress.speed() | {"host_peak_bytes": host_peak_bytes()}
        self.log.write(step, phase.name, metrics)
        self.progress.show(metrics)

    def finite(self, phase: Phase, step: int, values: Mapping[str, Any], failed: np.ndarray) -> dict[str, float]:
        """A step's metrics as numbers, all finite unless the step was skipped. Logs the steps that were skipped.

        Raises:
          InputError: the run has diverged.
        """
        metrics = {name: float(value) for name, value in values.items()}
        self.log_skipped(phase, failed)
        if step in self.skipped:
            return metrics
        watched, saved = self.programs.watched, self.checkpoints.latest()
        failed = skipping.first_failures(failed)
        divergence.check(failed, watched, metrics, phase, step, self.workdir, saved, self.names_in, self.skipped)
        if phase.name not in self.best.first_losses:
            first = float(jax.device_get(self.first[1]))
            # A step that was skipped may have none.
            self.best = self.best.begins_at(phase.name, first if math.isfinite(first) else metrics["loss"])
        first = self.best.first_losses[phase.name]
        grown = divergence.growth(metrics["loss"], first, metrics, phase, step, self.workdir, saved)
        if grown:
            if phase.name not in self.best.grown:
                logging.warning("%s", grown)
            self.best = self.best.remarked(phase.name, grown)
        return metrics

    def described(self, failed: np.ndarray) -> list[tuple[int, list[str]]]:
        return skipping.described(failed, self.programs.watched)

    def log_skipped(self, phase: Phase, failed: np.ndarray) -> None:
        """Logs the skipped steps that are new in `State.failed`, and their examples."""
        for step, what in self.described(failed)[len(self.skipped) :]:
            self.skipped.append(step)
            logging.warning(
                "Step %d of phase %s is skipped, because %s is not finite: %d of the %d that "
                "config.optimizer.skip_diverged allows. Its batch was %s.",
                *(step, phase.name, ", ".join(what), len(self.skipped), self.config.optimizer.skip_diverged),
                excerpt(self.names_in(step)),
            )

    def evaluate_and_save(self, phase: Phase, index: int, stream: DeviceIterator, over: bool) -> bool:
        """Scores the student in a scored phase; at a phase's end enters the next; saves unless it did so just before.

        Returns:
          Whether the phase is over: by its length, or because early stopping ends it.
        """
        step = int(self.state.step)
        if over or phase.scored:
            self.observe(phase, step)
        if phase.scored:
            scores, score, self.best = self.scorer.validate(self.state, self.best)
            self.log.write(step, phase.name, flatten(scores, "validation"))
            self.progress.note(f"validation {self.config.select.metric} {score:.4f} (best {self.best.score:.4f})")
            over = over or self.stops_early(phase)
        if over:
            self.weights.keep(phase.name, self.state.tally)
            self.state = enter(self.state, index + 1)
        last = over and index + 1 == len(self.recipe.phases)
        waited = time.monotonic() - self.saved >= self.config.checkpoint.min_seconds
        if agreed(last or self.best.step == step or waited):
            self.checkpoints.save(self.state, stream, self.best)
            self.saved = time.monotonic()
        return over

    def stops_early(self, phase: Phase) -> bool:
        """Whether early stopping ends the phase: too many evaluations in turn without a better score. Logs it."""
        if not 0 < self.config.early_stopping.patience <= self.best.waited:
            return False
        taken = int(self.state.phase_step)
        self.best = self.best.ended(phase.name, taken)
        logging.info(
            "Phase %s stops early, after %d of %d steps: %d evaluations did not beat %s %.4f by more than %g.",
            *(phase.name, taken, phase.steps, self.best.waited, self.config.select.metric, self.best.phase_score),
            self.config.early_stopping.min_delta,
        )
        return True

    def observe(self, phase: Phase, step: int) -> None:
        self.observer.observe(weights_for_use(self.state), self.constants, phase.name, step)


def evaluation_interval(job: Job, phase: Phase) -> int:
    """Steps between evaluations. As in the phase's length, an epoch is one of its own data, extra examples included."""
    examples = len(job.splits["train"]) + sum(map(len, job.without_labels(phase)))
    return duration(
        job.config.evaluation,
        "every",
        steps_per_epoch=max(examples // job.config.batch_size, 1),
        batch_size=job.config.batch_size,
        total_steps=phase.steps,
        section="config.evaluation.",
    )


def host_peak_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
