"""The process of a population: many trials that train together (population.py).

Its standard input is one line that says what to do, then a line for each member that
is to save and end: its place. The end of that input ends it at once, as it does the
process of one trial (trial_process.py).
"""

import json
import os
import signal
import threading
from pathlib import Path

from sweeps.trial_configs import Experiment
from sweeps.trial_process import keep_to, next_line, read_line
from utils import cli

STOPPED = 75  # exit code: the same command goes on


def main() -> int:
    """Exit code 0 where all members are over, 75 where some have only stopped."""
    order = json.loads(read_line())
    asked: set[int] = set()
    threading.Thread(target=listen, args=(asked,), daemon=True).start()
    keep_to(order["cores"])
    trials = Experiment(**order["experiment"])
    configs = [trials.config(member["point"]) for member in order["members"]]
    workdirs = [Path(member["workdir"]) for member in order["members"]]
    from sweeps.vmapped_trials import population

    endings = population.train(configs, workdirs, asked.copy)
    return STOPPED if STOPPED in endings else 0


def listen(asked: set[int]) -> None:
    """Notes who is asked to end, until the input does."""
    while line := next_line():
        asked.add(int(line))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cli.run_main(main)
