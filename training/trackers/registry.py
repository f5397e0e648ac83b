"""Registry of trackers, by the config key `track`, and the process that uploads.

A tracker is a class with the methods of `training.trackers.mlflow.MlflowRun`. Only the
uploading process imports one. It reads the run directory and nothing else, so that a
slow or failing service costs the training process nothing.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import portalocker

from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.locks import acquire
from utils.paths import absolute_address, is_remote

# Each name is also that of the package, a requirement in requirements/trackers.txt.
TRACKERS = {
    "wandb": "training.trackers.weights_and_biases:WandbRun",
    "trackio": "training.trackers.trackio:TrackioRun",
    "mlflow": "training.trackers.mlflow:MlflowRun",
}
FOLDER = "tracker"  # of a run directory: <name>.json has what was uploaded
END_SECONDS = 30  # in which what is left must be uploaded after training
ROOT = Path(__file__).parents[2]


def check_tracker(name: str) -> None:
    """Raises UserError for a tracker whose package is not installed."""
    spec = importlib.util.find_spec(name) if name else None
    if name and not (spec and spec.origin):  # a folder of this name has no origin
        raise UserError(
            f"track={name!r} needs the package {name}, which is not installed: "
            "pip install -r requirements/trackers.txt"
        )


@contextlib.contextmanager
def tracking(name: str, *directories: RunDirectory) -> Iterator[None]:
    """Uploads runs while the block trains them; nothing for the name ""."""
    processes = [_start_upload(name, directory) for directory in directories if name]
    try:
        yield
    finally:
        _end_uploads(name, processes)


def upload_results(directory: RunDirectory, files: Sequence[Path] = ()) -> None:
    """Uploads new results of a run that is tracked, and files made from it.

    While the run trains, its own process uploads what is in the run directory.
    """
    folder = directory.path / FOLDER
    names = [name for name in TRACKERS if (folder / f"{name}.json").exists()]
    for name in names:
        try:
            with uploading(directory, wait=False):
                pass
        except portalocker.AlreadyLocked:
            if files:
                print(
                    f"warning: {files[0]} is not uploaded to {name} while "
                    f"{directory.path} is trained",
                    file=sys.stderr,
                )
            continue
        _end_uploads(name, [_start_upload(name, directory, files)])


@contextlib.contextmanager
def uploading(directory: RunDirectory, *, wait: bool) -> Iterator[None]:
    """Holds the right to upload a run; a run in a bucket has no lock.

    Raises:
      portalocker.AlreadyLocked: another process holds it, and `wait` is False.
    """
    folder = directory.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if is_remote(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        acquire(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)


def _start_upload(
    name: str, directory: RunDirectory, files: Sequence[Path] = ()
) -> subprocess.Popen:
    """Starts a process that uploads until its standard input ends."""
    paths = [absolute_address(str(directory.path)), *map(os.path.abspath, files)]
    search = (str(ROOT), os.environ.get("PYTHONPATH"))
    return subprocess.Popen(
        [sys.executable, "-m", "training.trackers.upload", name, *paths],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
        start_new_session=True,  # it ends with its input, not by signals for training
    )


def _end_uploads(name: str, processes: Sequence[subprocess.Popen]) -> None:
    """Waits until processes have uploaded the rest, or ends them."""
    for process in processes:
        process.stdin.close()
    deadline = time.monotonic() + END_SECONDS
    try:
        for process in processes:
            process.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(
            f"warning: {name} has not taken everything within {END_SECONDS} s; the "
            "rest is uploaded when the run resumes or is evaluated",
            file=sys.stderr,
        )
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
