"""What a run is about to do, in a line of its log."""

import pathlib

from emokd.training.loop import Job


def in_words(job: Job, workdir: pathlib.Path) -> str:
    """The recipe, the examples of each split, the phases with their lengths, and where everything is written.

    How long it takes is not known yet: the progress line says it from the first steps on.
    """
    parts = ", ".join(f"{name} {len(examples)}" for name, examples in job.splits.items())
    extra = f", {len(job.extra)} unlabelled of {job.extra.name}" if job.extra else ""
    phases = ", ".join(f"{phase.name} {_number(phase.steps, 'step')}" for phase in job.recipe.phases)
    if job.baseline:
        phases += f", and on labels alone {_number(job.baseline.recipe.phases[0].steps, 'step')}"
    devices = _number(job.programs.mesh.size, "device")
    return (
        f"{job.config.recipe} on {job.splits['train'].name} ({parts}{extra}): {phases}; batches of "
        f"{job.config.batch_size} on {devices}. Everything is written to {workdir}."
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
