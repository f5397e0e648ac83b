"""A trial that runs: its process, and what its exit code means."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps import ledger
from sweeps.devices import Share
from sweeps.search_space import Point
from sweeps.trial_configs import Experiment

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "sweeps.trial_process")
NOT_FINITE, STOPPED = 3, 75  # exit codes of train.py
ASKED = (STOPPED, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Order:
    """What a trial's process is to do.

    Attributes:
      workdir: the run directory.
      log: what is written is added to it.
    """

    experiment: Experiment
    point: Point
    workdir: Path
    log: Path


class TrialProcess:
    """A process of its own, on its share of the devices."""

    def __init__(self, order: Order, share: Share, program: Sequence[str] = PROGRAM):
        """Args: program: what reads an order from its standard input."""
        self.order = order
        self.stopping = False
        # Ended while nobody looked, as its process said: there is none to begin.
        self.process = None if self._ended() else self._begin(share, program)

    def _ended(self) -> bool:
        return (self.order.workdir / "exit_code").exists()

    def _begin(self, share: Share, program: Sequence[str]) -> subprocess.Popen:
        document = {
            "experiment": dataclasses.asdict(self.order.experiment),
            "point": self.order.point,
            "workdir": str(self.order.workdir),
            "cores": share.cores,
        }
        self.order.log.parent.mkdir(parents=True, exist_ok=True)
        with self.order.log.open("ab") as log:
            process = subprocess.Popen(
                program,
                stdin=subprocess.PIPE,  # stays open as long as this process lives
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(share),
            )
        with contextlib.suppress(BrokenPipeError):  # its exit code says more
            process.stdin.write(json.dumps(document).encode() + b"\n")
            process.stdin.flush()
        return process

    @property
    def metrics(self) -> Path:
        """What it logs."""
        return self.order.workdir / "metrics.jsonl"

    def code(self) -> int | None:
        """The exit code; None: it runs."""
        if self.process is None:
            return int((self.order.workdir / "exit_code").read_text())
        return self.process.poll()

    def stop(self) -> None:
        """Asks it to save and end; once."""
        if self.process is not None and not self.stopping:
            self.stopping = True
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, and waits for that."""
        if self.process is not None:
            self.process.kill()
            self.close()

    def close(self) -> None:
        """Waits for its end, which is near."""
        if self.process is not None:
            self.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def environment(share: Share) -> dict[str, str]:
    """That of this process, with the worker's devices and our modules."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return {**os.environ, **share.environment, "PYTHONPATH": path}


def meaning(code: int, asked: bool) -> str:
    """How an attempt ended.

    Args:
      asked: whether it was told to stop.
    """
    if code == 0:
        return ledger.DONE
    if code == NOT_FINITE:
        return ledger.DIVERGED
    if code == STOPPED or (asked and code in ASKED):
        return ledger.INTERRUPTED
    return ledger.FAILED


def last_words(log: Path, code: int, most: int = 300) -> str:
    """Why a process failed: the last line it wrote, and its exit code."""
    lines = log.read_text(encoding="utf8", errors="replace").splitlines()
    told = next((line.strip() for line in reversed(lines) if line.strip()), "no word")
    return f"exit code {code}: {told.removeprefix('error: ')[:most]}"
