"""The process of one trial: what train.py does, for whoever runs the sweep.

Its standard input is one line that says what to do. The end of that input means that
the sweep's process is no more; then the trial ends at once too, since another may take
it over and two must not write in one run directory. What ended for good says so in a
file there, lest it be begun again by whoever did not see the end.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sweeps.trial_configs import Experiment
from utils import cli

FINAL = (0, 3)  # exit codes after which there is nothing left to do


def main() -> int:
    """The exit code of train.py."""
    order = json.loads(read_line())
    threading.Thread(target=die_with_parent, daemon=True).start()
    keep_to(order["cores"])
    cfg = Experiment(**order["experiment"]).config(order["point"])
    from experiment import train

    code = train.train(cfg, order["workdir"])
    if code in FINAL:
        note_end(Path(order["workdir"]), code)
    return code


def note_end(workdir: Path, code: int) -> None:
    """Says that a run is over; whole or not at all, should the disk be full."""
    draft = workdir / "exit_code.draft"
    draft.write_text(f"{int(code)}\n", encoding="utf8")
    draft.replace(workdir / "exit_code")


def read_line() -> bytes:
    """Without a buffer, whose lock a thread would hold while Python ends."""
    if line := next_line():
        return line
    sys.exit("the sweep's process ended")


def next_line() -> bytes:
    """Empty where the input ends."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            return b""
        line += byte
    return line


def keep_to(cores: Sequence[int]) -> None:
    """CPU cores of this process, before a library counts them; none: all."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def die_with_parent() -> None:
    """Waits for the end of the input."""
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cli.run_main(main)
