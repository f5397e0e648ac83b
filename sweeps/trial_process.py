"""The process of one trial, which trains as train.py does: both ends of it.

`TrialProcess` starts the process in the sweep's own process. Run as a program, this
module is the process: its standard input is one line, a JSON object that describes the
trial. The end of the input means that the sweep's process has died; then the trial
ends at once, since another process may resume it and two must not write to one run
directory. A trial that is over writes its exit code to a file of its run directory, so
that it is not started again if nobody saw its end.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sweeps import trial_state
from sweeps.devices import DeviceAllocation
from sweeps.search_space import Point
from sweeps.trial_configs import TrialConfigs
from utils import cli

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "sweeps.trial_process")
EXIT_CODE = "exit_code"  # file of a run directory that is over
# Exit codes of train.py.
DONE, NOT_FINITE, STOPPED = 0, 3, 75
# Exit codes after a signal, some of which come before a handler is installed.
AFTER_SIGNAL = (STOPPED, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class TrialSpec:
    """Description of a trial for its process.

    Attributes:
      workdir: the run directory.
      log: file to which output is appended.
    """

    configs: TrialConfigs
    point: Point
    workdir: Path
    log: Path


class TrialProcess:
    """Process of one trial on the devices of a worker."""

    def __init__(
        self,
        spec: TrialSpec,
        devices: DeviceAllocation,
        command: Sequence[str] = COMMAND,
    ):
        """Starts the process, unless the trial is over already.

        Args:
          command: program that reads the description from its standard input.
        """
        self.spec = spec
        self.stopping = False
        self.process = None
        if not (spec.workdir / EXIT_CODE).exists():
            document = {
                "configs": dataclasses.asdict(spec.configs),
                "point": spec.point,
                "workdir": str(spec.workdir),
                "cores": devices.cores,
            }
            self.process = start_process(command, document, spec.log, devices)

    @property
    def metrics(self) -> Path:
        """Path of the trial's metrics.jsonl."""
        return self.spec.workdir / "metrics.jsonl"

    def code(self) -> int | None:
        """Returns the exit code; None while the process runs."""
        if self.process is None:
            return int((self.spec.workdir / EXIT_CODE).read_text())
        return self.process.poll()

    def stop(self) -> None:
        """Asks the trial to save and end, at the first call only."""
        if self.process is not None and not self.stopping:
            self.stopping = True
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once and waits for it."""
        if self.process is not None:
            self.process.kill()
            self.close()

    def close(self) -> None:
        """Waits for the end of a process that is ending."""
        if self.process is not None:
            self.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def start_process(
    command: Sequence[str], document: dict, log: Path, devices: DeviceAllocation
) -> subprocess.Popen:
    """Starts a process on a worker's devices, and writes `document` to its input.

    The input stays open as long as this process lives.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **devices.environment, "PYTHONPATH": path},
        )
    with contextlib.suppress(BrokenPipeError):  # its exit code says more
        process.stdin.write(json.dumps(document).encode() + b"\n")
        process.stdin.flush()
    return process


def outcome_from_exit_code(code: int, stop_requested: bool) -> str:
    """Returns the outcome of an attempt (trial_state.py).

    Args:
      stop_requested: whether the process was asked to stop.
    """
    if code == DONE:
        return trial_state.DONE
    if code == NOT_FINITE:
        return trial_state.DIVERGED
    if code == STOPPED or (stop_requested and code in AFTER_SIGNAL):
        return trial_state.INTERRUPTED
    return trial_state.FAILED


def last_log_line(log: Path, code: int, max_length: int = 300) -> str:
    """Returns why a process failed: its exit code and the last line of its log."""
    lines = log.read_text(encoding="utf8", errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"exit code {code}: {last.removeprefix('error: ')[:max_length]}"


# In the process of the trial.


def main() -> int:
    """Trains the trial; returns the exit code of train.py."""
    spec = json.loads(read_first_line())
    threading.Thread(target=exit_with_parent, daemon=True).start()
    set_cores(spec["cores"])
    cfg = TrialConfigs(**spec["configs"]).config(spec["point"])
    from experiment import train

    code = train.train(cfg, spec["workdir"])
    if code in (DONE, NOT_FINITE):
        write_exit_code(Path(spec["workdir"]), code)
    return code


def write_exit_code(workdir: Path, code: int, name: str = EXIT_CODE) -> None:
    """Marks a run as over; the file is complete or, on a full disk, absent."""
    draft = workdir / f"{name}.draft"
    draft.write_text(f"{int(code)}\n", encoding="utf8")
    draft.replace(workdir / name)


def read_first_line() -> bytes:
    """Returns the first line of the input; exits if the input ends before."""
    if line := read_line():
        return line
    sys.exit("the sweep's process ended")


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


def set_cores(cores: Sequence[int]) -> None:
    """Binds this process to CPU cores, before a library counts them; none: all."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def exit_with_parent() -> None:
    """Kills this process at the end of its standard input."""
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cli.run_main(main)
