"""The training loop: when to log, validate, save and stop."""

import contextlib
import dataclasses
import enum
import threading
from collections.abc import Callable

from jaxtyping import PyTree

from training.checkpoint import Checkpoints
from training.metric_writers import MetricWriters
from training.metrics import MetricLogger, TrainProgress
from training.optim.on_validation import on_validation
from training.prefetch import Prefetch
from training.signals import StopRequested, graceful_stop
from training.step import Step, TrainState
from utils.allocator import trim_heap


class ExitStatus(enum.IntEnum):
    """Reason why training ended, as the exit code of the process."""

    FINISHED = 0  # all steps, or early stopping
    NOT_FINITE = 3  # too many consecutive steps without a finite loss
    STOPPED = 75  # a signal; the same command resumes


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """Settings of the training loop, in steps; 0 means never.

    Attributes:
      steps: the last step.
      patience: number of validations without a better score that end training.
      max_nonfinite_steps: consecutive non-finite steps that end training.
      metric: the validation score that selects checkpoints.
      direction: "min" or "max", of that score.
    """

    steps: int
    log_every: int
    eval_every: int
    save_every: int
    patience: int
    max_nonfinite_steps: int
    metric: str
    direction: str

    def validates_at(self, step: int) -> bool:
        """Whether a validation follows a step."""
        return step == self.steps or is_every(step, self.eval_every)

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint follows a step."""
        return self.validates_at(step) or is_every(step, self.save_every)


def is_every(step: int, every: int) -> bool:
    """Whether a step is a multiple of `every`; never for 0."""
    return every > 0 and step % every == 0


class RunRecord:
    """Log, checkpoints and progress of one run, and the decisions they lead to.

    Attributes:
      diverged_steps: the consecutive non-finite steps that end the run, if any.
    """

    def __init__(
        self,
        settings: LoopSettings,
        progress: TrainProgress,
        writers: MetricWriters,
        checkpoints: Checkpoints,
        peak_flops: float | None = None,
    ):
        self.settings, self.progress = settings, progress
        self.writers, self.checkpoints = writers, checkpoints
        self.logger = MetricLogger(
            progress, writers.write, settings.log_every, peak_flops
        )
        self.diverged_steps: list[int] = []

    def has_diverged(self) -> bool:
        """Whether too many consecutive steps were not finite; stays so."""
        steps = self.progress.consecutive_nonfinite
        if len(steps) >= self.settings.max_nonfinite_steps:
            self.diverged_steps = steps
        return bool(self.diverged_steps)

    def is_complete(self, step: int) -> bool:
        """Whether no step is left, or early stopping ends training."""
        patience = self.settings.patience
        stops_early = 0 < patience <= self.progress.evals_since_best
        return step >= self.settings.steps or stops_early

    def exit_status(self, step: int) -> ExitStatus:
        """Returns why a run that ends after a step does so."""
        if self.has_diverged():
            return ExitStatus.NOT_FINITE
        is_validated = self.progress.last_validated == step
        if self.is_complete(step) and is_validated:
            return ExitStatus.FINISHED
        return ExitStatus.STOPPED

    def record_validation(self, step: int, metrics: dict[str, float]) -> float:
        """Logs a validation; returns its selection score, larger is better."""
        self.writers.write(step, "validation", metrics)
        score = metrics[self.settings.metric]
        score = score if self.settings.direction == "max" else -score
        self.progress.record_validation(step, score)
        return score

    def save(self, step: int, content: PyTree, selection_score: float | None) -> None:
        """Saves a checkpoint, after the log that it counts as written."""
        self.writers.flush()
        self.checkpoints.save(step, content, self.progress.to_json(), selection_score)


@dataclasses.dataclass
class TrainLoop:
    """Training of one run.

    Attributes:
      record: the run's log, checkpoints and progress.
      step: compiled, (state, carry, batch) -> (state, carry, metrics).
      batch: returns batch k on the devices.
      checkpoint_state: returns the content of a checkpoint for state and carry.
      validate: returns the metrics of the validation split for a state; may raise
        StopRequested once the event that it gets is set.
      flops: returns the FLOPs of a step for the batch's number and the batch.
      sync_stop: of several processes, whether any was asked to stop, given whether
        this one was; None: there is only this process.
    """

    settings: LoopSettings
    record: RunRecord
    step: Step
    batch: Callable[[int], PyTree]
    checkpoint_state: Callable[[TrainState, PyTree], PyTree]
    validate: Callable[[TrainState, threading.Event], dict[str, float]]
    flops: Callable[[int, PyTree], int] | None = None
    sync_stop: Callable[[bool], bool] | None = None

    def train(self, state: TrainState, carry: PyTree) -> tuple[TrainState, ExitStatus]:
        """Trains from the step of `state`.

        Returns the last state, which is on disk by then, and why training ended.
        """
        settings, record = self.settings, self.record
        step = first = int(state.step)
        with (
            graceful_stop() as stopped,
            Prefetch(self.batch, first, settings.steps) as batches,
        ):
            stop = self._is_stopped(stopped)
            if step > record.progress.last_validated and settings.validates_at(step):
                # A stop interrupted the validation of this step.
                state = self._save(step, state, carry, stopped, stop)
                stop |= self._is_stopped(stopped)
            while not (record.is_complete(step) or stop):
                batch = batches.next()
                flops = self.flops(step, batch) if self.flops else 0
                state, carry, metrics = self.step(state, carry, batch)
                step += 1
                record.logger.record(step, metrics, batches.take_wait_seconds(), flops)
                trim_heap(step - first)
                has_diverged = record.has_diverged()
                stop = self._is_stopped(stopped)
                if settings.saves_at(step) or stop or has_diverged:
                    state = self._save(step, state, carry, stopped, stop)
                    stop |= self._is_stopped(stopped)
                if has_diverged:
                    break
            record.checkpoints.close()
        return state, record.exit_status(step)

    def _is_stopped(self, stopped: threading.Event) -> bool:
        """Whether training is to stop, the same in all processes."""
        is_set = stopped.is_set()
        return is_set if self.sync_stop is None else self.sync_stop(is_set)

    def _save(self, step, state, carry, stopped, stop) -> TrainState:
        """Saves a checkpoint, after a validation if one is due and no stop is asked.

        A signal interrupts the validation, except that of several processes, which
        would be interrupted at different batches.
        """
        if self.sync_stop is not None:
            stopped = threading.Event()
        logger = self.record.logger
        logger.flush(log=step == self.settings.steps)
        with logger.paused():
            score = None
            if self.settings.validates_at(step) and not stop:
                with contextlib.suppress(StopRequested):
                    metrics = self.validate(state, stopped)
                    score = self.record.record_validation(step, metrics)
                    opt_state = on_validation(state.opt_state, metrics["loss"])
                    state = state.replace(opt_state=opt_state)
            self.record.save(step, self.checkpoint_state(state, carry), score)
        return state
