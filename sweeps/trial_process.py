"""The process that trains a trial, or several as one program: both ends of it.

`start_trials` starts it from the sweep's own process. Run as a program, this module is
the process. The first line of its standard input is a JSON object that describes the
trials; each other line is the index of a trial that is to save and end. The end of the
input means that the sweep's process has died; then the trials end at once, since
another process may resume them and two must not write to one run directory. A trial
that is over writes its exit code to a file of its run directory, so that it is not
started again if nobody saw its end.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeps import trial_state
from sweeps.devices import DeviceAllocation
from sweeps.search_space import Point
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_configs import TrialConfigs
from utils import cli

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "sweeps.trial_process")
EXIT_CODE = "exit_code"  # file of a run directory that is over
STOPPED_MARK = "stopped"  # file of a run directory that a population may resume
POLL_SECONDS = 0.05
# Exit codes of train.py.
FINISHED, NOT_FINITE, STOPPED = 0, 3, 75
OUTCOMES = {
    FINISHED: trial_state.DONE,
    NOT_FINITE: trial_state.DIVERGED,
    STOPPED: trial_state.INTERRUPTED,
}
# Exit codes after a signal that comes before a handler is installed.
AFTER_SIGNAL = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)


@dataclasses.dataclass(eq=False)
class TrialProcess:
    """Trial in a process, which may train others at once.

    Attributes:
      workdir: the run directory.
      log: file that has the output of the process.
      process: None where all trials were over already.
      group: the trials of the process by their index, this one included.
      stopping: whether it was asked to stop.
    """

    workdir: Path
    log: Path
    process: subprocess.Popen | None
    group: "list[TrialProcess]"
    stopping: bool = False

    @property
    def metrics(self) -> Path:
        """Path of the trial's metrics.jsonl."""
        return self.workdir / "metrics.jsonl"

    def code(self) -> int | None:
        """Returns the exit code of the trial; None while it runs."""
        # Before the files, which are complete once the process has ended.
        process_code = self.process and self.process.poll()
        if self.process and process_code is None and len(self.group) == 1:
            return None  # though its file may be written already
        if (self.workdir / EXIT_CODE).exists():
            return int((self.workdir / EXIT_CODE).read_text())
        if (self.workdir / STOPPED_MARK).exists():
            return STOPPED
        return process_code

    def stop(self) -> None:
        """Asks the trial to save and end, while the others continue."""
        if self.stopping or self.code() is not None:
            return
        self.stopping = True
        _write_line(self.process, self.group.index(self))
        if all(trial.stopping or trial.code() is not None for trial in self.group):
            self.process.send_signal(signal.SIGTERM)  # interrupts compilation, too

    def kill(self) -> None:
        """Ends the process at once, with all of its trials."""
        for trial in self.group:
            trial.stopping = True  # the others did not fail
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.close()

    def close(self) -> None:
        """Waits for the end of a trial that is ending."""
        while self.code() is None:
            time.sleep(POLL_SECONDS)
        if self.process and all(trial.code() is not None for trial in self.group):
            self.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def start_trials(
    configs: TrialConfigs,
    points: Mapping[int, Point],
    directory: SweepDirectory,
    devices: DeviceAllocation,
    *,
    vmapped: bool = False,
    command: Sequence[str] = COMMAND,
) -> list[TrialProcess]:
    """Starts a process of trials on a worker's devices, unless all are over already.

    The first one's log has the output of all.

    Args:
      points: trial number -> point.
      vmapped: whether they train as one program, or there is just one, as in train.py.
      command: program that reads the description from its standard input.
    """
    workdirs = [directory.run(trial) for trial in points]
    log, *other_logs = [directory.log(trial) for trial in points]
    process = None
    if not all((workdir / EXIT_CODE).exists() for workdir in workdirs):
        for workdir in workdirs:
            (workdir / STOPPED_MARK).unlink(missing_ok=True)
        for other in other_logs:
            with other.open("a", encoding="utf8") as file:
                print(f"trains together with others: see {log.name}", file=file)
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, paths))
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # open as long as this process lives
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **devices.environment, "PYTHONPATH": path},
            )
        document = {
            "configs": dataclasses.asdict(configs),
            "points": list(points.values()),
            "workdirs": list(map(str, workdirs)),
            "cores": devices.cores,
            "vmapped": vmapped,
        }
        _write_line(process, json.dumps(document))
    group: list[TrialProcess] = []
    group += [TrialProcess(workdir, log, process, group) for workdir in workdirs]
    return group


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


def last_log_line(log: Path, code: int, max_length: int = 300) -> str:
    """Returns why a process failed: its exit code and the last line of its log."""
    lines = log.read_text(encoding="utf8", errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"exit code {code}: {last.removeprefix('error: ')[:max_length]}"


# In the process of the trials.


def main() -> int:
    """Trains the trials; returns the exit code of train.py.

    Of several trials, it is 0 where all are over, 75 where some have only stopped.
    """
    if not (line := read_line()):
        sys.exit("the sweep's process ended")
    spec = json.loads(line)
    stop_requests: set[int] = set()
    threading.Thread(target=listen, args=(stop_requests,), daemon=True).start()
    if spec["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, spec["cores"])  # before a library counts them
    trial_configs = TrialConfigs(**spec["configs"])
    configs = [trial_configs.config(point) for point in spec["points"]]
    workdirs = list(map(Path, spec["workdirs"]))
    if spec["vmapped"]:
        from sweeps import population

        statuses = population.train(configs, workdirs, stop_requests.copy)
        return STOPPED if STOPPED in statuses else FINISHED
    from experiment import train

    code = train.train(configs[0], workdirs[0])
    if code in (FINISHED, NOT_FINITE):
        write_exit_code(workdirs[0], code)
    return code


def write_exit_code(workdir: Path, code: int, name: str = EXIT_CODE) -> None:
    """Marks a run as over; the file is complete or, on a full disk, absent."""
    draft = workdir / f"{name}.draft"
    draft.write_text(f"{int(code)}\n", encoding="utf8")
    draft.replace(workdir / name)


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


def listen(stop_requests: set[int]) -> None:
    """Collects requests to stop; kills this process at the end of its input."""
    while line := read_line():
        stop_requests.add(int(line))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cli.run_main(main)
