"""A thread that notices when a run is stuck.

Training tells it what it waits for: "batch" k, "step" k, the "validation" after a step
or the "save" of one. Whatever takes far longer than it ever did in this process is
reported with the stack of every thread; at the user's wish the process ends.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

STALLED = 76  # exit code of a process that ended itself
FACTOR = 3  # times the longest wait of a kind until then
FIRST_FACTOR = 6  # times `minutes`: limit of the first wait of a kind, which compiles
POLLS = 20  # looks at the clock in the shortest limit


class Wait(NamedTuple):
    """Wait of training: for which kind of thing, its number, and since when."""

    kind: str
    number: int
    start: float  # time.monotonic()


class Watchdog:
    """Context manager of the thread.

    A wait is too long after `minutes` and 3 times the longest wait of its kind so far;
    the first of a kind, which may compile, after 6 times `minutes`.
    """

    def __init__(
        self,
        minutes: float,
        action: str,
        saved_step: Callable[[], int | None],
    ):
        """Starts no thread before the block is entered.

        Args:
          minutes: the shortest wait that counts as too long.
          action: "off", "report", or "stop" to end with the exit code STALLED.
          saved_step: returns the newest step that is saved whole, None without one.
        """
        self._seconds, self._action, self._saved_step = 60 * minutes, action, saved_step
        self._longest: dict[str, float] = {}
        self._wait: Wait | None = None
        self._reported: Wait | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="watchdog", daemon=True
        )

    def __enter__(self) -> "Watchdog":
        if self._action != "off":
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()
        if self._action != "off":
            self._thread.join()

    @contextlib.contextmanager
    def waiting(self, kind: str, number: int) -> Iterator[None]:
        """Marks a block as a wait; blocks are not nested."""
        self._wait = wait = Wait(kind, number, time.monotonic())
        try:
            yield
        finally:
            self._wait = None
            seconds = time.monotonic() - wait.start
            self._longest[kind] = max(seconds, self._longest.get(kind, 0.0))
            if self._reported == wait:
                _print(f"{kind} {number} ended after {_format(seconds)}")

    def limit(self, kind: str) -> float:
        """Returns the seconds after which a wait of a kind is too long."""
        if kind not in self._longest:
            return FIRST_FACTOR * self._seconds
        return max(self._seconds, FACTOR * self._longest[kind])

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / POLLS):
            wait = self._wait
            if wait is None or wait == self._reported:
                continue
            seconds = time.monotonic() - wait.start
            if seconds > self.limit(wait.kind):
                self._reported = wait
                self._report(wait, seconds)

    def _report(self, wait: Wait, seconds: float) -> None:
        """Prints all stacks and what would be lost; ends the process if asked to."""
        longest = self._longest.get(wait.kind)
        before = "none has ended in this process yet"
        if longest is not None:
            before = f"the longest before took {_format(longest)}"
        _print(
            f"{wait.kind} {wait.number} has taken {_format(seconds)}; {before}. "
            f"Stack of every thread:\n{format_stacks()}"
        )
        saved = self._saved_step()
        if saved is None:
            loss = "no checkpoint is saved: all steps would be lost"
        else:
            loss = f"steps after {saved}, the newest checkpoint, would be lost"
        if self._action != "stop":
            _print(f"if you end this process, {loss}. The run waits on")
            return
        _print(
            f"this process ends with exit code {STALLED}; "
            f"{loss.replace('would be', 'are')}. The same command resumes"
        )
        sys.stdout.flush()
        os._exit(STALLED)


def format_stacks() -> str:
    """Formats the stack of every thread but the calling one, the main thread first."""
    frames = sys._current_frames()
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and thread.ident in frames
    ]
    others.sort(key=lambda thread: thread is not threading.main_thread())
    return "".join(
        f"thread {thread.name}:\n"
        + "".join(traceback.format_stack(frames[thread.ident]))
        for thread in others
    )


def _format(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} seconds"
    return f"{seconds / 60:.3g} minutes"


def _print(text: str) -> None:
    print(f"watchdog: {text}", file=sys.stderr, flush=True)
