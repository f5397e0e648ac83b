"""One process's part in a sweep: it takes trials, watches them and writes down ends."""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sweeps import ledger
from sweeps.devices import Share
from sweeps.leases import HEARTBEAT
from sweeps.ledger import Slot
from sweeps.objective import Objective
from sweeps.progress import Progress, Table
from sweeps.study import Claim, Study, TakenAway
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial import Order, TrialProcess, last_words, meaning
from sweeps.trial_configs import Experiment
from training.signals import StopRequested
from utils.errors import UserError

DONE, STOPPED = 0, 75  # exit codes
POLL = 0.2  # seconds between two looks at the trials
LOOK = 2.0  # and at the study, while there is nothing to do


@dataclasses.dataclass
class Running:
    """A trial of this process.

    Attributes:
      renewed: when its lease was.
      size: bytes it had logged when last looked at.
      pruned: whether it was told to stop since others do better.
    """

    claim: Claim
    process: TrialProcess
    renewed: float
    size: int = 0
    pruned: bool = False


class Sweep:
    """Runs trials until all are done, some at once.

    Attributes:
      shares: a worker's devices each.
      start: begins the process of a trial.
    """

    def __init__(
        self,
        study: Study,
        experiment: Experiment,
        objective: Objective,
        directory: SweepDirectory,
        shares: Sequence[Share],
        table: Table,
        stopped: threading.Event,
        *,
        start: Callable[[Order, Share], TrialProcess] = TrialProcess,
    ):
        self.study, self.experiment, self.objective = study, experiment, objective
        self.directory, self.shares = directory, shares
        self.table, self.stopped, self.start = table, stopped, start
        self.running: list[Running | None] = [None] * len(shares)
        self.looked = -LOOK

    def run(self) -> int:
        """The exit code: 0 once all trials have ended, 75 where a signal came.

        Raises UserError where the storage is away for too long, OSError where
        nothing can be written; trials have saved and ended by then.
        """
        try:
            while not self.stopped.is_set():
                if self._step():
                    return DONE
                self.stopped.wait(POLL)
        except StopRequested:
            pass
        except (UserError, OSError):
            self._stop(record=False)
            raise
        except BaseException:
            for running in filter(None, self.running):
                running.process.kill()
            raise
        self._stop()
        return STOPPED

    def _step(self) -> bool:
        """Whether all trials have ended, here and elsewhere."""
        changed = [self._watch(worker) for worker in range(len(self.shares))]
        idle = None in self.running
        if not any(changed) and time.monotonic() - self.looked < LOOK:
            return False
        for worker, running in enumerate(self.running):
            if running is None and not self._begin(worker):
                break
        slots = self._look()
        self.looked = time.monotonic()
        return idle and all(slot.state in ledger.ENDED for slot in slots)

    def _look(self) -> list[Slot]:
        """Shows how far the study is, and keeps it in a file."""
        slots = self.study.slots()
        self.directory.write_results([slot.to_json() for slot in slots])
        steps = {
            r.claim.slot: Progress.of(r.process.metrics)
            for r in self.running
            if r is not None
        }
        self.table.show(slots, steps)
        return slots

    def _begin(self, worker: int) -> bool:
        """Gives a worker a trial, if there is one."""
        if self.stopped.is_set() or (claim := self.study.claim()) is None:
            return False
        try:
            self.experiment.config(claim.point)
        except UserError as error:  # a key that this trial's model does not have
            self.study.end(claim, ledger.FAILED, error=str(error))
            return True
        order = Order(
            self.experiment,
            claim.point,
            self.directory.run(claim.slot),
            self.directory.log(claim.slot),
        )
        process = self.start(order, self.shares[worker])
        self.running[worker] = Running(claim, process, time.monotonic())
        return True

    def _watch(self, worker: int) -> bool:
        """Looks at a worker's trial; whether the worker is free now, and was not."""
        running = self.running[worker]
        if running is None:
            return False
        code = running.process.code()
        try:
            if code is None:
                self._follow(running)
                return False
            self._settle(running, code)
        except TakenAway:
            print(f"trial {running.claim.slot} was taken over", file=sys.stderr)
            running.process.kill()
        self.running[worker] = None
        return True

    def _follow(self, running: Running) -> None:
        """Renews the lease; hands on what was logged, and stops a bad trial."""
        now = time.monotonic()
        if now - running.renewed > HEARTBEAT:
            self.study.renew(running.claim)
            running.renewed = now
        if self.study.space.pruning is None or running.process.stopping:
            return
        size = _size(running.process.metrics)
        if size == running.size:
            return
        running.size = size
        series = self.objective.pruning.series(running.process.metrics)
        if self.study.report(running.claim, series):
            running.pruned = True
            running.process.stop()

    def _settle(self, running: Running, code: int) -> None:
        """Writes down how a process ended."""
        process, claim = running.process, running.claim
        process.close()
        asked = process.stopping or self.stopped.is_set()
        outcome = meaning(code, asked)
        judged = self.objective.judge(process.metrics)
        step, value = judged or (None, None)
        # What was logged since the last look: later trials are compared with it.
        self.study.report(claim, self.objective.pruning.series(process.metrics))
        if outcome == ledger.INTERRUPTED and running.pruned:
            outcome = ledger.PRUNED
        if outcome == ledger.DONE and judged is None:
            outcome = ledger.DIVERGED  # it has validated, and nothing was finite
        error = None
        if outcome == ledger.FAILED:
            error = last_words(process.order.log, code)
        self.study.end(claim, outcome, value=value, step=step, error=error)

    def _stop(self, *, record: bool = True) -> None:
        """Lets all trials save and end; they are open for whoever comes next."""
        running = [one for one in self.running if one is not None]
        for one in running:
            one.process.stop()
        self._wait(running, renews=record)
        self.running = [None] * len(self.running)
        if not record:
            return
        # Where the storage is away now, the leases end with this process.
        with contextlib.suppress(StopRequested, UserError):
            for one in running:
                with contextlib.suppress(TakenAway):
                    self._settle(one, one.process.code())
            slots = self.study.slots()
            self.directory.write_results([slot.to_json() for slot in slots])

    def _wait(self, running: Sequence[Running], *, renews: bool) -> None:
        """Until all have saved and ended, however long it takes; then closes them."""
        while alive := [one for one in running if one.process.code() is None]:
            for one in alive if renews else ():
                now = time.monotonic()
                if now - one.renewed > HEARTBEAT:
                    one.renewed = now
                    with contextlib.suppress(StopRequested, TakenAway, UserError):
                        self.study.renew(one.claim)
            time.sleep(POLL / 4)
        for one in running:
            one.process.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
