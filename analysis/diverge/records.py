"""Records of runs: logs and checkpoints, without measurements of time and memory."""

import functools
import json
import sys
from pathlib import Path

import numpy as np

from analysis.checkpoint import read_arrays
from training.checkpoint import CONTENT, PROGRESS
from training.checksums import find_corruption
from training.metric_writers import read_events
from utils.paths import canonical_path

MACHINE_FIELDS = (  # that depend on the machine and its load
    *("seconds", "window_seconds", "data_wait_fraction", "mfu", "peak_memory_bytes"),
    *(f"{unit}_per_second" for unit in ("tokens", "words", "examples", "flops")),
)


def differences(first: Path, second: Path) -> list[str]:
    """Lists everything in which two run directories differ.

    Compares all arrays and numbers of the checkpoints that both have, which must
    include the newest of each, all logged metrics and all TensorBoard events.
    """
    ours, theirs = checkpoint_steps(first), checkpoint_steps(second)
    found = []
    if ours[-1:] != theirs[-1:]:
        found.append(f"newest checkpoints: {ours[-1:]} and {theirs[-1:]}")
    for step in sorted({*ours} & {*theirs}):
        pairs = (read_checkpoint(folder, step) for folder in (first, second))
        found += differing_names(f"checkpoint {step}", *pairs)
    found += differing_names("metrics.jsonl", read_log(first), read_log(second))
    events = read_tensorboard(first), read_tensorboard(second)
    return found + differing_names("tensorboard", *events)


def differing_names(source: str, first: dict, second: dict) -> list[str]:
    """Lists the names that only one dict has, or whose values differ."""
    return [
        f"{source}: {name} differs"
        for name in first | second
        if not (name in first and name in second)
        or not np.array_equal(first[name], second[name], equal_nan=False)
    ]


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of a run's checkpoints in ascending order."""
    names = (path.name for path in (folder / "checkpoints").glob("*"))
    return sorted(int(name) for name in names if name.isdigit())


@functools.cache  # checksums of large checkpoints take seconds
def intact_checkpoints(folder: Path) -> list[int]:
    """Returns the steps of a run's checkpoints that are as they were written."""
    steps = []
    for step in checkpoint_steps(folder):
        path = folder / "checkpoints" / str(step)
        if corruption := find_corruption(path):
            print(
                f"warning: checkpoint {step} of {folder} is damaged ({corruption}), "
                "and not compared",
                file=sys.stderr,
            )
        else:
            steps.append(step)
    return steps


def read_checkpoint(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Reads all arrays and numbers of a checkpoint, by name."""
    path = canonical_path(folder) / "checkpoints" / str(step)
    progress = json.loads((path / PROGRESS / "metadata").read_text())
    return dict(read_arrays(path / CONTENT)) | without_machine_fields(progress)


def read_log(folder: Path) -> dict[tuple, list]:
    """Reads the values of metrics.jsonl, repeated ones too, by step, split and name."""
    values: dict[tuple, list] = {}
    for line in (folder / "metrics.jsonl").read_bytes().splitlines():
        row = json.loads(line)
        for name, value in without_machine_fields(row).items():
            values.setdefault((row["step"], row["split"], name), []).append(value)
    return values


def read_tensorboard(folder: Path) -> dict[tuple, list]:
    """Reads the values of TensorBoard's files, by step and tag."""
    values: dict[tuple, list] = {}
    for path in sorted((folder / "tensorboard").glob("*tfevents*")):
        for _, event in read_events(path.read_bytes()):
            for value in event.summary.value:
                if value.tag.partition("/")[2] not in MACHINE_FIELDS:
                    known = values.setdefault((event.step, value.tag), [])
                    known.append(value.simple_value)
    return values


def without_machine_fields(row: dict) -> dict:
    """Removes the fields that depend on the machine and its load."""
    return {name: value for name, value in row.items() if name not in MACHINE_FIELDS}
