"""Evaluation of a run while another process trains it."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from experiment.inference import evaluate
from experiment.restore import TrainedRun, open_run, read_config
from training.checkpoint import Checkpoints
from training.metrics import TrainProgress
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.locks import is_held

POLL_SECONDS = 5
IDLE_SECONDS = 60  # without a training process, after which none is expected


def follow(
    workdir: str, split: str, changes: dict | None = None
) -> Iterator[tuple[TrainedRun, dict, Path | None]]:
    """Scores each checkpoint without a score card, until the run has ended.

    A run that does not exist yet is waited for. Where checkpoints come faster than they
    are scored, those that are deleted before their turn are left out.

    Args:
      changes: as in `open_run`.

    Yields:
      The run, its score card and the card's path, as `evaluate` returns them.
    """
    directory, scored, busy_at = RunDirectory(workdir), set(), time.monotonic()
    if not directory.is_complete:
        print(f"waiting for a run in {directory.path}", file=sys.stderr)
    while True:
        is_begun = directory.is_complete
        is_over = is_begun and has_ended(directory)  # before the list of checkpoints
        if not is_begun or is_held(directory.path):
            busy_at = time.monotonic()
        is_over |= time.monotonic() - busy_at > IDLE_SECONDS
        for step in kept_steps(directory) if is_begun else ():
            card = directory.path / "eval" / f"{split}-{step}.json"
            if step in scored or card.exists():
                continue
            scored.add(step)
            try:
                run = open_run(workdir, str(step), changes)
            except (UserError, OSError):
                if step in kept_steps(directory):
                    raise
                continue
            yield run, *evaluate(run, split)
            busy_at = time.monotonic()  # training may have paused meanwhile
        if is_over:
            return
        time.sleep(POLL_SECONDS)


def kept_steps(directory: RunDirectory) -> list[int]:
    """Returns the steps whose checkpoints are complete now."""
    return _open(directory).steps() if directory.checkpoints.exists() else []


def has_ended(directory: RunDirectory) -> bool:
    """Whether the newest checkpoint is one with which training ends."""
    if not (steps := kept_steps(directory)):
        return False
    cfg, last = read_config(directory), directory.read_json("about.json")["steps"]
    progress = TrainProgress(**_open(directory).progress(steps[-1]))
    if last is None:  # the run was trained elsewhere
        return True
    if len(progress.consecutive_nonfinite) >= min(cfg.max_nonfinite_steps, last):
        return True
    stops_early = 0 < cfg.keep.patience <= progress.evals_since_best
    is_validated = progress.last_validated == steps[-1]
    return is_validated and (steps[-1] >= last or stops_early)


def _open(directory: RunDirectory) -> Checkpoints:
    """Opens the checkpoints for reading, as they are now."""
    return Checkpoints(directory.checkpoints, directory.run_id, is_reader=True)
