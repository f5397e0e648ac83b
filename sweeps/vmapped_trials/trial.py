"""Trials that run in one process, each as if it had one of its own (trial.py)."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sweeps.devices import Share
from sweeps.trial import STOPPED, Order, environment

PROGRAM = (sys.executable, "-m", "sweeps.vmapped_trials.process")
ENDED, ASIDE = "exit_code", "stopped"  # files: over for good, and asked to end
POLL = 0.05  # seconds between two looks at a process that is to end


class PopulationProcess:
    """A process that trains all orders together, on its share of the devices."""

    def __init__(
        self, orders: Sequence[Order], share: Share, program: Sequence[str] = PROGRAM
    ):
        """Args: program: what reads the orders from its standard input."""
        self.log = orders[0].log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for order in orders[1:]:
            with order.log.open("a", encoding="utf8") as log:
                print(f"trains together with others: see {self.log.name}", file=log)
        for order in orders:
            (order.workdir / ASIDE).unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                program,
                stdin=subprocess.PIPE,  # stays open as long as this process lives
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(share),
            )
        document = {
            "experiment": dataclasses.asdict(orders[0].experiment),
            "members": [
                {"point": order.point, "workdir": str(order.workdir)}
                for order in orders
            ],
            "cores": share.cores,
        }
        self.write(json.dumps(document))
        self.members = [
            TrialInPopulation(self, place, order) for place, order in enumerate(orders)
        ]

    def write(self, line: str) -> None:
        """Tells it something; where it has ended, its exit code says more."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def stop_if_empty(self) -> None:
        """Once nobody is to go on a signal is quicker: it cuts a compilation short."""
        if all(m.stopping or m.code() is not None for m in self.members):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, with all its members, and waits for that."""
        for member in self.members:
            member.stopping = True  # who goes on was not at fault
        self.process.kill()
        self.process.wait()


class TrialInPopulation:
    """One of its trials, with the methods of a `TrialProcess`."""

    def __init__(self, process: PopulationProcess, place: int, order: Order):
        # Words of the process, which are those of all members, are in one log.
        self.order = dataclasses.replace(order, log=process.log)
        self.process, self.place = process, place
        self.stopping = False

    @property
    def metrics(self) -> Path:
        """What it logs."""
        return self.order.workdir / "metrics.jsonl"

    def code(self) -> int | None:
        """The exit code that a process of its own would have; None: it runs."""
        running = self.process.process.poll()  # first: what it wrote is there then
        if (self.order.workdir / ENDED).exists():
            return int((self.order.workdir / ENDED).read_text())
        if (self.order.workdir / ASIDE).exists():
            return STOPPED
        return running

    def stop(self) -> None:
        """Asks it to save and end, while the others go on; once."""
        if not self.stopping:
            self.stopping = True
            self.process.write(str(self.place))
            self.process.stop_if_empty()

    def kill(self) -> None:
        """Ends all at once: they share a process."""
        self.process.kill()

    def close(self) -> None:
        """Waits for its end, which is near."""
        while self.code() is None:
            time.sleep(POLL)
        if all(member.code() is not None for member in self.process.members):
            self.process.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.process.stdin.close()
