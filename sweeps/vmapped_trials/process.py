"""The process of a population: trials that train together (population.py).

Its standard input is one line that describes the trials, then the index of each trial
that is to save and end, one a line. The end of the input ends the process at once, as
it does that of a single trial (sweeps/trial_process.py).
"""

import json
import os
import signal
import threading
from pathlib import Path

from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import read_first_line, read_line, set_cores
from utils import cli

STOPPED = 75  # exit code: the same command resumes


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
