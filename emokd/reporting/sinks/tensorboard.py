"""TensorBoard events in `WORKDIR/tensorboard`."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch from imports inside the block.

    tensorboardX imports PyTorch (seconds) where it is installed, in order to accept tensors, and works without it. No
    tensors are written here.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes Python raise ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules["torch"]


with _without_torch():
    from tensorboardX import SummaryWriter


class TensorBoard:
    """Writes scalars; of a run that continues, events after the step are hidden."""

    def __init__(self, workdir: pathlib.Path, resume_step: int | None):
        purge = None if resume_step is None else resume_step + 1
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=purge)
        # tensorboardX hands events to a thread, by a queue of ten. Where a full disk has ended that thread, a run would
        # wait for ever, so events are written in this one.
        events = self._events.file_writer.event_writer
        events.add_event = events._ev_writer.write_event

    def write(self, step: int, phase: str, time: float, values: Mapping[str, float]) -> None:
        """Adds a scalar for each metric."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step, walltime=time)

    def flush(self) -> None:
        """Hands the events to the operating system."""
        self._events.flush()

    def close(self) -> None:
        """Closes the file of events."""
        self._events.close()
