"""SIGTERM and SIGINT as requests to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """Interrupts work that can be repeated.

    Not an Exception, since libraries catch those while they are imported.
    """


@contextmanager
def graceful_stop(
    stopped: threading.Event | None = None,
) -> Iterator[threading.Event]:
    """Yields an event that signals set, instead of ending the process.

    Args:
      stopped: the event; None: a new one.
    """
    stopped = stopped or threading.Event()
    with _handled(lambda *_: stopped.set()):
        yield stopped


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """Makes signals raise StopRequested in the block."""

    def stop(*_):
        raise StopRequested

    with _handled(stop):
        yield


@contextmanager
def _handled(handler) -> Iterator[None]:
    """Installs a handler, unless outside the main thread, where none may be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.signal(name, handler) for name in SIGNALS}
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(name, old)


class InterruptibleBatches:
    """Batches that raise StopRequested after a request to stop."""

    def __init__(self, batches: Any, stopped: threading.Event):
        self._batches, self._stopped = batches, stopped

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, k: int) -> dict:
        if self._stopped.is_set():
            raise StopRequested
        return self._batches[k]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)
