"""The training loop of several trials that share one compiled step.

Each trial logs, is validated, saved and ended as in a run of its own
(training/loop.py). Trials may end at different steps; the others continue.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from training.loop import ExitStatus, LoopSettings, RunRecord
from training.prefetch import Prefetch
from training.signals import StopRequested, graceful_stop
from training.step import TrainState
from training.vmapped_trials.partitioner import VmappedPartitioner
from training.vmapped_trials.step import (
    needs_validation_loss,
    select_trial_metrics,
    trial_mask,
    update_trials_on_validation,
)
from utils.allocator import trim_heap


@dataclasses.dataclass
class VmappedTrainLoop:
    """Training of K trials; `TrainLoop` describes the other fields.

    Attributes:
      records: log, checkpoints and progress of each trial.
      step: compiled, (active, state, carry, batch) -> (state, carry, metrics).
      checkpoint_state: returns the content of one trial's checkpoint.
      stop_requests: returns the trials that are to save and end.
      on_exit: is called with a trial that ended, and why.
    """

    settings: LoopSettings
    records: Sequence[RunRecord]
    partitioner: VmappedPartitioner
    step: Callable
    batch: Callable[[int], PyTree]
    checkpoint_state: Callable[[TrainState, PyTree], PyTree]
    validate: Callable[[TrainState, threading.Event], dict[str, float]]
    flops: Callable[[int, PyTree], int]
    stop_requests: Callable[[], Iterable[int]] = tuple
    on_exit: Callable[[int, ExitStatus], None] = lambda k, status: None

    def __post_init__(self):
        self.active = list(range(len(self.records)))
        self._pending = None
        self._on_validation = self.partitioner.map(update_trials_on_validation)

    def train(self, state: TrainState, carry: PyTree, step: int) -> TrainState:
        """Trains all trials from a step to their ends."""
        settings, first = self.settings, step
        with (
            graceful_stop() as stopped,
            Prefetch(self.batch, first, settings.steps) as batches,
        ):
            unvalidated = [
                k for k in self.active if self.records[k].progress.last_validated < step
            ]
            if unvalidated and settings.validates_at(step):
                # A stop interrupted the validation of this step.
                state = self._save(step, state, carry, unvalidated, set(), stopped)
            stopping = set(self.active) if stopped.is_set() else set()
            self._end_trials(step, stopping, set(self.active))
            masked = None
            while self.active:
                if masked != self.active:
                    masked = self.active
                    active = self.partitioner.put(trial_mask(masked, len(self.records)))
                batch = batches.next()
                flops = self.flops(step, batch)
                state, carry, metrics = self.step(active, state, carry, batch)
                step += 1
                self._read_metrics()
                self._pending = step, metrics, batches.take_wait_seconds(), flops
                trim_heap(step - first)
                stopping = self._stopping(stopped)
                diverged = {k for k in self.active if self.records[k].has_diverged()}
                is_due = settings.saves_at(step)
                saving = set(self.active) if is_due else stopping | diverged
                if saving:
                    state = self._save(
                        step, state, carry, sorted(saving), stopping, stopped
                    )
                    stopping |= self._stopping(stopped) & saving
                    self._end_trials(step, stopping, saving)
        return state

    def _stopping(self, stopped: threading.Event) -> set[int]:
        """Returns the trials that are asked to stop; a signal stops all."""
        active = set(self.active)
        return active if stopped.is_set() else active & set(self.stop_requests())

    def _end_trials(self, step: int, stopping: set[int], saved: set[int]) -> None:
        """Ends the trials that are over, stopped or diverged, and are saved."""
        for k in self.active:
            record = self.records[k]
            status = record.exit_status(step)
            is_over = status is not ExitStatus.STOPPED or step >= self.settings.steps
            if k in stopping or (is_over and k in saved):
                record.checkpoints.close()
                self.on_exit(k, status)
                self.active = [other for other in self.active if other != k]

    def _read_metrics(self) -> None:
        """Waits for the step dispatched last and adds its metrics to each trial's."""
        if self._pending is None:
            return
        (step, metrics, *cost), self._pending = self._pending, None
        metrics = jax.device_get(metrics)
        for k in self.active:
            self.records[k].logger.add(
                step,
                select_trial_metrics(metrics, k),
                *cost,
                log=step == self.settings.steps,
            )

    def _save(self, step, state, carry, saving, stopping, stopped) -> TrainState:
        """Saves trials, after their validation if it is due.

        Args:
          saving: the trials to save.
          stopping: those of them that are not validated before.
        """
        self._read_metrics()
        with contextlib.ExitStack() as stack:
            for k in self.active:
                stack.enter_context(self.records[k].logger.paused())
            scores = {}
            if self.settings.validates_at(step):
                validated = [k for k in saving if k not in stopping]
                state, scores = self._validate(step, state, validated, stopped)
            for k in saving:
                trial = self.partitioner.trial((state, carry), k)
                content = self.checkpoint_state(*trial)
                self.records[k].save(step, content, scores.get(k))
        return state

    def _validate(self, step, state, trials, stopped):
        """Returns the state after the validations, and the scores by trial."""
        scores, losses = {}, np.zeros(len(self.records), np.float32)
        with contextlib.suppress(StopRequested):
            for k in trials:
                metrics = self.validate(self.partitioner.trial(state, k), stopped)
                scores[k] = self.records[k].record_validation(step, metrics)
                losses[k] = metrics["loss"]
        if scores and needs_validation_loss(state.opt_state):
            validated = trial_mask(list(scores), len(self.records))
            inputs = self.partitioner.put((losses, validated))
            opt_state = self._on_validation(state.opt_state, *inputs)
            state = state.replace(opt_state=opt_state)
        return state, scores
