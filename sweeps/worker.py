"""One process of a sweep: it claims trials, runs them and records their outcomes."""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sweeps import trial_state
from sweeps.devices import DeviceAllocation
from sweeps.objective import Objective
from sweeps.progress import ProgressTable, TrialProgress
from sweeps.study import Claim, LeaseLost, Study
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import (
    DONE,
    STOPPED,
    TrialProcess,
    TrialSpec,
    last_log_line,
    outcome_from_exit_code,
)
from sweeps.trial_state import HEARTBEAT_SECONDS, Trial
from training.signals import StopRequested
from utils.errors import UserError

POLL_SECONDS = 0.2  # between two checks of the trials
REFRESH_SECONDS = 2.0  # between two reads of the study, if nothing happens here


@dataclasses.dataclass
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


class SweepWorker:
    """Runs trials until all have ended, one at a time on each device allocation.

    Attributes:
      stopped: event that is set when a signal asks the sweep to stop.
      start: starts the process of a trial.
    """

    def __init__(
        self,
        study: Study,
        configs: TrialConfigs,
        objective: Objective,
        directory: SweepDirectory,
        allocations: Sequence[DeviceAllocation],
        table: ProgressTable,
        stopped: threading.Event,
        *,
        start: Callable[[TrialSpec, DeviceAllocation], TrialProcess] = TrialProcess,
    ):
        self.study, self.configs, self.objective = study, configs, objective
        self.directory, self.allocations = directory, allocations
        self.table, self.stopped, self.start = table, stopped, start
        self.running: list[RunningTrial | None] = [None] * len(allocations)
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
                    return DONE
                self.stopped.wait(POLL_SECONDS)
        except StopRequested:
            pass
        except (UserError, OSError):
            self._stop(record=False)
            raise
        except BaseException:
            for running in filter(None, self.running):
                running.process.kill()
            raise
        finally:
            self.table.close()
        self._stop()
        return STOPPED

    def _step(self) -> bool:
        """Polls all trials and starts new ones; returns whether all have ended."""
        changed = [self._poll(worker) for worker in range(len(self.allocations))]
        idle = None in self.running
        if not any(changed) and time.monotonic() - self.refresh_time < REFRESH_SECONDS:
            return False
        for worker, running in enumerate(self.running):
            if running is None and not self._begin(worker):
                break
        trials = self._refresh()
        self.refresh_time = time.monotonic()
        return idle and all(trial.state in trial_state.ENDED for trial in trials)

    def _refresh(self) -> list[Trial]:
        """Reads the study, shows the progress and writes trials.jsonl."""
        trials = self.study.trials()
        self.directory.write_results([trial.to_json() for trial in trials])
        progress = {
            running.claim.trial: TrialProgress.read(running.process.metrics)
            for running in self.running
            if running is not None
        }
        self.table.show(trials, progress)
        return trials

    def _begin(self, worker: int) -> bool:
        """Starts a trial on a worker's devices; False if there is none to claim."""
        if self.stopped.is_set() or (claim := self.study.claim()) is None:
            return False
        try:
            self.configs.config(claim.point)
        except UserError as error:  # the model of this trial lacks a key of the space
            self.study.finish(claim, trial_state.FAILED, error=str(error))
            return True
        process = self.start(self._spec(claim), self.allocations[worker])
        self.running[worker] = RunningTrial(claim, process, time.monotonic())
        return True

    def _spec(self, claim: Claim) -> TrialSpec:
        workdir, log = self.directory.run(claim.trial), self.directory.log(claim.trial)
        return TrialSpec(self.configs, claim.point, workdir, log)

    def _poll(self, worker: int) -> bool:
        """Checks a worker's trial; returns whether it has ended since the last time."""
        running = self.running[worker]
        if running is None:
            return False
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
        self.running[worker] = None
        return True

    def _follow(self, running: RunningTrial) -> None:
        """Sends a heartbeat, reports new metrics and stops a trial to be pruned."""
        now = time.monotonic()
        if now - running.heartbeat_time > HEARTBEAT_SECONDS:
            self.study.send_heartbeat(running.claim)
            running.heartbeat_time = now
        if self.study.space.pruning is None or running.process.stopping:
            return
        size = _file_size(running.process.metrics)
        if size == running.metrics_size:
            return
        running.metrics_size = size
        values = self.objective.pruning_metric.finite_values(running.process.metrics)
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
            error = last_log_line(process.spec.log, code)
        self.study.finish(claim, outcome, value=value, step=step, error=error)

    def _stop(self, *, record: bool = True) -> None:
        """Lets all trials save and end, so that any process can resume them."""
        all_running = [running for running in self.running if running is not None]
        for running in all_running:
            running.process.stop()
        self._wait(all_running, heartbeats=record)
        self.running = [None] * len(self.running)
        if not record:
            return
        # If the storage is unreachable, other processes see that this one has ended.
        with contextlib.suppress(StopRequested, UserError):
            for running in all_running:
                with contextlib.suppress(LeaseLost):
                    self._record_exit(running, running.process.code())
            trials = self.study.trials()
            self.directory.write_results([trial.to_json() for trial in trials])

    def _wait(self, all_running: Sequence[RunningTrial], *, heartbeats: bool) -> None:
        """Waits until all processes have ended, however long it takes."""
        while alive := [r for r in all_running if r.process.code() is None]:
            for running in alive if heartbeats else ():
                now = time.monotonic()
                if now - running.heartbeat_time > HEARTBEAT_SECONDS:
                    running.heartbeat_time = now
                    with contextlib.suppress(StopRequested, LeaseLost, UserError):
                        self.study.send_heartbeat(running.claim)
            time.sleep(POLL_SECONDS / 4)
        for running in all_running:
            running.process.close()


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
