"""What a run's log warned of: restored checkpoints, skipped pictures, accepted changes and whatever else."""

from collections.abc import Sequence

from emokd.reporting.metrics_log import Record
from emokd.reporting.page.blocks import Block, Items, Text
from emokd.reporting.run_files import RunFiles


def blocks(run: RunFiles) -> list[Block]:
    """The warnings, each once, and where the run was continued."""
    texts = [text if count == 1 else f"{text} ({count} times)" for text, count in run.warnings.items()]
    aside = sorted(path.name for path in run.workdir.glob("checkpoints/*.set_aside*"))
    if aside:
        texts.append(f"Damaged checkpoints that were set aside: {', '.join(aside)}.")
    if steps := continued_at(run.records):
        texts.append(f"The run was continued from step {', '.join(map(str, steps))}.")
    return [Items(texts)] if texts else [Text("None.")]


def continued_at(records: Sequence[Record]) -> list[int]:
    """The steps from which a run was continued: a phase that begins compiles once, one that continues once more."""
    found = []
    begun: set[str] = set()
    for record in records:
        if "compile_seconds" in record:
            if record["phase"] in begun:
                found.append(record["step"])
            begun.add(record["phase"])
    return found
