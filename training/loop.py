"""The loop around the step: when to log, to evaluate, to save and to stop."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jaxtyping import PyTree

from training.averaging import observe
from training.checkpoints import Checkpoints
from training.metrics import Pairs, merged, total_weight
from training.prefetch import Prefetch
from training.step import Step, TrainState
from training.writers import Writers


@dataclasses.dataclass
class Run:
    """One training run.

    Attributes:
      step: compiled, (state, carry, batch) -> (state, carry, pairs).
      batch: gives the batch of a number, on the devices.
      evaluate: from a state to the validation split's metrics.
      best: the metric that chooses checkpoints, and "min" or "max".
      log_every, eval_every, save_every: in steps; 0 is never.
    """

    step: Step
    batch: Callable[[int], PyTree]
    evaluate: Callable[[TrainState], dict[str, float]]
    best: tuple[str, str]
    steps: int
    log_every: int
    eval_every: int
    save_every: int
    checkpoints: Checkpoints
    writers: Writers

    def train(self, state: TrainState, carry: PyTree) -> tuple[TrainState, bool]:
        """Trains to the last step, or to a SIGTERM or SIGINT.

        Returns the state and whether it is the last one. The state is on disk
        when this returns.
        """
        pace = Pace(self.writers.seconds)
        recent: list[Pairs] = []
        done = int(state.step)
        ahead = Prefetch(self.batch, done, self.steps)
        with stop_requests() as stopped, ahead as batches:
            while done < self.steps:
                state, carry, pairs = self.step(state, carry, batches.next())
                done += 1
                recent.append(pairs)
                last = done == self.steps
                if last or _due(done, self.log_every):
                    self._log(done, recent, pace, batches.lap())
                    recent = []
                goodness = None
                if last or _due(done, self.eval_every):
                    with pace.paused(state):
                        state, goodness = self._evaluate(done, state)
                stopping = stopped.is_set()
                due = goodness is not None or _due(done, self.save_every)
                if due or stopping:
                    with pace.paused(state):
                        content = {"state": state, "carry": carry}
                        self.checkpoints.save(done, content, goodness)
                if stopping:
                    break
            self.checkpoints.close()
        return state, done >= self.steps

    def _log(self, step: int, recent: list[Pairs], pace: "Pace", waited: float) -> None:
        metrics = merged(recent)
        tokens = total_weight(recent, "loss")
        seconds = pace.lap()
        metrics["tokens_per_second"] = tokens / seconds
        metrics["waiting"] = min(waited / seconds, 1.0)  # share of it, for batches
        metrics["seconds"] = pace.total
        self.writers.write(step, "train", metrics)

    def _evaluate(self, step: int, state: TrainState) -> tuple[TrainState, float]:
        """The state, told of its loss, and how good it is: larger is better."""
        metrics = self.evaluate(state)
        self.writers.write(step, "validation", metrics)
        state = state.replace(opt_state=observe(state.opt_state, metrics["loss"]))
        name, direction = self.best
        return state, metrics[name] if direction == "max" else -metrics[name]


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class Pace:
    """Seconds of training; those of evaluation and saving do not count."""

    def __init__(self, total: float):
        """Args: total: seconds already behind."""
        self.total = total
        self._mark = time.monotonic()
        self._spent = 0.0

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        seconds = self._spent + now - self._mark
        self._mark, self._spent = now, 0.0
        self.total += seconds
        return max(seconds, 1e-9)

    @contextmanager
    def paused(self, state: PyTree) -> Iterator[None]:
        """Waits for the state, then does not count what happens inside."""
        jax.block_until_ready(state)
        self._spent += time.monotonic() - self._mark
        yield
        self._mark = time.monotonic()


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set instead of ending the process."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, lambda *_: asked.set()) for name in names}
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
