"""Prefetching of batches in a thread, so that devices do not wait for them."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable

from jaxtyping import PyTree

MAX_READY = 2  # batches that are made ahead


class Prefetch:
    """Iterator over batches `first`, `first` + 1, ..., made by a thread."""

    def __init__(self, batch: Callable[[int], PyTree], first: int, last: int):
        """Starts the thread that makes batches `first` to `last` - 1."""
        self._wait_seconds = 0.0
        self._closed = threading.Event()
        self._ready: queue.Queue = queue.Queue(MAX_READY)  # of (batch, error)
        self._thread = threading.Thread(
            target=self._make, args=(batch, range(first, last)), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()
        while not self._ready.empty():  # lets a thread go on that waits for room
            self._ready.get_nowait()
        self._thread.join()

    def next(self) -> PyTree:
        """Returns the next batch; raises what making it raised."""
        before = time.monotonic()
        batch, error = self._ready.get()
        self._wait_seconds += time.monotonic() - before
        if error is not None:
            raise error
        return batch

    def take_wait_seconds(self) -> float:
        """Returns the seconds waited for batches since the last call."""
        seconds, self._wait_seconds = self._wait_seconds, 0.0
        return seconds

    def _make(self, batch, numbers) -> None:
        for k in numbers:
            try:
                item = batch(k), None
            except Exception as error:  # raised by `next`, in the other thread
                item = None, error
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._ready.put(item, timeout=0.1)
                    break
            if self._closed.is_set() or item[1] is not None:
                return
