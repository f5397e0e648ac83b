"""The process that trains a trial, or several as one program: both ends of it.

`start_trials` starts it from the sweep's own process. Run as a program, this module is
the process. The first line of its standard input is a JSON object that describes the
trials. Each other line is the index of a trial that is to save and end, or "renewed"
and the time when the sweep's process renewed its lease. At the end of the input, which
means that the sweep's process has died, and at the end of the lease the process kills
itself, since another process may resume the trials and two must not write to one run
directory. A trial that is over writes its exit code to a file of its run directory, so
that it is not started again if nobody saw its end.
"""

import contextlib
import dataclasses
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps import trial_state
from sweeps.devices import DeviceAllocation
from sweeps.storage import Storage, log_name, run_name
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_state import LEASE_SECONDS, seconds_since_boot
from utils import cli

if TYPE_CHECKING:
    from sweeps.slices import Slice
    from sweeps.study import Claim

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "sweeps.trial_process")
EXIT_CODE = "exit_code"  # file of a run directory that is over
STOPPED_MARK = "stopped"  # file of a run directory that a population may resume
POLL_SECONDS = 0.05
# Exit codes of train.py.
FINISHED, NOT_FINITE, SPIKED, STOPPED = 0, 3, 4, 75
OUTCOMES = {
    FINISHED: trial_state.DONE,
    NOT_FINITE: trial_state.DIVERGED,
    SPIKED: trial_state.DIVERGED,
    STOPPED: trial_state.INTERRUPTED,
}
# Exit codes after a signal that comes before a handler is installed.
AFTER_SIGNAL = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)


@dataclasses.dataclass(eq=False)
class TrialProcess:
    """Trial in a process, which may train others at once.

    Attributes:
      run: name of the run directory in the sweep's folder.
      log: output of the process.
      process: None where all trials were over already.
      group: the trials of the process by their index, this one included.
      stopping: whether it was asked to stop.
    """

    storage: Storage
    run: str
    log: "TrialLog"
    process: subprocess.Popen | None
    group: "list[TrialProcess]"
    stopping: bool = False
    look_time: float = -trial_state.EXPIRY_SECONDS
    exit_code: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process of the trial runs, with this trial or others."""
        return self.process is not None and self.process.poll() is None

    def code(self) -> int | None:
        """Returns the exit code of the trial; None while it runs."""
        if self.exit_code is None:
            self.exit_code = self._find_code()
        return self.exit_code

    def _find_code(self) -> int | None:
        # Before the files, which are complete once the process has ended.
        if self.is_alive:
            is_late = time.monotonic() - self.look_time > self.storage.poll_seconds
            if len(self.group) == 1 or not is_late:  # though it may be written already
                return None
            self.look_time = time.monotonic()
        if (code := self.storage.read_bytes(f"{self.run}/{EXIT_CODE}")) is not None:
            return int(code)
        if self.storage.read_bytes(f"{self.run}/{STOPPED_MARK}") is not None:
            return STOPPED
        return self.process and self.process.returncode

    def renew(self, seconds: float) -> None:
        """Tells the process when its lease was renewed, in seconds since boot."""
        if self.process is not None:
            _write_line(self.process, f"renewed {seconds}")

    def stop(self) -> None:
        """Asks the trial to save and end, while the others continue."""
        if self.stopping or not self.is_alive:
            return
        self.stopping = True
        _write_line(self.process, self.group.index(self))
        if all(t.stopping or t.exit_code is not None for t in self.group):
            self.process.send_signal(signal.SIGTERM)  # interrupts compilation, too

    def kill(self) -> None:
        """Ends the process at once, with all of its trials."""
        for trial in self.group:
            trial.stopping = True  # the others did not fail
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()

    def close(self) -> None:
        """Waits for the end of a trial that is ending."""
        while self.code() is None:
            time.sleep(POLL_SECONDS)
        if self.process and all(trial.code() is not None for trial in self.group):
            self.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


class TrialLog:
    """File with the output of a trial's processes, one after the other.

    An object of a bucket cannot grow: there the output goes to a local file, which is
    uploaded whole.
    """

    def __init__(self, storage: Storage, name: str):
        self.storage, self.name, self.uploaded_size = storage, name, 0
        folder = _log_folder().name if storage.is_remote else storage.path
        self.path = Path(folder, name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if storage.is_remote:
            self.uploaded_size = self.path.write_bytes(storage.read_bytes(name) or b"")

    def upload(self) -> None:
        """Copies new output to the bucket, if the sweep is in one."""
        if self.storage.is_remote and self.path.stat().st_size != self.uploaded_size:
            content = self.path.read_bytes()
            self.storage.write_bytes(self.name, content)
            self.uploaded_size = len(content)

    def last_line(self) -> str:
        """Returns the last line that is not empty."""
        lines = self.path.read_text(encoding="utf8", errors="replace").splitlines()
        whole = (line.strip() for line in reversed(lines) if line.strip())
        return next(whole, "no output")


@functools.cache
def _log_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="sweep-logs-")


def start_trials(
    configs: TrialConfigs,
    claims: "Sequence[Claim]",
    storage: Storage,
    devices: DeviceAllocation,
    *,
    vmapped: bool = False,
    group: "Slice | None" = None,
    command: Sequence[str] = COMMAND,
) -> list[TrialProcess]:
    """Starts a process of trials on a worker's devices, unless all are over already.

    The first one's log has the output of all.

    Args:
      vmapped: whether they train as one program, or there is just one, as in train.py.
      group: processes of which each trains a part of the trial.
      command: program that reads the description from its standard input.
    """
    trials = [claim.trial for claim in claims]
    runs = list(map(run_name, trials))
    part = group.process_id if group else 0
    log, *other_logs = [TrialLog(storage, log_name(trial, part)) for trial in trials]
    process = None
    if any(storage.read_bytes(f"{run}/{EXIT_CODE}") is None for run in runs):
        for run in runs:
            storage.delete(f"{run}/{STOPPED_MARK}")
        for other in other_logs:
            with other.path.open("a", encoding="utf8") as file:
                print(f"trains together with others: see {log.name}", file=file)
            other.upload()
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, paths))
        with log.path.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # open as long as this process lives
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **devices.environment, "PYTHONPATH": path},
            )
        document = {
            "configs": dataclasses.asdict(configs),
            "points": [claim.point for claim in claims],
            "workdirs": [str(storage.path / run) for run in runs],
            "cores": devices.cores,
            "vmapped": vmapped,
            "distributed": group and group.distributed,
            "part": part,
            "renewed": min(claim.renewed for claim in claims),
            "lease_seconds": LEASE_SECONDS,
        }
        _write_line(process, json.dumps(document))
    processes: list[TrialProcess] = []
    processes += [TrialProcess(storage, run, log, process, processes) for run in runs]
    return processes


def _write_line(process: subprocess.Popen, line: object) -> None:
    """Writes to the input of a process; if it has ended, its exit code says more."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()


def outcome_from_exit_code(code: int, stop_requested: bool) -> str:
    """Returns the outcome of an attempt (trial_state.py)."""
    if stop_requested and code in AFTER_SIGNAL:
        return trial_state.INTERRUPTED
    return OUTCOMES.get(code, trial_state.FAILED)


def describe_failure(log: TrialLog, code: int, max_length: int = 300) -> str:
    """Returns why a process failed: its exit code and the last line of its log."""
    last = log.last_line().removeprefix("error: ")
    return f"exit code {code}: {last[:max_length]}"


# In the process of the trials.


def main() -> int:
    """Trains the trials; returns the exit code of train.py.

    Of several trials, it is 0 where all are over, 75 where some have only stopped.
    """
    if not (line := read_line()):
        sys.exit("the sweep's process ended")
    spec = json.loads(line)
    stop_requests: set[int] = set()
    arguments = stop_requests, spec["renewed"], spec["lease_seconds"]
    threading.Thread(target=listen, args=arguments, daemon=True).start()
    if spec["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, spec["cores"])  # before a library counts them
    trial_configs = TrialConfigs(**spec["configs"])
    configs = [trial_configs.config(point) for point in spec["points"]]
    workdirs = spec["workdirs"]
    if spec["vmapped"]:
        from sweeps import population

        statuses = population.train(configs, workdirs, stop_requests.copy)
        return STOPPED if STOPPED in statuses else FINISHED
    from experiment import train

    address = spec["distributed"] and train.DistributedConfig(*spec["distributed"])
    code = train.train(configs[0], workdirs[0], address)
    if code in (FINISHED, NOT_FINITE, SPIKED) and spec["part"] == 0:
        write_exit_code(workdirs[0], code)
    return code


def write_exit_code(workdir: str | Path, code: int, name: str = EXIT_CODE) -> None:
    """Marks a run as over; the file is complete or, on a full disk, absent."""
    Storage(workdir).write_bytes(name, b"%d\n" % int(code))


def read_line() -> bytes:
    """Returns a line of the standard input, empty at its end.

    It reads without a buffer, since a thread that waits for input would hold the
    buffer's lock while Python exits.
    """
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            return b""
        line += byte
    return line


def listen(stop_requests: set[int], renewed: float, lease_seconds: float) -> None:
    """Collects requests to stop; kills this process with its input or its lease."""
    while seconds_since_boot() - renewed < lease_seconds:
        if not select.select([0], [], [], 1.0)[0]:
            continue
        if not (line := read_line()):
            break
        word, _, seconds = line.decode().strip().partition(" ")
        if word == "renewed":
            renewed = float(seconds)
        else:
            stop_requests.add(int(word))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cli.run_main(main)
