"""Sweeps of toy trials (toy_trial.py) with the real study and workers, in seconds.

As a program it does what sweep.py does: python tests/helpers/toy_sweep.py FOLDER
[MACHINE].
"""

import functools
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

HELPERS = Path(__file__).parent
sys.path[:0] = [str(HELPERS.parents[1]), str(HELPERS.parent)]

from helpers.machine import become_machine  # noqa: E402
from helpers.toy_trial import STEPS  # noqa: E402
from sweeps.adaptive import SuccessiveHalving  # noqa: E402
from sweeps.devices import DeviceAllocation  # noqa: E402
from sweeps.launch import init_folder  # noqa: E402
from sweeps.objective import Metric, Objective  # noqa: E402
from sweeps.progress import ProgressTable  # noqa: E402
from sweeps.search_space import Space, seeds  # noqa: E402
from sweeps.storage import Storage  # noqa: E402
from sweeps.study import Study  # noqa: E402
from sweeps.trial_configs import TrialConfigs  # noqa: E402
from sweeps.trial_process import start_trials  # noqa: E402
from sweeps.worker import SweepWorker  # noqa: E402
from utils.paths import resolve_path  # noqa: E402

TWELVE = Space(seeds(12))
LOSS = Metric("validation", "loss", "min")


def study(folder, space=TWELVE, *, count=None, storage=None, halving=None, **options):
    """Opens the study of a sweep in a folder."""
    storage = storage or Storage(folder, timeout=5)
    storage.poll_seconds = 0.2
    if space.pruning is not None and halving is None:
        halving = SuccessiveHalving.from_pruning(space.pruning, STEPS, 1, LOSS.sign)
    return Study(
        storage,
        space,
        count or space.points.size,
        Objective(LOSS, space.value, LOSS),
        halving,
        **options,
    )


def toy_command(program="toy_trial"):
    return sys.executable, "-S", str(HELPERS / f"{program}.py")


def toy_sweep(
    folder,
    space=TWELVE,
    *,
    workers=2,
    population=1,
    stopped=None,
    out=None,
    program="toy_trial",
    group=None,
    **options,
):
    """Returns a worker of a sweep in a folder, whose trials run a toy program."""
    opened = study(folder, space, **options)
    description = {"config": {}, "space": space.to_dict()}
    init_folder(opened.storage, description, LOSS)
    start = functools.partial(
        group.start if group else start_trials, command=toy_command(program)
    )
    return SweepWorker(
        opened,
        TrialConfigs("configs/cldr.py", "rnn", {}),
        [DeviceAllocation({})] * workers,
        ProgressTable(LOSS, STEPS, workers, out or io.StringIO()),
        stopped or threading.Event(),
        population=population,
        start=start,
    )


def results(folder):
    """Returns the lines of trials.jsonl without counts and times."""
    lines = (resolve_path(folder) / "trials.jsonl").read_text().splitlines()
    kept = ("trial", "state", "point", "value", "step", "error")
    return [{key: json.loads(line)[key] for key in kept} for line in lines]


def begin(folder, *arguments, **environment):
    """Starts the program as leader of a process group."""
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), *arguments],
        start_new_session=True,
        cwd=HELPERS.parents[1],
        env={**os.environ, **environment},
    )


def main(folder, machine="0"):
    """Runs the sweep of a folder, with two trials at once."""
    become_machine(machine, expiry=4.0, lease=3.0, renewal=0.3)
    return toy_sweep(folder, storage=Storage(folder)).run()


if __name__ == "__main__":
    os.chdir(HELPERS.parents[1])
    sys.exit(main(*sys.argv[1:]))
