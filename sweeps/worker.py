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
from sweeps.progress import ProgressTable, TrialProgress
from sweeps.scheduler import Scheduler
from sweeps.study import Claim, LeaseLost, Study
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import (
    FINISHED,
    STOPPED,
    TrialProcess,
    last_log_line,
    outcome_from_exit_code,
    start_trials,
)
from sweeps.trial_state import HEARTBEAT_SECONDS, Trial
from training.signals import StopRequested
from utils.errors import UserError

POLL_SECONDS = 0.2  # between two checks of the trials
REFRESH_SECONDS = 2.0  # between two reads of the study, if nothing happens here


@dataclasses.dataclass(eq=False)
class RunningTrial:
    """Trial that this process runs.

    Attributes:
      heartbeat_time: time of the last heartbeat.
      metrics_size: bytes of metrics.jsonl at the last check.
      pruned: whether it was asked to stop since other trials are better.
    """

    claim: Claim
    process: TrialProcess
    heartbeat_time: float
    metrics_size: int = 0
    pruned: bool = False

    def needs_heartbeat(self) -> bool:
        """Whether a heartbeat is due, which is then sent by the caller."""
        now = time.monotonic()
        if now - self.heartbeat_time <= HEARTBEAT_SECONDS:
            return False
        self.heartbeat_time = now
        return True


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
    directory: SweepDirectory
    allocations: Sequence[DeviceAllocation]
    table: ProgressTable
    stopped: threading.Event
    population: int = 1
    start: Callable[..., list[TrialProcess]] = start_trials

    def __post_init__(self):
        self.objective = self.study.objective
        self.scheduler = Scheduler(
            self.study, self.configs, self.directory, self.stopped, self.population
        )
        self.running: list[list[RunningTrial]] = [[] for _ in self.allocations]
        self.refresh_time = -REFRESH_SECONDS

    def run(self) -> int:
        """Returns exit code 0 once all trials have ended, 75 after a signal.

        Raises:
          UserError: the storage did not answer in time.
          OSError: the directory cannot be written to. In both cases the trials of
            this process have been saved and have ended.
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
        if not has_ended and time.monotonic() - self.refresh_time < REFRESH_SECONDS:
            return False
        for worker, trials in enumerate(self.running):
            if not trials and not self._begin(worker):
                break
        trials = self._refresh()
        self.refresh_time = time.monotonic()
        return is_idle and all(trial.state in trial_state.ENDED for trial in trials)

    def _refresh(self) -> list[Trial]:
        """Reads the study, shows the progress and writes trials.jsonl."""
        trials = self._write_results()
        progress = {
            running.claim.trial: TrialProgress.read(running.process.metrics)
            for running in self._all_running()
        }
        self.table.show(trials, progress)
        return trials

    def _write_results(self) -> list[Trial]:
        trials = self.study.trials()
        self.directory.write_results([trial.to_json() for trial in trials])
        return trials

    def _begin(self, worker: int) -> bool:
        """Starts trials on a worker's devices; False if there are none to start."""
        claims = self.scheduler.next_trials()
        if claims:
            processes = self.start(
                self.configs,
                {claim.trial: claim.point for claim in claims},
                self.directory,
                self.allocations[worker],
                vmapped=self.population > 1,
            )
            now = time.monotonic()
            self.running[worker] = [
                RunningTrial(claim, process, now)
                for claim, process in zip(claims, processes, strict=True)
            ]
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
        """Sends a heartbeat, reports new metrics and stops a trial to be pruned."""
        if running.needs_heartbeat():
            self.study.send_heartbeat(running.claim)
        if self.study.space.pruning is None or running.process.stopping:
            return
        metrics = running.process.metrics
        size = metrics.stat().st_size if metrics.exists() else 0
        if size == running.metrics_size:
            return
        running.metrics_size = size
        values = self.objective.pruning_metric.finite_values(metrics)
        if self.study.report(running.claim, values):
            running.pruned = True
            running.process.stop()

    def _record_exit(self, running: RunningTrial, code: int) -> None:
        """Records the outcome of a process that has ended."""
        process, claim = running.process, running.claim
        process.close()
        stop_requested = process.stopping or self.stopped.is_set()
        outcome = outcome_from_exit_code(code, stop_requested)
        final = self.objective.final_value(process.metrics)
        step, value = final or (None, None)
        # Also the values since the last check: later trials are compared with them.
        values = self.objective.pruning_metric.finite_values(process.metrics)
        self.study.report(claim, values)
        if outcome == trial_state.INTERRUPTED and running.pruned:
            outcome = trial_state.PRUNED
        if outcome == trial_state.DONE and final is None:
            outcome = trial_state.DIVERGED  # no validation was finite
        error = None
        if outcome == trial_state.FAILED:
            error = last_log_line(process.log, code)
        self.study.finish(claim, outcome, value=value, step=step, error=error)

    def _stop(self, *, record: bool = True) -> None:
        """Lets all trials save and end, so that any process can resume them."""
        all_running = self._all_running()
        for running in all_running:
            running.process.stop()
        # However long it takes.
        while alive := [r for r in all_running if r.process.code() is None]:
            for running in alive if record else ():
                if running.needs_heartbeat():
                    with contextlib.suppress(StopRequested, LeaseLost, UserError):
                        self.study.send_heartbeat(running.claim)
            time.sleep(POLL_SECONDS / 4)
        for running in all_running:
            running.process.close()
        self.running = [[] for _ in self.allocations]
        if not record:
            return
        # If the storage is unreachable, other processes see that this one has ended.
        with contextlib.suppress(StopRequested, UserError):
            for running in all_running:
                with contextlib.suppress(LeaseLost):
                    self._record_exit(running, running.process.code())
            self._write_results()
