"""Batches made ahead of the step that needs them, so that devices do not wait."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

AHEAD = 2  # batches that stand ready


class Prefetch:
    """`next()` gives batch first, first + 1, ...; a thread makes them.

    Attributes:
      waited: seconds spent on batches that were not ready, since `take_wait_seconds`.
    """

    def __init__(self, batch: Callable[[int], PyTree], first: int, last: int):
        """Args: batch: makes one; last: batches before it are made."""
        self.waited = 0.0
        self._closed = threading.Event()
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
        self._thread = threading.Thread(
            target=self._make, args=(batch, range(first, last)), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()
        while not self._ready.empty():  # a maker that waits for room may end
            self._ready.get_nowait()
        self._thread.join()

    def next(self) -> PyTree:
        """The batch after the last one. Raises what making it raised."""
        before = time.monotonic()
        found, error = self._ready.get()
        self.waited += time.monotonic() - before
        if error is not None:
            raise error
        return found

    def take_wait_seconds(self) -> float:
        """Seconds waited since the last lap."""
        waited, self.waited = self.waited, 0.0
        return waited

    def _make(self, batch, numbers) -> None:
        for k in numbers:
            try:
                item = batch(k), None
            except Exception as error:  # for the thread that asks
                item = None, error
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or item[1] is not None:
                return
