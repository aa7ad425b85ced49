"""What a configuration's steps would take on TPUs that are not here, as their own compiler estimates it."""

import collections
import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from emokd.benchmarking import interconnect
from emokd.benchmarking.batches import first_batch
from emokd.benchmarking.hlo import REST, Profile, read_profile
from emokd.benchmarking.memory import largest_arrays, read_refusal
from emokd.benchmarking.program import describe_program, live
from emokd.benchmarking.stand_ins import stand_in_cache, stand_in_data, stand_in_weights, untrained_teachers
from emokd.benchmarking.targets import Target
from emokd.configuration import config as configuration
from emokd.errors import InputError, nearest
from emokd.jobs.job import create_job
from emokd.models.macs import count_macs_by_part
from emokd.reporting.provenance import provenance
from emokd.training.loop import Job
from emokd.training.sharding import batch_sharding, check_batch_size, create_local_mesh, create_mesh


def estimate(
    config: ml_collections.ConfigDict,
    target: Target,
    *,
    rows: int = 0,
    trips: int | None = None,
    phases: Sequence[str] = (),
) -> dict[str, Any]:
    """Compiles the phases of a configuration for a slice of TPUs, and for one device of it; nothing runs.

    Data that their source describes need not be there, nor need weights, nor a cache of teachers; see `stand_ins`.

    Args:
      config: the resolved configuration; of `config.devices` and `config.mesh` the target's devices are meant.
      target: the slice.
      rows: examples on each device; 0 for the configuration's batch.
      trips: how often loops run whose number of passes is decided as they run, such as a solver's; None to count each
        once.
      phases: the names of those to compile; empty for all.

    Returns:
      What docs/benchmarks/README.md describes, ready for JSON.

    Raises:
      InputError: data, models or options are wrong, there is no such phase, or the configuration begins with another
        run.
    """
    if config.start_from:
        raise InputError("--target compiles every phase of a run from its beginning; leave config.start_from empty.")
    mesh = create_mesh(config.devices, **config.mesh, among=target.devices)
    rows = rows or config.batch_size
    results: dict[str, Any] = {
        "provenance": provenance(),
        "config": json.loads(configuration.to_json(config)),
        "target": {
            "name": target.name,
            "devices": mesh.size,
            "kind": mesh.devices.flat[0].device_kind,
            "memory_bytes": target.chip.memory,
            "clock": target.chip.clock,
        },
        "rows": rows,
        "batch_size": rows * mesh.size,
        "trips": trips,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        config, notes = stand_in_weights(config, place / "weights")
        job, more = described_job(config, rows, mesh, place)
        check_phases(phases, [phase.name for phase in job.recipe.phases])
        results |= {"data": job.splits["train"].name, "notes": [*notes, *more]}
        results["phases"] = _phases(job, target, mesh, trips, phases)
        if mesh.size > 1:
            single = create_mesh(1, among=target.devices)
            alone = _phases(described_job(config, rows, single, place)[0], target, single, trips, phases)
            for found, one in zip(results["phases"], alone, strict=True):
                found["one_device"] = one
                if found["fits"] and one["fits"]:
                    found["efficiency"] = one["step_seconds"] / found["step_seconds"]
    return results


def described_job(
    config: ml_collections.ConfigDict, rows: int, mesh: Mesh, folder: pathlib.Path
) -> tuple[Job, list[str]]:
    """The job of a configuration without its data, and without the weights of teachers that it would train.

    Args:
      config: the configuration; of `config.devices` and `config.mesh` the mesh is meant.
      rows: examples on each device.
      mesh: the devices, which need not be here.
      folder: where untrained teachers are stored.

    Returns:
      (the job, a sentence for each set and cache that is stood in for)

    Raises:
      InputError: as `create_job` and `stand_in_data`.
    """
    sized = configuration.locked(config, {"batch_size": rows * mesh.size})
    check_batch_size(sized.batch_size, mesh, sized.accumulate)
    data, notes = stand_in_data(sized)
    uncached = configuration.locked(sized, {"cache.dir": ""})
    job = create_job(uncached, untrained_teachers(folder), data=data, mesh=mesh)
    if not sized.cache.dir:
        return job, notes
    return stand_in_cache(job), [*notes, f"{sized.cache.dir} is not read: made-up features stand for the teachers'."]


def check_phases(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raises InputError where a name is none of the run's phases."""
    for name in wanted:
        if name not in known:
            raise InputError(
                f"--phases: this run has no phase {name!r}.{nearest(name, known)} It has: {', '.join(known)}."
            )


def _phases(job: Job, target: Target, mesh: Mesh, trips: int | None, wanted: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for index, phase in enumerate(job.recipe.phases):
        if wanted and phase.name not in wanted:
            continue
        traced = trace_phase(job, index)
        macs = count_macs_by_part(live(traced.jaxpr.jaxpr))
        begun = time.perf_counter()
        entry: dict[str, Any] = {"name": phase.name, "macs": macs.total()}
        try:
            with jax.set_mesh(mesh):
                compiled = traced.lower(lowering_platforms=("tpu",)).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            entry |= {"fits": False, "compile_seconds": time.perf_counter() - begun, **read_refusal(str(error))}
            entry["largest"] = largest_arrays(live(traced.jaxpr.jaxpr))
        else:
            entry |= {"fits": True, "compile_seconds": time.perf_counter() - begun}
            entry |= _describe(compiled, macs, job.config.batch_size, target, mesh, trips)
        logging.info("Compiled phase %s for %s in %.1f s.", phase.name, target.name, entry["compile_seconds"])
        found.append(entry)
    return found


def trace_phase(job: Job, index: int) -> jax.stages.Traced:
    """Traces the step of a phase for the devices of the job's programs, which need not be here."""
    programs = job.programs
    state = _placed(programs.abstract, programs.placement.state)
    constants = _placed(job.recipe.constants, programs.placement.constants)
    # A batch of one row has all that a larger one has but the number of rows.
    sample = dataclasses.replace(job, config=configuration.locked(job.config, {"batch_size": 1}))
    split = batch_sharding(programs.mesh)
    batch = {
        name: jax.ShapeDtypeStruct((job.config.batch_size, *x.shape[1:]), x.dtype, sharding=split)
        for name, x in first_batch(sample, index, create_local_mesh(1)).items()
    }
    return programs.trace(index, state, constants, batch)


def _placed(tree: Any, places: Any) -> Any:
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places)


def _describe(
    compiled: jax.stages.Compiled,
    macs: collections.Counter[str],
    batch_size: int,
    target: Target,
    mesh: Mesh,
    trips: int | None,
) -> dict[str, Any]:
    """What is said of a program that fits."""
    program, profile, chip = describe_program(compiled), read_profile(compiled.as_text() or "", trips), target.chip
    exchanged = exchanges(profile, lambda each: interconnect.axis_of(each, mesh), target, mesh.size)
    computing = profile.cycles / chip.clock
    step = computing + sum(each["seconds"] for each in exchanged)
    # Seconds that one device's matrix units need for each part at their peak.
    ideal = {part or REST: 2 * count / mesh.size / chip.flops for part, count in macs.items()}
    parts = dict(sorted(profile.parts.items(), key=lambda item: -item[1]))
    shares = {
        "compute": sum(ideal.values()) / computing,
        "memory": (program["bytes_accessed"] or 0.0) / chip.bandwidth / computing,
        "number of operations": profile.small / profile.cycles,
    }
    return {
        "program": {name: size for name, size in program.items() if name != "collectives"},
        "cycles": profile.cycles,
        "operations": profile.operations,
        "parts": parts,
        "part_shares_of_peak": {part: ideal.get(part, 0) * chip.clock / cycles for part, cycles in parts.items()},
        "loops": [vars(loop) for loop in profile.loops],
        "collectives": exchanged,
        "computing_seconds": computing,
        "step_seconds": step,
        "shares": shares,
        "bound": max(shares, key=shares.__getitem__),
        "share_of_peak": sum(ideal.values()) / step,
        "examples_per_second": batch_size / step,
        "examples_per_second_per_device": batch_size / mesh.size / step,
    }


def exchanges(profile: Profile, axis: Callable[[Any], str], target: Target, devices: int) -> list[dict[str, Any]]:
    """Collectives by kind and axis: how many in a step, their bytes, and the seconds that they take together."""
    found: dict[tuple[str, str], dict[str, Any]] = collections.defaultdict(
        lambda: {"count": 0, "bytes": 0, "seconds": 0.0}
    )
    for each in profile.collectives:
        entry = found[each.kind, axis(each)]
        entry["count"] += each.times
        entry["bytes"] += each.times * each.bytes
        entry["seconds"] += each.times * interconnect.seconds(each, devices, target.shape, target.chip)
    return [{"kind": kind, "axis": name, **entry} for (kind, name), entry in sorted(found.items())]
