"""The process of a population, trials that train together: both ends of it.

Its standard input is one line that describes the trials, then the index of each trial
that is to save and end, one a line. The end of the input ends the process at once, as
it does that of a single trial (sweeps/trial_process.py).
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.devices import DeviceAllocation
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import (
    EXIT_CODE,
    STOPPED,
    TrialSpec,
    read_first_line,
    read_line,
    set_cores,
    start_process,
)
from utils import cli

COMMAND = (sys.executable, "-m", "sweeps.vmapped_trials.process")
STOPPED_MARK = "stopped"  # file of a run directory that may be resumed
POLL_INTERVAL = 0.05  # seconds


class PopulationProcess:
    """A process that trains several trials together, on the devices of a worker."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        devices: DeviceAllocation,
        command: Sequence[str] = COMMAND,
    ):
        """Starts the process and hands it the trials.

        Args:
          specs: the trials; the first one's log has the output of all.
          command: program that reads the trials from its standard input.
        """
        self.log = specs[0].log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for spec in specs[1:]:
            with spec.log.open("a", encoding="utf8") as log:
                print(f"trains together with others: see {self.log.name}", file=log)
        for spec in specs:
            (spec.workdir / STOPPED_MARK).unlink(missing_ok=True)
        document = {
            "configs": dataclasses.asdict(specs[0].configs),
            "trials": [
                {"point": spec.point, "workdir": str(spec.workdir)} for spec in specs
            ],
            "cores": devices.cores,
        }
        self.process = start_process(command, document, self.log, devices)
        self.trials = [
            TrialInPopulation(self, index, spec) for index, spec in enumerate(specs)
        ]

    def write(self, line: str) -> None:
        """Writes a line to the process, unless it has ended."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def stop_if_unused(self) -> None:
        """Sends a signal once no trial is to continue, which interrupts compilation."""
        if all(trial.stopping or trial.code() is not None for trial in self.trials):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once, with all its trials."""
        for trial in self.trials:
            trial.stopping = True  # the others did not fail
        self.process.kill()
        self.process.wait()


class TrialInPopulation:
    """One trial of a process, with the methods of a `TrialProcess`."""

    def __init__(self, process: PopulationProcess, index: int, spec: TrialSpec):
        # All trials write to one log.
        self.spec = dataclasses.replace(spec, log=process.log)
        self.process, self.index = process, index
        self.stopping = False

    @property
    def metrics(self) -> Path:
        """Path of the trial's metrics.jsonl."""
        return self.spec.workdir / "metrics.jsonl"

    def code(self) -> int | None:
        """Returns the exit code of the trial; None while it runs."""
        process_code = self.process.process.poll()  # first: its files are whole then
        if (self.spec.workdir / EXIT_CODE).exists():
            return int((self.spec.workdir / EXIT_CODE).read_text())
        if (self.spec.workdir / STOPPED_MARK).exists():
            return STOPPED
        return process_code

    def stop(self) -> None:
        """Asks the trial to save and end, while the others continue."""
        if not self.stopping:
            self.stopping = True
            self.process.write(str(self.index))
            self.process.stop_if_unused()

    def kill(self) -> None:
        """Ends all trials at once, since they share a process."""
        self.process.kill()

    def close(self) -> None:
        """Waits until the trial ends, which must have been asked for."""
        while self.code() is None:
            time.sleep(POLL_INTERVAL)
        if all(trial.code() is not None for trial in self.process.trials):
            self.process.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.process.stdin.close()


# In the process of the population.


def main() -> int:
    """Returns 0 where all trials are over, 75 where some have only stopped."""
    spec = json.loads(read_first_line())
    stop_requests: set[int] = set()
    threading.Thread(target=listen, args=(stop_requests,), daemon=True).start()
    set_cores(spec["cores"])
    trial_configs = TrialConfigs(**spec["configs"])
    configs = [trial_configs.config(trial["point"]) for trial in spec["trials"]]
    workdirs = [Path(trial["workdir"]) for trial in spec["trials"]]
    from sweeps.vmapped_trials import population

    statuses = population.train(configs, workdirs, stop_requests.copy)
    return STOPPED if STOPPED in statuses else 0


def listen(stop_requests: set[int]) -> None:
    """Collects requests to stop, until the input ends."""
    while line := read_line():
        stop_requests.add(int(line))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cli.run_main(main)
