"""The loop around the step: when to log, to validate, to save and to stop."""

import contextlib
import dataclasses
import enum
import threading
from collections.abc import Callable

from jaxtyping import PyTree

from training.checkpoint import Checkpoints
from training.metric_logger import Meter
from training.metric_writers import Writers
from training.optim.nt_asgd import observe
from training.prefetch import Prefetch
from training.progress import Progress
from training.signals import StopRequested, stop_requests
from training.step import Step, TrainState
from utils.allocator import give_back_gaps


class Ending(enum.IntEnum):
    """Why training came to an end, as an exit code."""

    FINISHED = 0  # all steps, or no better score for long enough
    NOT_FINITE = 3  # too many steps in a row without a finite loss
    STOPPED = 75  # a signal; the same command goes on


@dataclasses.dataclass
class Run:
    """One training run.

    Attributes:
      step: compiled, (state, carry, batch) -> (state, carry, pairs).
      batch: gives the batch of a number, on the devices.
      content: what a checkpoint keeps of state and carry.
      validate: from a state to the validation split's metrics; it may raise
        StopRequested once the event it is given is set.
      best: the metric that chooses checkpoints, and "min" or "max".
      log_every, eval_every, save_every: in steps; 0 is never.
      patience: validations without a better score that end training; 0: none do.
      max_nonfinite_steps: steps in a row that may be skipped.
      flops: from a batch and its number to those of its step; None: unknown.
      ceiling: FLOP/s of all devices at most.
      agree: of several processes, from whether one was asked to stop to whether all
        do; None: there is one.
    """

    step: Step
    batch: Callable[[int], PyTree]
    content: Callable[[TrainState, PyTree], PyTree]
    validate: Callable[[TrainState, threading.Event], dict[str, float]]
    best: tuple[str, str]
    steps: int
    log_every: int
    eval_every: int
    save_every: int
    patience: int
    max_nonfinite_steps: int
    checkpoints: Checkpoints
    writers: Writers
    flops: Callable[[int, PyTree], int] | None = None
    ceiling: float | None = None
    agree: Callable[[bool], bool] | None = None

    def train(
        self, state: TrainState, carry: PyTree, progress: Progress
    ) -> tuple[TrainState, Ending]:
        """Trains from where `state` and `progress` are.

        Returns the state, which is on disk by then, and why this is the end.
        """
        meter = Meter(progress, self.writers, self.log_every, self.ceiling)
        done = begun = int(state.step)
        with (
            stop_requests() as stopped,
            Prefetch(self.batch, done, self.steps) as batches,
        ):
            stopping = self._stops(stopped)
            if done > progress.validated and self._validates(done):  # was cut short
                state = self._keep(done, state, carry, meter, stopped, stopping)
                stopping |= self._stops(stopped)
            while not (self._ended(done, progress) or stopping):
                batch = batches.next()
                flops = self.flops(done, batch) if self.flops else 0
                state, carry, pairs = self.step(state, carry, batch)
                done += 1
                meter.push(done, pairs, batches.lap(), flops)
                give_back_gaps(done - begun)
                skipped = progress.in_a_row
                broken = len(skipped) >= self.max_nonfinite_steps
                stopping = self._stops(stopped)
                if self._saves(done) or stopping or broken:
                    state = self._keep(done, state, carry, meter, stopped, stopping)
                    stopping |= self._stops(stopped)
                if broken:  # also where the step under way was not skipped
                    progress.in_a_row = progress.in_a_row or skipped
                    break
            self.checkpoints.close()
        if len(progress.in_a_row) >= self.max_nonfinite_steps:
            return state, Ending.NOT_FINITE
        ended = self._ended(done, progress) and progress.validated == done
        return state, Ending.FINISHED if ended else Ending.STOPPED

    def _stops(self, stopped: threading.Event) -> bool:
        """Whether this is to stop; the same in all processes."""
        asked = stopped.is_set()
        return asked if self.agree is None else self.agree(asked)

    def _ended(self, done: int, progress: Progress) -> bool:
        impatient = 0 < self.patience <= progress.stale
        return done >= self.steps or impatient

    def _validates(self, done: int) -> bool:
        return done == self.steps or is_due(done, self.eval_every)

    def _saves(self, done: int) -> bool:
        return self._validates(done) or is_due(done, self.save_every)

    def _keep(self, done, state, carry, meter, stopped, stopping) -> TrainState:
        """Saves, after a validation if one is due and no signal cuts it short.

        Several processes would be cut short at different places, so none is.
        """
        if self.agree is not None:
            stopped = threading.Event()
        progress = meter.progress
        meter.flush(log=done == self.steps)
        with meter.paused():
            goodness = None
            if self._validates(done) and not stopping:
                with contextlib.suppress(StopRequested):
                    state, goodness = self._judge(done, state, progress, stopped)
            self.writers.flush()  # what a checkpoint counts as logged is
            content = self.content(state, carry)
            self.checkpoints.save(done, content, progress.to_json(), goodness)
        return state

    def _judge(self, done, state, progress, stopped) -> tuple[TrainState, float]:
        """The state, told of its loss, and how good it is: larger is better."""
        metrics = self.validate(state, stopped)
        self.writers.write(done, "validation", metrics)
        state = state.replace(opt_state=observe(state.opt_state, metrics["loss"]))
        name, direction = self.best
        goodness = metrics[name] if direction == "max" else -metrics[name]
        progress.judge(done, goodness)
        return state, goodness


def is_due(step: int, every: int) -> bool:
    """Whether what happens every so many steps does; 0: it never does."""
    return every > 0 and step % every == 0
