"""The loop around the step: when to log, to validate, to save and to stop."""

import contextlib
import dataclasses
import enum
import threading
from collections.abc import Callable

from jaxtyping import PyTree

from training.checkpoint import Checkpoints
from training.metric_logger import MetricLogger
from training.metric_writers import MetricWriters
from training.optim.nt_asgd import on_validation
from training.prefetch import Prefetch
from training.progress import TrainProgress
from training.signals import StopRequested, graceful_stop
from training.step import Step, TrainState
from utils.allocator import trim_heap


class ExitStatus(enum.IntEnum):
    """Why training came to an end, as an exit code."""

    FINISHED = 0  # all steps, or no better score for long enough
    NOT_FINITE = 3  # too many steps in a row without a finite loss
    STOPPED = 75  # a signal; the same command goes on


@dataclasses.dataclass
class TrainLoop:
    """One training run.

    Attributes:
      step: compiled, (state, carry, batch) -> (state, carry, pairs).
      batch: gives the batch of a number, on the devices.
      checkpoint_state: what a checkpoint keeps of state and carry.
      validate: from a state to the validation split's metrics; it may raise
        StopRequested once the event it is given is set.
      best: the metric that chooses checkpoints, and "min" or "max".
      log_every, eval_every, save_every: in steps; 0 is never.
      patience: validations without a better score that end training; 0: none do.
      max_nonfinite_steps: steps in a row that may be skipped.
      flops: from a batch and its number to those of its step; None: unknown.
      ceiling: FLOP/s of all devices at most.
      sync_stop: of several processes, from whether one was asked to stop to whether all
        do; None: there is one.
    """

    step: Step
    batch: Callable[[int], PyTree]
    checkpoint_state: Callable[[TrainState, PyTree], PyTree]
    validate: Callable[[TrainState, threading.Event], dict[str, float]]
    best: tuple[str, str]
    steps: int
    log_every: int
    eval_every: int
    save_every: int
    patience: int
    max_nonfinite_steps: int
    checkpoints: Checkpoints
    writers: MetricWriters
    flops: Callable[[int, PyTree], int] | None = None
    ceiling: float | None = None
    sync_stop: Callable[[bool], bool] | None = None

    def train(
        self, state: TrainState, carry: PyTree, progress: TrainProgress
    ) -> tuple[TrainState, ExitStatus]:
        """Trains from where `state` and `progress` are.

        Returns the state, which is on disk by then, and why this is the end.
        """
        meter = MetricLogger(progress, self.writers, self.log_every, self.ceiling)
        done = begun = int(state.step)
        with (
            graceful_stop() as stopped,
            Prefetch(self.batch, done, self.steps) as batches,
        ):
            stopping = self._stops(stopped)
            if done > progress.last_validated and self._validates(
                done
            ):  # was cut short
                state = self._save(done, state, carry, meter, stopped, stopping)
                stopping |= self._stops(stopped)
            while not (self._ended(done, progress) or stopping):
                batch = batches.next()
                flops = self.flops(done, batch) if self.flops else 0
                state, carry, pairs = self.step(state, carry, batch)
                done += 1
                meter.record(done, pairs, batches.take_wait_seconds(), flops)
                trim_heap(done - begun)
                skipped = progress.consecutive_nonfinite
                broken = len(skipped) >= self.max_nonfinite_steps
                stopping = self._stops(stopped)
                if self._saves(done) or stopping or broken:
                    state = self._save(done, state, carry, meter, stopped, stopping)
                    stopping |= self._stops(stopped)
                if broken:  # also where the step under way was not skipped
                    progress.consecutive_nonfinite = (
                        progress.consecutive_nonfinite or skipped
                    )
                    break
            self.checkpoints.close()
        if len(progress.consecutive_nonfinite) >= self.max_nonfinite_steps:
            return state, ExitStatus.NOT_FINITE
        ended = self._ended(done, progress) and progress.last_validated == done
        return state, ExitStatus.FINISHED if ended else ExitStatus.STOPPED

    def _stops(self, stopped: threading.Event) -> bool:
        """Whether this is to stop; the same in all processes."""
        asked = stopped.is_set()
        return asked if self.sync_stop is None else self.sync_stop(asked)

    def _ended(self, done: int, progress: TrainProgress) -> bool:
        impatient = 0 < self.patience <= progress.evals_since_best
        return done >= self.steps or impatient

    def _validates(self, done: int) -> bool:
        return done == self.steps or is_every(done, self.eval_every)

    def _saves(self, done: int) -> bool:
        return self._validates(done) or is_every(done, self.save_every)

    def _save(self, done, state, carry, meter, stopped, stopping) -> TrainState:
        """Saves, after a validation if one is due and no signal cuts it short.

        Several processes would be cut short at different places, so none is.
        """
        if self.sync_stop is not None:
            stopped = threading.Event()
        progress = meter.progress
        meter.flush(log=done == self.steps)
        with meter.paused():
            selection_score = None
            if self._validates(done) and not stopping:
                with contextlib.suppress(StopRequested):
                    state, selection_score = self._validate(
                        done, state, progress, stopped
                    )
            self.writers.flush()  # what a checkpoint counts as logged is
            content = self.checkpoint_state(state, carry)
            self.checkpoints.save(done, content, progress.to_json(), selection_score)
        return state

    def _validate(self, done, state, progress, stopped) -> tuple[TrainState, float]:
        """The state, told of its loss, and how good it is: larger is better."""
        metrics = self.validate(state, stopped)
        self.writers.write(done, "validation", metrics)
        state = state.replace(opt_state=on_validation(state.opt_state, metrics["loss"]))
        name, direction = self.best
        selection_score = metrics[name] if direction == "max" else -metrics[name]
        progress.record_validation(done, selection_score)
        return state, selection_score


def is_every(step: int, every: int) -> bool:
    """Whether what happens every so many steps does; 0: it never does."""
    return every > 0 and step % every == 0
