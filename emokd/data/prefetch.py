"""Transfers batches to the device while the steps before them run."""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import grain

from emokd.errors import InputError


class DeviceIterator(grain.DatasetIterator):
    """Transfers batches ahead of their use; its state is that of the last batch handed out.

    Transfers are dispatched, not waited for, so no thread is needed: the source reads ahead on the host,
    and `depth` batches are on the device or on their way to it.
    """

    def __init__(self, iterator: Iterator[Any], put: Callable[[Any], Any], depth: int):
        super().__init__(iterator if isinstance(iterator, grain.DatasetIterator) else ())
        if depth < 1:
            raise InputError(f"The number of batches to transfer ahead is {depth}; it must be at least 1.")
        self._source: Any = iterator
        self._put = put
        self._depth = depth
        self._clear()

    def __next__(self) -> Any:
        self._fill()
        if not self._ahead:
            raise StopIteration
        batch, self._state = self._ahead.popleft()
        return batch

    def get_state(self) -> dict[str, Any]:
        """The state of the source after the last batch that was handed out."""
        return self._source.get_state() if self._state is None else self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues after the batch of that state. Batches that were transferred ahead are dropped."""
        self._source.set_state(state)
        self._clear()

    def _clear(self) -> None:
        self._ahead: collections.deque[tuple[Any, Any]] = collections.deque()
        self._ended = False
        self._state = self._source.get_state() if hasattr(self._source, "get_state") else None

    def _fill(self) -> None:
        """Dispatches transfers until `depth` batches are ahead, or the source ends."""
        while not self._ended and len(self._ahead) < self._depth:
            try:
                batch = next(self._source)
            except StopIteration:
                self._ended = True
                return
            state = self._source.get_state() if hasattr(self._source, "get_state") else None
            self._ahead.append((self._put(batch), state))


def to_device(iterator: Iterator[Any], put: Callable[[Any], Any], depth: int = 2) -> DeviceIterator:
    """Transfers the batches of an iterator ahead of their use.

    Args:
      iterator: gives batches on the host. With `get_state` and `set_state` (a grain iterator) the result
        has them too, and is saved by grain's own checkpoint handler.
      put: sends a batch to the device without waiting, such as `jax.device_put` with a sharding.
      depth: batches transferred ahead, at least 1.

    Raises:
      InputError: the depth is below 1.
    """
    return DeviceIterator(iterator, put, depth)
