"""Sweeps of toy trials (toy_trial.py) with the real study and workers, in seconds.

As a program it does what sweep.py does: python tests/helpers/toy_sweep.py FOLDER [URL].
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

from helpers.toy_trial import STEPS  # noqa: E402
from sweeps.devices import DeviceAllocation  # noqa: E402
from sweeps.objective import Metric, Objective  # noqa: E402
from sweeps.optuna_adapter import make_pruner  # noqa: E402
from sweeps.progress import ProgressTable  # noqa: E402
from sweeps.search_space import Space, seeds  # noqa: E402
from sweeps.storage import RetryingStorage, open_storage  # noqa: E402
from sweeps.study import Study  # noqa: E402
from sweeps.sweep_dir import SweepDirectory  # noqa: E402
from sweeps.trial_configs import TrialConfigs  # noqa: E402
from sweeps.trial_process import start_trials  # noqa: E402
from sweeps.worker import SweepWorker  # noqa: E402

TWELVE = Space(seeds(12))
LOSS = Metric("validation", "loss", "min")


def study(folder, space=TWELVE, *, count=None, url=None, **options):
    """Opens the study of a sweep in a folder."""
    options = {"retrying": RetryingStorage("toy", timeout=5), **options}
    return Study(
        lambda: open_storage(url, Path(folder) / "journal.log"),
        "toy",
        space,
        count or space.points.size,
        Objective(LOSS, space.value, LOSS),
        {"config": {}, "space": space.to_dict()},
        make_pruner(space.pruning, STEPS, 1),
        **options,
    )


def toy_sweep(
    folder,
    space=TWELVE,
    *,
    workers=2,
    population=1,
    stopped=None,
    out=None,
    program="toy_trial",
    **options,
):
    """Returns a worker of a sweep in a folder, whose trials run a toy program."""
    directory = SweepDirectory(folder)
    directory.init({"config": {}, "space": space.to_dict()})
    opened = study(folder, space, **options)
    command = (sys.executable, "-S", str(HELPERS / f"{program}.py"))
    return SweepWorker(
        opened,
        TrialConfigs("configs/cldr.py", "rnn", {}),
        directory,
        [DeviceAllocation({})] * workers,
        ProgressTable(LOSS, STEPS, workers, out or io.StringIO()),
        stopped or threading.Event(),
        population=population,
        start=functools.partial(start_trials, command=command),
    )


def results(folder):
    """Returns the lines of trials.jsonl without counts and times."""
    lines = (Path(folder) / "trials.jsonl").read_text().splitlines()
    kept = ("trial", "state", "point", "value", "step", "error")
    return [{key: json.loads(line)[key] for key in kept} for line in lines]


def begin(folder, *arguments):
    """Starts the program as leader of a process group."""
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), *arguments],
        start_new_session=True,
        cwd=HELPERS.parents[1],
    )


if __name__ == "__main__":
    os.chdir(HELPERS.parents[1])
    sys.exit(toy_sweep(sys.argv[1], url=sys.argv[2] if sys.argv[2:] else None).run())
