"""The training loop: when to log, validate, save and stop."""

import contextlib
import dataclasses
import enum
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import jax
import numpy as np
from jaxtyping import PyTree

from training.checkpoint import Checkpoints
from training.metric_writers import MetricsFile, PlainConsole, TensorBoard
from training.metrics import TrainProgress, WeightedMetrics, compute, merge
from training.optim.on_validation import on_validation
from training.prefetch import Prefetch
from training.profiling.environment import peak_memory_bytes
from training.signals import StopRequested, graceful_stop
from training.step import TrainState, is_finite
from utils.allocator import return_unused_memory, trim_heap


class ExitStatus(enum.IntEnum):
    """Reason why training ended, as the exit code of the process."""

    FINISHED = 0  # all steps, or early stopping
    NOT_FINITE = 3  # too many consecutive non-finite steps, or such parameters
    SPIKED = 4  # a spike of the loss; nothing after it is saved
    STOPPED = 75  # a signal; the same command resumes


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """Settings of the training loop, in steps if not in minutes; 0 means never."""

    steps: int  # the last step
    log_every: int
    eval_every: int
    save_every: int
    patience: int  # validations without a better score that end training
    max_nonfinite_steps: int  # consecutive ones that end training
    metric: str  # the validation score that selects checkpoints
    direction: str  # "min" or "max", of that score
    unit: str = "tokens"  # what the weights of the loss count
    save_minutes: float = 0.0  # after a checkpoint, until the next at the latest

    def validates_at(self, step: int) -> bool:
        """Whether a validation follows a step."""
        return step == self.steps or is_every(step, self.eval_every)

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint follows a step."""
        return self.validates_at(step) or is_every(step, self.save_every)


def is_every(step: int, every: int) -> bool:
    """Whether a step is a multiple of `every`; never for 0."""
    return every > 0 and step % every == 0


def no_watchdog(kind: str, number: int) -> AbstractContextManager:
    """Returns a context without effect, for a run that no watchdog guards."""
    return contextlib.nullcontext()


class RunRecord:
    """Log, checkpoints and progress of one run, and the decisions they lead to.

    A line of the log sums up the steps since the line before. `diverged_steps` are the
    consecutive non-finite steps that end the run, if any. `is_halted` is set by a spike
    of the loss that ends the run, and `is_rewound` if it then continues from its newest
    checkpoint.
    """

    def __init__(
        self,
        settings: LoopSettings,
        progress: TrainProgress,
        writers: Sequence[MetricsFile | TensorBoard | PlainConsole],
        checkpoints: Checkpoints,
        peak_flops: float | None = None,
        check_loss: Callable[["RunRecord", int, WeightedMetrics], None] | None = None,
    ):
        """Starts the clock of training.

        Args:
          peak_flops: FLOP/s of all devices together; None: no `mfu` is logged.
          check_loss: finds spikes of the loss (training/spikes.py); None: nothing does.
        """
        self.settings, self.progress = settings, progress
        self.writers, self.checkpoints = writers, checkpoints
        self.peak_flops, self._check_loss = peak_flops, check_loss
        self.diverged_steps: list[int] = []
        self.is_halted = self.is_rewound = False
        self._data_wait = 0.0
        self._mark = time.monotonic()

    def add(
        self,
        step: int,
        metrics: WeightedMetrics,
        data_wait: float,
        flops: int,
        *,
        log: bool = False,
    ) -> None:
        """Adds the metrics of a step, already on the host; may write a line.

        Args:
          data_wait: seconds the step waited for its batch.
          flops: FLOPs of the step.
          log: write a line whatever `settings.log_every` says.
        """
        progress = self.progress
        if float(metrics["nonfinite_steps"][0]):
            progress.nonfinite_steps += 1
            progress.consecutive_nonfinite = [*progress.consecutive_nonfinite, step]
        else:
            progress.consecutive_nonfinite = []
        if self._check_loss is not None:
            self._check_loss(self, step, metrics)
        if self.is_halted:
            return
        progress.totals = merge(progress.totals, metrics)
        progress.window_flops += flops
        self._data_wait += data_wait
        if log or is_every(step, self.settings.log_every):
            self._write_line(step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes validation and saving from the time of training."""
        self._advance_clock()
        yield
        self._mark = time.monotonic()

    def _advance_clock(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._mark
        self.progress.window_seconds += now - self._mark
        self._mark = now

    def _write_line(self, step: int) -> None:
        self._advance_clock()
        progress = self.progress
        metrics = compute(progress.totals)
        seconds = max(progress.window_seconds, 1e-9)
        metrics["nonfinite_steps"] = progress.nonfinite_steps
        rate = f"{self.settings.unit}_per_second"
        metrics[rate] = progress.totals["loss"][1] / seconds
        metrics["data_wait_fraction"] = min(self._data_wait / seconds, 1.0)
        if self.peak_flops is not None:
            metrics["flops_per_second"] = progress.window_flops / seconds
            metrics["mfu"] = metrics["flops_per_second"] / self.peak_flops
        if (peak := peak_memory_bytes()) is not None:
            metrics["peak_memory_bytes"] = peak
        metrics["seconds"] = progress.seconds
        self.write(step, "train", metrics)
        progress.totals, progress.last_logged = {}, step
        progress.window_seconds, progress.window_flops = 0.0, 0
        self._data_wait = 0.0

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes a line of the log; of split "watch", to files only."""
        for writer in self.writers:
            writer.write(step, split, metrics)

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
        self.write(step, "validation", metrics)
        score = metrics[self.settings.metric]
        score = score if self.settings.direction == "max" else -score
        self.progress.record_validation(step, score)
        return score

    def save(self, step: int, content: PyTree, selection_score: float | None) -> None:
        """Saves a checkpoint, after the log that it counts as written."""
        for writer in self.writers:
            writer.flush()
        progress = dataclasses.asdict(self.progress)
        self.checkpoints.save(step, content, progress, selection_score)


@dataclasses.dataclass
class TrainLoop:
    """Training of one run, or of several trials with their own records.

    This class trains one run; training/vmapped_trials/loop.py overrides the methods
    in which several trials differ. Trials may end at different steps.

    Attributes:
      records: log, checkpoints and progress of each trial.
      step: compiled, (state, carry, batch) -> (state, carry, metrics).
      batch: returns batch k on the devices.
      checkpoint_state: returns the content of a checkpoint for state and carry.
      validate: returns the metrics of the validation split for a state; may raise
        StopRequested once the event that it gets is set.
      flops: returns the FLOPs of a step for the batch's number and the batch.
      sync_stop: of several processes, whether any was asked to stop, given whether
        this one was; None: there is only this process.
      sync_save: the same for a checkpoint that the clock asks for.
      stop_requests: returns the trials that are to save and end.
      waiting: context of a wait, given its kind and number (training/watchdog.py).
      observe: is called before a step with its number, counted from 1, and its inputs,
        which the step donates (training/observe/hook.py); None: nothing is.
      stopped: event that signals set.
      on_exit: is called with a trial that ended, and why.
    """

    settings: LoopSettings
    records: Sequence[RunRecord]
    step: Callable
    batch: Callable[[int], PyTree]
    checkpoint_state: Callable[[TrainState, PyTree], PyTree]
    validate: Callable[[TrainState, threading.Event], dict[str, float]]
    flops: Callable[[int, PyTree], int]
    sync_stop: Callable[[bool], bool] | None = None
    sync_save: Callable[[bool], bool] | None = None
    stop_requests: Callable[[], Iterable[int]] = tuple
    waiting: Callable[[str, int], AbstractContextManager] = no_watchdog
    observe: Callable[..., None] | None = None
    on_exit: Callable[[int, ExitStatus], None] = lambda k, status: None
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __post_init__(self):
        self.active: list[int] = []
        self._pending: tuple | None = None
        self._saved_at = time.monotonic()

    def train(self, state: TrainState, carry: PyTree) -> TrainState:
        """Trains from the step of `state`; returns the last state, which is saved."""
        settings, step = self.settings, int(np.max(jax.device_get(state.step)))
        first, self._pending = step, None
        self.active = list(range(len(self.records)))
        with (
            graceful_stop(self.stopped) as stopped,
            Prefetch(self.batch, first, settings.steps) as batches,
        ):
            stopping = self._all_if_stopped(stopped)
            unvalidated = [
                k for k in self.active if self.records[k].progress.last_validated < step
            ]
            if unvalidated and settings.validates_at(step):
                # A stop interrupted the validation of this step.
                state = self._save(step, state, carry, unvalidated, stopping, stopped)
                stopping |= self._all_if_stopped(stopped)
            self._end_trials(step, state, stopping)
            while self.active:
                with self.waiting("batch", step):
                    batch = batches.next()
                flops = self.flops(step, batch)
                step += 1
                with self.waiting("step", step):
                    state, carry, metrics = self._call_step(step, state, carry, batch)
                self._read_metrics()
                self._pending = step, metrics, batches.take_wait_seconds(), flops
                trim_heap(step - first)
                diverged = {k for k in self.active if self.records[k].has_diverged()}
                stopping = self._stopping(stopped)
                is_due = settings.saves_at(step) or self._is_save_overdue()
                saving = set(self.active) if is_due else stopping | diverged
                if saving:
                    state = self._save(
                        step, state, carry, sorted(saving), stopping, stopped
                    )
                    stopping |= self._stopping(stopped) & saving
                    self._end_trials(step, state, stopping | diverged)
        return state

    def _call_step(self, step, *inputs):
        if self.observe is not None:
            self.observe(step, *inputs)
        return self.step(*inputs)

    def _trial(self, tree: PyTree, k: int) -> PyTree:
        """Returns the part of a state or carry that belongs to a trial."""
        return tree

    def _trial_metrics(self, metrics: WeightedMetrics, k: int) -> WeightedMetrics:
        """Returns the metrics of one trial, given those of all on the host."""
        return metrics

    def _update_on_validation(self, opt_state: PyTree, losses: dict[int, float]):
        """Returns the optimizer state after the validations of some trials."""
        return on_validation(opt_state, losses[0])

    def _all_if_stopped(self, stopped: threading.Event) -> set[int]:
        """Returns all trials after a signal, the same in all processes."""
        is_set = stopped.is_set()
        if self.sync_stop is not None:
            is_set = self.sync_stop(is_set)
        return set(self.active) if is_set else set()

    def _stopping(self, stopped: threading.Event) -> set[int]:
        """Returns the trials that are asked to stop."""
        requested = set(self.active) & set(self.stop_requests())
        return self._all_if_stopped(stopped) | requested

    def _is_save_overdue(self) -> bool:
        """Whether `save_minutes` have passed, by the clock of the first process."""
        if not self.settings.save_minutes:
            return False
        seconds = time.monotonic() - self._saved_at
        is_overdue = seconds > 60 * self.settings.save_minutes
        if is_overdue:
            self._saved_at = time.monotonic()  # the others' answer takes another step
        if self.sync_save is None:
            return is_overdue
        return self.sync_save(is_overdue and jax.process_index() == 0)

    def _end_trials(self, step: int, state: TrainState, ending: set[int]) -> None:
        """Ends the given trials and those that are complete; all are saved."""
        for k in self.active:
            record = self.records[k]
            if k in ending or record.is_complete(step):
                # No step from parameters that are not finite is a finite one.
                steps = record.progress.consecutive_nonfinite
                if steps and not is_finite(self._trial(state.params, k)):
                    record.diverged_steps = steps
                self._end_trial(k, step, record.exit_status(step))

    def _end_trial(self, k: int, step: int, status: ExitStatus) -> None:
        """Ends a trial once its checkpoints are written."""
        with self.waiting("save", step):
            self.records[k].checkpoints.close()
        self.on_exit(k, status)
        self.active = [other for other in self.active if other != k]

    def _read_metrics(self) -> None:
        """Waits for the step dispatched last and adds its metrics to each record.

        It ends the trials that a spike halts; nothing is saved after it.

        A step is read after the next one was dispatched, so that the device has work
        while the host waits.
        """
        if self._pending is None:
            return
        (step, metrics, *cost), self._pending = self._pending, None
        with self.waiting("step", step):
            metrics = jax.device_get(metrics)
        is_last = step == self.settings.steps
        for k in self.active:
            trial_metrics = self._trial_metrics(metrics, k)
            self.records[k].add(step, trial_metrics, *cost, log=is_last)
        for k in [k for k in self.active if self.records[k].is_halted]:
            self._end_trial(k, step, ExitStatus.SPIKED)

    def _save(self, step, state, carry, saving, stopping, stopped) -> TrainState:
        """Saves trials, after a validation if one is due of those not in `stopping`."""
        self._read_metrics()
        saving = [k for k in saving if k in self.active]
        with contextlib.ExitStack() as stack:
            for k in self.active:
                stack.enter_context(self.records[k].paused())
            scores = {}
            if self.settings.validates_at(step):
                validated = [k for k in saving if k not in stopping]
                state, scores = self._validate(step, state, validated, stopped)
            for k in saving:
                with self.waiting("save", step):
                    content = self.checkpoint_state(*self._trial((state, carry), k))
                    self.records[k].save(step, content, scores.get(k))
        self._saved_at = time.monotonic()
        return_unused_memory()  # of the validation and of the copy that was saved
        return state

    def _validate(self, step, state, trials, stopped):
        """Returns the state after the validations, and the scores by trial.

        A signal interrupts a validation, except that of several processes, which
        would be interrupted at different batches.
        """
        if self.sync_stop is not None:
            stopped = threading.Event()
        scores, losses = {}, {}
        with contextlib.suppress(StopRequested):
            for k in trials:
                with self.waiting("validation", step):
                    metrics = self.validate(self._trial(state, k), stopped)
                scores[k] = self.records[k].record_validation(step, metrics)
                losses[k] = metrics["loss"]
        if losses:
            opt_state = self._update_on_validation(state.opt_state, losses)
            state = state.replace(opt_state=opt_state)
        return state, scores
