"""SIGTERM and SIGINT as a wish to stop, not an end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """Raised where work that can be done again is cut short.

    No Exception, since libraries that are being imported catch those.
    """


@contextmanager
def graceful_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set instead of ending the process."""
    asked = threading.Event()
    with _handled(lambda *_: asked.set()):
        yield asked


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """SIGTERM and SIGINT raise StopRequested inside, wherever it is."""

    def stop(*_):
        raise StopRequested

    with _handled(stop):
        yield


@contextmanager
def _handled(handler) -> Iterator[None]:
    """Only the main thread may have handlers; elsewhere nothing is changed."""
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
    """Batches that raise StopRequested once a stop is asked for."""

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
