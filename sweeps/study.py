"""Study of a sweep: claims of trials, their leases and their ends.

Processes share it through the documents of sweeps/trial_state.py and nothing else:

- A trial is claimed by creating the start of its next attempt.
- The attempt ends by creating its end. The process that claimed it does so, or one
  that takes the trial over, before it claims the next attempt.
- The owner of an attempt renews its lease by overwriting its live document, after it
  has seen that the attempt has no end.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sweeps import trial_state
from sweeps.adaptive import SuccessiveHalving, sample_point, summarize_trials
from sweeps.objective import Objective
from sweeps.search_space import Distribution, Point, Space
from sweeps.storage import Storage
from sweeps.trial_state import (
    END,
    LEASE_SECONDS,
    LIVE,
    NAME,
    START,
    Attempt,
    LivenessMonitor,
    Trial,
    document_name,
    make_trial,
    seconds_since_boot,
)

NUM_READERS = 16  # documents that are read at once
CPU = {"kind": "cpu", "count": 1}


class LeaseLost(Exception):
    """Another process has resumed a trial, since this one seemed dead."""


@dataclasses.dataclass
class Claim:
    """Attempt of this process at a trial.

    Attributes:
      chips: number of devices that the trial uses, a fraction of those it shares.
      values: values of the pruning metric by step.
      compared_step: step up to which the trial has been compared with others.
      renewed: when the lease was renewed, by `seconds_since_boot`.
      begin: when the attempt started, by the same clock.
      checkpoint: step and seconds of the newest checkpoint.
    """

    trial: int
    index: int
    point: Point
    begin: float
    chips: float = 1.0
    values: dict[int, float] = dataclasses.field(default_factory=dict)
    compared_step: int = -1
    compared_with: dict | None = None
    checkpoint: tuple[int, float] = (0, 0.0)
    step: int | None = None
    renewal: int = 0

    def __post_init__(self):
        self.renewed = self.begin

    @property
    def is_expired(self) -> bool:
        """Whether the lease has ended, so that another process may resume the trial."""
        return seconds_since_boot() - self.renewed > LEASE_SECONDS

    def record_checkpoint(self, step: int) -> None:
        """Notes the newest checkpoint, if it is a new one of this attempt."""
        if step > self.checkpoint[0]:
            self.checkpoint = step, round(seconds_since_boot() - self.begin, 3)

    def progress(self) -> dict:
        """Returns how far the attempt is, and what it has cost."""
        seconds = seconds_since_boot() - self.begin
        return {
            "step": self.step,
            "seconds": round(seconds, 3),
            "chip_seconds": round(seconds * self.chips, 3),
            "lost_seconds": round(seconds - self.checkpoint[1], 3),
            "checkpoint": {"step": self.checkpoint[0], "seconds": self.checkpoint[1]},
            "values": self.values,
        }


@dataclasses.dataclass
class Study:
    """Trials of a sweep.

    Attributes:
      halving: rule that prunes trials; None: no trial is pruned.
      documents: starts and ends of attempts by name, which never change.
      lives: newest live documents by name.
    """

    storage: Storage
    space: Space
    num_trials: int
    objective: Objective
    halving: SuccessiveHalving | None = None
    monitor: LivenessMonitor = dataclasses.field(default_factory=LivenessMonitor)

    def __post_init__(self):
        self.documents: dict[str, dict] = {}
        self.lives: dict[str, dict] = {}

    def trials(self) -> list[Trial]:
        """Reads what is new; returns all trials in their current states."""
        starts, ends = self._find_attempts()
        starts = {trial: k for trial, k in starts.items() if trial < self.num_trials}
        needed = [
            document_name(trial, index, kind)
            for trial, newest in starts.items()
            for index in range(newest + 1)
            for kind in (START, END)
            if kind == START or index < newest or (trial, index) in ends
        ]
        self._read(self.documents, [n for n in needed if n not in self.documents])
        running = [
            (trial, newest)
            for trial, newest in starts.items()
            if document_name(trial, newest, END) not in self.documents
        ]
        self._read(self.lives, [document_name(*key, LIVE) for key in running])
        return [
            self._trial(number, starts.get(number, -1) + 1)
            for number in range(self.num_trials)
        ]

    def _find_attempts(self) -> tuple[dict[int, int], set[tuple[int, int]]]:
        """Returns the newest attempt of each trial, and the attempts with an end.

        What this process has read before is there, even if a listing misses it.
        """
        starts: dict[int, int] = {}
        ends = set()
        for name in {*self.storage.list("study"), *self.documents}:
            if match := NAME.fullmatch(name):
                trial, index, kind = int(match[1]), int(match[2]), match[3]
                starts[trial] = max(starts.get(trial, 0), index)
                if kind == END:
                    ends.add((trial, index))
        return starts, ends

    def _read(self, documents: dict[str, dict], names: Sequence[str]) -> None:
        if not names:
            return
        with ThreadPoolExecutor(min(NUM_READERS, len(names))) as pool:
            found = zip(names, pool.map(self.storage.read, names), strict=True)
            documents.update({name: x for name, x in found if x is not None})

    def _trial(self, number: int, num_attempts: int) -> Trial:
        attempts = tuple(
            Attempt(
                number,
                index,
                self.documents[document_name(number, index, START)],
                self.lives.get(document_name(number, index, LIVE)),
                self.documents.get(document_name(number, index, END)),
            )
            for index in range(num_attempts)
        )
        return make_trial(number, attempts, self.space.retries, self.monitor.is_alive)

    def claim(
        self,
        trial: Trial,
        fits: Callable[[int, Point], bool] | None = None,
        devices: dict = CPU,
    ) -> Claim | None:
        """Starts the next attempt at an open trial; None if another process did.

        Args:
          fits: returns whether to claim a trial with a point.
          devices: "kind" and "count" of the devices that the trial is to use.
        """
        sampled = self._sample(trial)
        if fits and not fits(trial.number, sampled["point"]):
            return None
        last = trial.last
        if last and last.end is None:  # its process has died
            end = {**(last.live or {}), "outcome": trial_state.INTERRUPTED}
            self._create(document_name(trial.number, last.index, END), end)
            trial = self._trial(trial.number, last.index + 1)
            if trial.state != trial_state.OPEN:  # it had only seemed so
                return None
        index, begin = last.index + 1 if last else 0, seconds_since_boot()
        start = {
            "trial": trial.number,
            "attempt": index,
            **sampled,
            "devices": devices,
            **trial_state.this_process(),
            "started": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
        }
        claim = Claim(trial.number, index, start["point"], begin, devices["count"])
        claim.compared_step = max(trial.values, default=-1)
        is_mine = self._create(document_name(trial.number, index, START), start)
        return claim if is_mine else None

    def _sample(self, trial: Trial) -> dict:
        """Returns the point of a trial, and the results from which it was sampled."""
        if trial.point is not None:
            return {"point": trial.point}
        point = self.space.point(trial.number)
        if not any(isinstance(value, Distribution) for value in point.values()):
            return {"point": point}
        trials = self.trials()
        seen = summarize_trials(trials)
        points = {other.number: other.point for other in trials}
        point = sample_point(self.space, self.objective, trial.number, seen, points)
        return {"point": point, "sampled_from": seen}

    def _create(self, name: str, document: dict) -> bool:
        """Creates a document, or reads that of another process; returns whose it is."""
        is_mine = self.storage.create(name, document)
        self.documents[name] = document if is_mine else self.storage.read(name)
        return is_mine

    def renew(self, claim: Claim) -> None:
        """Renews the lease of a trial and records how far it is.

        Raises:
          LeaseLost: another process has ended the attempt.
        """
        now = seconds_since_boot()
        if self.storage.read(document_name(claim.trial, claim.index, END)) is not None:
            raise LeaseLost
        claim.renewal += 1
        clock = {"renewal": claim.renewal, "time": round(time.time(), 3)}
        name = document_name(claim.trial, claim.index, LIVE)
        self.storage.write(name, {**clock, **claim.progress()})
        claim.renewed = now

    def should_prune(self, claim: Claim, values: dict[int, float]) -> bool:
        """Compares a trial with the others at the rungs that it has newly reached.

        Args:
          values: values of the pruning metric by step.
        """
        before = claim.compared_step
        claim.values = values
        claim.compared_step = max([before, *values])
        if self.halving is None or claim.compared_with:  # it is stopping already
            return False
        rungs = self.halving.rungs(claim.trial, values)
        if any(step > before for step, _ in rungs):
            arguments = claim.trial, values, self.trials(), before
            claim.compared_with = self.halving.compare(*arguments)
        return claim.compared_with is not None

    def finish(self, claim: Claim, outcome: str, *, is_saved=False, **result) -> None:
        """Records the outcome of an attempt.

        Args:
          is_saved: whether the trial can be resumed without a loss.

        Raises:
          LeaseLost: another process has ended the attempt.
        """
        end = {"outcome": outcome, **claim.progress(), **result}
        if is_saved or outcome in (trial_state.DONE, trial_state.PRUNED):
            end["lost_seconds"] = 0.0
        if outcome == trial_state.PRUNED:
            end["compared_with"] = claim.compared_with
        if not self._create(document_name(claim.trial, claim.index, END), end):
            raise LeaseLost
