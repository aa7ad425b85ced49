"""Measures every phase of a job: compile time, steps, waiting for data, the compiled program, and its parts."""

import dataclasses
import json
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from emokd.benchmarking.batches import create_batches, read_ahead
from emokd.benchmarking.compilations import count_compilations
from emokd.benchmarking.flow import Flow, measure_flow
from emokd.benchmarking.peak import measure_peak
from emokd.benchmarking.program import describe_program
from emokd.benchmarking.split import Dissection, split_step
from emokd.benchmarking.stand_ins import untrained_teachers
from emokd.benchmarking.timing import Clock, Rule, Timing, interleave
from emokd.configuration import config as configuration
from emokd.jobs.job import create_job
from emokd.models.cost import describe
from emokd.phase import Phase, Tree
from emokd.reporting.provenance import provenance
from emokd.training.loop import Job
from emokd.training.sharding import check_batch_size
from emokd.training.state import enter

TRACED_STEPS = 3


def benchmark(
    config: ml_collections.ConfigDict,
    *,
    data: str = "real",
    rule: Rule | None = None,
    trace: pathlib.Path | None = None,
    peak: dict[str, Any] | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measures the job of a configuration, phase by phase. It runs a few steps of each phase and stores no weights.

    Untrained teachers of the same architecture replace those that the configuration would train first.

    Args:
      config: the resolved configuration.
      data: "real" or "fake": batches as training reads them, or one random batch on the device.
      rule: warm-up and timed steps.
      trace: a folder for a profile of some steps of each phase, or None.
      peak: the result of `measure_peak`, where it has been measured already.
      clock: returns seconds.

    Returns:
      The results that docs/benchmarks/README.md describes, as JSON values.

    Raises:
      InputError: data, models or options are wrong, or the batch does not divide over the devices.
    """
    rule = rule or Rule()
    with tempfile.TemporaryDirectory() as folder:
        job = create_job(config, untrained_teachers(pathlib.Path(folder)))
    bench = _Bench(job, data, rule, clock)
    results = {
        "provenance": provenance(),
        "config": json.loads(configuration.to_json(config)),
        "data": {"kind": data, "name": job.splits["train"].name},
        "batch_size": config.batch_size,
        "rule": dataclasses.asdict(rule) | {"text": rule.text(), "read_ahead": read_ahead(job, data)},
        "devices": {"count": bench.mesh.size, "kind": bench.mesh.devices.flat[0].device_kind},
        "peak": peak or measure_peak(rule, config.precision, clock=clock),
        "networks": {name: describe(spec) for name, spec in job.recipe.networks.items()},
    }
    results["phases"] = [
        bench.one_phase(phase, index, trace, results["peak"]) for index, phase in enumerate(job.recipe.phases)
    ]
    return results


class _Bench:
    """A job on its devices, set up as in the training loop, but without logs and checkpoints."""

    def __init__(self, job: Job, data: str, rule: Rule, clock: Clock):
        config, recipe = job.config, job.recipe
        self.job, self.data, self.rule, self.clock = job, data, rule, clock
        self.mesh, self.placement = job.programs.mesh, job.programs.placement
        check_batch_size(config.batch_size, self.mesh, config.accumulate)
        self.constants = jax.device_put(recipe.constants, self.placement.constants)
        self.state = job.programs.create(jax.random.key(config.seed))

    def one_phase(self, phase: Phase, index: int, trace: pathlib.Path | None, peak: dict[str, Any]) -> dict[str, Any]:
        batches = create_batches(self.job, index, self.data, self.mesh)
        batch = next(batches)
        self.begin(phase, index, batch)
        with count_compilations() as compiled:
            begun = self.clock()
            step = self.job.programs.step(index, self.state, self.constants, batch)
            compile_seconds = self.clock() - begun
            logging.info("Compiled phase %s in %.1f s.", phase.name, compile_seconds)
            leaves = step.flatten(self.state)

            def take(batch: Tree = batch) -> Any:
                nonlocal leaves
                leaves, metrics = step(leaves, self.constants, batch)
                return leaves, metrics

            steps = interleave({"step": take}, self.rule, self.clock)["step"]
            # The warm-up also uses up the batches read during compilation, which would hide the time spent waiting.
            warmup = self.rule.warmup + read_ahead(self.job, self.data)
            flow = measure_flow(take, batches, dataclasses.replace(self.rule, warmup=warmup), self.clock)
            loss = take()[1]["loss"]

        self.state = jax.tree.map(jnp.copy, step.unflatten(leaves))
        if trace is not None:
            with jax.profiler.trace(str(trace / phase.name)):
                for _ in range(TRACED_STEPS):
                    jax.block_until_ready(take(next(batches)))
        arguments = (*step.flatten(self.state), self.constants, batch)
        dissection = Dissection(self.job.programs.trace(index, self.state, self.constants, batch), arguments)
        with jax.set_mesh(self.mesh):
            parts = split_step(dissection, step.compiled, arguments, self.rule, self.clock)
        program = describe_program(step.compiled)
        return {
            "name": phase.name,
            "compile_seconds": compile_seconds,
            "compilations": len(compiled),
            "loss_is_finite": bool(jnp.isfinite(loss)),
            "macs": dissection.macs,
            "program": program,
            "split": parts,
            **self.speed(steps, flow, dissection.macs, program["bytes_accessed"], peak),
        }

    def speed(
        self, steps: Timing, flow: Flow, macs: int, bytes_accessed: float | None, peak: dict[str, Any]
    ) -> dict[str, Any]:
        """Speeds computed from the times of single steps (`steps`) and of steps run as in training (`flow`)."""
        low, high = steps.quartiles
        flops = 2 * macs / self.mesh.size / steps.median
        return {
            "step_seconds": steps.median,
            "step_quartiles": [low, high],
            "examples_per_second_per_device": self.job.config.batch_size / self.mesh.size * flow.rate,
            "share_waiting": flow.waiting,
            "share_of_matmul_peak": flops / peak["matmul_flops"],
            "share_of_copy_peak": None
            if bytes_accessed is None
            else bytes_accessed / steps.median / peak["copy_bytes"],
        }

    def begin(self, phase: Phase, index: int, batch: Tree) -> None:
        """Puts the state at the phase's first step; `prepare` gets one batch in place of the training set."""
        state = self.state
        if phase.prepare is not None:
            params, stats = phase.prepare(state.params, state.stats, self.constants, iter([batch]))
            state = dataclasses.replace(state, params=params, stats=stats)
        # Copied, because the step donates its state, and `prepare` may return some leaves unchanged.
        self.state = jax.device_put(jax.tree.map(jnp.copy, enter(state, index)), self.placement.state)
