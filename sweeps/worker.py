"""One process of a sweep: it starts trials, follows them and records their outcomes.

sweeps/scheduler.py selects the trials.
"""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Sequence

from sweeps import trial_state
from sweeps.devices import DeviceAllocation
from sweeps.objective import parse_metrics
from sweeps.progress import ProgressTable
from sweeps.scheduler import Scheduler, checkpoint_steps
from sweeps.storage import Storage
from sweeps.study import Claim, LeaseLost, Study
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import (
    FINISHED,
    STOPPED,
    TrialProcess,
    describe_failure,
    outcome_from_exit_code,
    start_trials,
)
from sweeps.trial_state import RENEWAL_SECONDS, Trial
from training.signals import StopRequested
from utils import strict_json
from utils.errors import UserError

POLL_SECONDS = 0.2  # between two checks of the trials
REFRESH_SECONDS = 2.0  # between two reads of the study, if nothing happens here


def newest_checkpoint(storage: Storage, trial: int) -> int:
    """Returns the step of a trial's newest checkpoint; 0 if there is none."""
    return max(checkpoint_steps(storage, trial), default=0)


@dataclasses.dataclass(eq=False)
class RunningTrial:
    """Trial that this process runs.

    Attributes:
      rows: lines of the log at the last look, which had `size` bytes.
      look_time: time of the last look at the log.
      renewal_time: time of the last renewal of the lease.
    """

    claim: Claim
    process: TrialProcess
    rows: list[dict] = dataclasses.field(default_factory=list)
    size: int | None = None
    look_time: float = -RENEWAL_SECONDS
    renewal_time: float = dataclasses.field(default_factory=time.monotonic)

    def read_metrics(self) -> bool:
        """Reads the log; returns whether it has grown."""
        storage, name = self.process.storage, f"{self.process.run}/metrics.jsonl"
        self.look_time, size = time.monotonic(), storage.size(name)
        if size == self.size:
            return False
        self.rows, self.size = parse_metrics(storage.read_bytes(name)), size
        self.claim.step = self.rows[-1]["step"] if self.rows else None
        return True

    def renew(self, study: Study) -> None:
        """Renews the lease, also for the process of the trial, and saves its output.

        Raises:
          LeaseLost: another process has resumed the trial.
        """
        self.renewal_time = time.monotonic()
        step = newest_checkpoint(study.storage, self.claim.trial)
        self.claim.record_checkpoint(step)
        study.renew(self.claim)
        self.process.renew(self.claim.renewed)
        self.process.log.upload()

    def needs_renewal(self) -> bool:
        """Whether the lease is to be renewed."""
        return time.monotonic() - self.renewal_time > RENEWAL_SECONDS


@dataclasses.dataclass
class SweepWorker:
    """Runs trials until all have ended, on each device allocation one at a time.

    Attributes:
      stopped: event that is set when a signal asks the sweep to stop.
      population: number of trials that train as one program. They start together, since
        they share every batch; the next ones start when all have ended.
      start: starts the process of some trials.
      running: the trials on each device allocation.
    """

    study: Study
    configs: TrialConfigs
    allocations: Sequence[DeviceAllocation]
    table: ProgressTable
    stopped: threading.Event
    population: int = 1
    start: Callable[..., list[TrialProcess]] = start_trials

    def __post_init__(self):
        self.storage = self.study.storage
        self.scheduler = Scheduler(
            self.study, self.configs, self.stopped, self.population
        )
        self.running: list[list[RunningTrial]] = [[] for _ in self.allocations]
        self.refresh_seconds = max(REFRESH_SECONDS, self.storage.poll_seconds)
        self.refresh_time = -self.refresh_seconds
        self.old_results = b""  # trials.jsonl

    def run(self) -> int:
        """Returns exit code 0 once all trials have ended, 75 after a signal.

        Raises:
          UserError: the storage did not answer in time.
          OSError: the folder cannot be written to. In both cases the trials of this
            process have been saved and have ended.
        """
        try:
            while not self.stopped.is_set():
                if self._step():
                    return FINISHED
                self.stopped.wait(POLL_SECONDS)
        except StopRequested:
            pass
        except (UserError, OSError):
            self._stop(record=False)
            raise
        except BaseException:
            for running in self._all_running():
                running.process.kill()
            raise
        finally:
            self.table.close()
        self._stop()
        return STOPPED

    def _all_running(self) -> list[RunningTrial]:
        return [running for trials in self.running for running in trials]

    def _step(self) -> bool:
        """Polls all trials and starts new ones; returns whether all have ended."""
        has_ended = False
        for trials in self.running:
            for running in list(trials):
                if self._poll(running):
                    trials.remove(running)
                    has_ended = True
        is_idle = [] in self.running
        seconds = time.monotonic() - self.refresh_time
        if not has_ended and seconds < self.refresh_seconds:
            return False
        for worker, trials in enumerate(self.running):
            if not trials and not self._begin(worker):
                break
        trials = self.study.trials()
        self.table.show(trials, {r.claim.trial: r.rows for r in self._all_running()})
        self.refresh_time = time.monotonic()
        is_complete = all(trial.state in trial_state.ENDED for trial in trials)
        if has_ended or is_complete or not self.old_results:
            self._write_results(trials)
        return is_idle and is_complete

    def _write_results(self, trials: Sequence[Trial]) -> None:
        """Writes trials.jsonl, if it has changed since this process wrote it."""
        rows = (strict_json.dumps(t.to_json(), ensure_ascii=False) for t in trials)
        content = "".join(f"{row}\n" for row in rows).encode()
        if content != self.old_results:
            self.storage.write_bytes("trials.jsonl", content)
            self.old_results = content

    def _begin(self, worker: int) -> bool:
        """Starts trials on a worker's devices; False if there are none to start."""
        allocation = self.allocations[worker]
        devices = {"kind": allocation.kind, "count": allocation.count}
        claims = self.scheduler.next_trials(devices)
        if claims:
            for claim in claims:
                claim.chips = allocation.count / len(claims)
                claim.checkpoint = newest_checkpoint(self.storage, claim.trial), 0.0
            processes = self.start(
                self.configs,
                claims,
                self.storage,
                allocation,
                vmapped=self.population > 1,
            )
            self.running[worker] = list(map(RunningTrial, claims, processes))
        return bool(claims)

    def _poll(self, running: RunningTrial) -> bool:
        """Checks a trial; returns whether it has ended since the last time."""
        code = running.process.code()
        try:
            if code is None:
                self._follow(running)
                return False
            self._record_exit(running, code)
        except LeaseLost:
            number = running.claim.trial
            print(f"trial {number} was resumed by another process", file=sys.stderr)
            running.process.kill()
        return True

    def _follow(self, running: RunningTrial) -> None:
        """Renews the lease, reads new metrics and stops a trial to be pruned."""
        is_new = False
        if time.monotonic() - running.look_time >= self.storage.poll_seconds:
            is_new = running.read_metrics() and self._compare(running)
        if is_new or running.needs_renewal():
            running.renew(self.study)

    def _compare(self, running: RunningTrial) -> bool:
        """Stops a trial that is to be pruned; returns whether it has new values."""
        claim, before = running.claim, running.claim.values
        values = self.study.objective.pruning_metric.finite_values(running.rows)
        if self.study.should_prune(claim, values):
            running.process.stop()
        return values != before

    def _record_exit(self, running: RunningTrial, code: int) -> None:
        """Records the outcome of a process that has ended."""
        process, claim = running.process, running.claim
        process.close()
        stop_requested = process.stopping or self.stopped.is_set()
        outcome = outcome_from_exit_code(code, stop_requested)
        if claim.is_expired and code < 0:
            outcome = trial_state.INTERRUPTED  # it ended itself
        running.read_metrics()
        # Later trials are compared with the last values, too.
        self._compare(running)
        result = {}
        if final := self.study.objective.final_value(running.rows):
            result = dict(zip(("step", "value"), final, strict=True))
        if outcome == trial_state.INTERRUPTED and claim.compared_with:
            outcome = trial_state.PRUNED
        if outcome == trial_state.DONE and not final:
            outcome = trial_state.DIVERGED  # no validation was finite
        if outcome == trial_state.FAILED:
            result = {"error": describe_failure(process.log, code)}
        if not claim.is_expired:
            process.log.upload()
        self.study.finish(claim, outcome, is_saved=code == STOPPED, **result)

    def _stop(self, *, record: bool = True) -> None:
        """Lets all trials save and end, so that any process can resume them."""
        all_running = self._all_running()
        for running in all_running:
            running.process.stop()
        # However long it takes.
        while alive := [r for r in all_running if r.process.is_alive]:
            for running in alive if record else ():
                if running.needs_renewal():
                    with contextlib.suppress(StopRequested, LeaseLost, UserError):
                        running.renew(self.study)
            time.sleep(POLL_SECONDS / 4)
        self.running = [[] for _ in self.allocations]
        if not record:
            return
        # If the storage is unreachable, other processes see that this one has ended.
        with contextlib.suppress(StopRequested, UserError):
            for running in all_running:
                with contextlib.suppress(LeaseLost):
                    self._record_exit(running, running.process.code())
            self._write_results(self.study.trials())
