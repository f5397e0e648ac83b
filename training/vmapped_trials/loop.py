"""The loop around the step of a population: each member logs, is validated, saved
and ended as in a run of its own (loop.py)."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from training.checkpoint import Checkpoints
from training.loop import ExitStatus, is_every
from training.metric_logger import MetricLogger
from training.metric_writers import MetricWriters
from training.prefetch import Prefetch
from training.progress import TrainProgress
from training.signals import StopRequested, graceful_stop
from training.step import TrainState
from training.vmapped_trials.partitioner import VmappedPartitioner
from training.vmapped_trials.step import (
    listens,
    mask,
    select_trial_metrics,
    update_trials_on_validation,
)
from utils.allocator import trim_heap


@dataclasses.dataclass
class Trial:
    """One run of a population.

    Attributes:
      ending: why it came to an end; None: it trains.
    """

    progress: TrainProgress
    meter: MetricLogger
    writers: MetricWriters
    checkpoints: Checkpoints
    ending: ExitStatus | None = None


@dataclasses.dataclass
class VmappedTrainLoop:
    """The training of all members; see `loop.Run` for what is not said here.

    Attributes:
      step: compiled, (active, state, carry, batch) -> (state, carry, pairs).
      checkpoint_state: what a checkpoint keeps of a member's state and carry.
      validate: from a member's state to its metrics.
      asked: the members that are to save and end.
      ended: is told of a member that came to an end, and why.
    """

    members: Sequence[Trial]
    partitioner: VmappedPartitioner
    step: Callable
    batch: Callable[[int], PyTree]
    checkpoint_state: Callable[[TrainState, PyTree], PyTree]
    validate: Callable[[TrainState, threading.Event], dict[str, float]]
    best: tuple[str, str]
    steps: int
    eval_every: int
    save_every: int
    patience: int
    max_nonfinite_steps: int
    flops: Callable[[int, PyTree], int]
    asked: Callable[[], Iterable[int]] = tuple
    ended: Callable[[int, ExitStatus], None] = lambda k, ending: None

    def __post_init__(self):
        self._sent = None
        self._tell = self.partitioner.map(update_trials_on_validation)

    @property
    def active(self) -> list[int]:
        """The members that train."""
        return [k for k, member in enumerate(self.members) if member.ending is None]

    def train(self, state: TrainState, carry: PyTree, done: int) -> TrainState:
        """Trains all members from the step they have `done` to their ends."""
        with (
            graceful_stop() as stopped,
            Prefetch(self.batch, done, self.steps) as batches,
        ):
            behind = [
                k for k in self.active if self.members[k].progress.last_validated < done
            ]
            if behind and self._validates(done):  # was cut short
                state = self._save(done, state, carry, behind, set(), stopped)
            active = set(self.active)
            self._settle(done, active if stopped.is_set() else set(), active)
            active, begun = None, done
            while self.active:
                if active != self.active:
                    active = self.active
                    flags = self.partitioner.put(mask(active, len(self.members)))
                batch = batches.next()
                flops = self.flops(done, batch)
                state, carry, pairs = self.step(flags, state, carry, batch)
                done += 1
                self._read()
                self._sent = done, pairs, batches.take_wait_seconds(), flops
                trim_heap(done - begun)
                leaving = self._leaving(stopped)
                skipped = {
                    k: self.members[k].progress.consecutive_nonfinite
                    for k in self._broken()
                }
                keeping = self.active if self._saves(done) else leaving | set(skipped)
                if keeping:
                    state = self._save(done, state, carry, keeping, leaving, stopped)
                    leaving |= self._leaving(stopped) & set(keeping)
                    for k, steps in skipped.items():  # the one under way may not be
                        progress = self.members[k].progress
                        progress.consecutive_nonfinite = (
                            progress.consecutive_nonfinite or steps
                        )
                    self._settle(done, leaving, set(keeping))
        return state

    def _leaving(self, stopped: threading.Event) -> set[int]:
        """Members that are asked to end."""
        active = set(self.active)
        return active if stopped.is_set() else active & set(self.asked())

    def _broken(self) -> set[int]:
        """Members that had too many steps in a row without a finite loss."""
        return {
            k
            for k in self.active
            if len(self.members[k].progress.consecutive_nonfinite)
            >= self.max_nonfinite_steps
        }

    def _settle(self, done: int, leaving: set[int], kept: set[int]) -> None:
        """Ends those members whose end it is; what they did is on disk then.

        Args:
          kept: the members that were just saved.
        """
        broken = self._broken() & kept
        for k in self.active:
            progress = self.members[k].progress
            impatient = 0 < self.patience <= progress.evals_since_best
            if k in broken:
                self._end(k, ExitStatus.NOT_FINITE)
            elif (done >= self.steps or impatient) and progress.last_validated == done:
                self._end(k, ExitStatus.FINISHED)
            elif k in leaving or done >= self.steps:
                self._end(k, ExitStatus.STOPPED)

    def _end(self, k: int, ending: ExitStatus) -> None:
        self.members[k].checkpoints.close()
        self.members[k].ending = ending
        self.ended(k, ending)

    def _validates(self, done: int) -> bool:
        return done == self.steps or is_every(done, self.eval_every)

    def _saves(self, done: int) -> bool:
        return self._validates(done) or is_every(done, self.save_every)

    def _read(self) -> None:
        """Hands the pairs of the step sent last to the members, and waits for it."""
        if self._sent is None:
            return
        (done, pairs, waited, flops), self._sent = self._sent, None
        found = jax.device_get(pairs)
        for k in self.active:
            meter = self.members[k].meter
            meter.record(done, select_trial_metrics(found, k), waited, flops)
            meter.flush(log=done == self.steps)

    def _save(self, done, state, carry, keeping, leaving, stopped) -> TrainState:
        """Saves members, after a validation if one is due; no clock of theirs runs."""
        self._read()
        with contextlib.ExitStack() as stack:
            for k in self.active:
                stack.enter_context(self.members[k].meter.paused())
            selection_score = {}
            if self._validates(done):
                judging = [k for k in keeping if k not in leaving]
                state, selection_score = self._validate(done, state, judging, stopped)
            for k in keeping:
                member = self.members[k]
                member.writers.flush()  # what a checkpoint counts as logged is
                content = self.checkpoint_state(
                    *self.partitioner.member((state, carry), k)
                )
                document = member.progress.to_json()
                member.checkpoints.save(done, content, document, selection_score.get(k))
        return state

    def _validate(self, done, state, judging, stopped):
        """The state, told of losses, and how good members are: larger is better.

        Of those that a signal left time for.
        """
        name, direction = self.best
        selection_score, losses = {}, np.zeros(len(self.members), np.float32)
        with contextlib.suppress(StopRequested):
            for k in judging:
                member = self.members[k]
                metrics = self.validate(self.partitioner.member(state, k), stopped)
                member.writers.write(done, "validation", metrics)
                selection_score[k] = metrics[name] * (1 if direction == "max" else -1)
                losses[k] = metrics["loss"]
                member.progress.record_validation(done, selection_score[k])
        if selection_score and listens(state.opt_state):
            heard = self.partitioner.put(mask(list(selection_score), len(self.members)))
            losses = self.partitioner.put(losses)
            state = state.replace(opt_state=self._tell(state.opt_state, losses, heard))
        return state, selection_score
