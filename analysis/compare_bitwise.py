"""Whether two runs are the same to the bit, clocks excepted.

python -m analysis.compare_bitwise runs/a runs/b
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from training.checkpoint import CONTENT, PROGRESS
from training.metric_writers import read_events
from utils.errors import UserError
from utils.paths import canonical_path, resolve_path

CLOCKS = (
    *("seconds", "window_seconds", "data_wait_fraction", "tokens_per_second"),
    *("flops_per_second", "mfu", "peak_memory_bytes"),
)


def differences(first: Path, second: Path) -> list[str]:
    """A line for everything in which two run directories differ.

    Every array and number of the checkpoints both have, the newest among them,
    every logged metric and every TensorBoard event.
    """
    ours, theirs = checkpoint_steps(first), checkpoint_steps(second)
    found = []
    if ours[-1:] != theirs[-1:]:
        found.append(f"newest checkpoints: {ours[-1:]} and {theirs[-1:]}")
    for step in sorted({*ours} & {*theirs}):
        pairs = (stored(folder, step) for folder in (first, second))
        found += unlike(f"checkpoint {step}", *pairs)
    found += unlike("metrics.jsonl", metrics(first), metrics(second))
    found += unlike("tensorboard", events(first), events(second))
    return found


def unlike(where: str, first: dict, second: dict) -> list[str]:
    """The names that two dicts of numbers or arrays do not share, or not the value."""
    return [
        f"{where}: {name} differs"
        for name in [*first, *(name for name in second if name not in first)]
        if name not in first
        or name not in second
        or not np.array_equal(first[name], second[name], equal_nan=False)
    ]


def checkpoint_steps(folder: Path) -> list[int]:
    """Of a run, ascending."""
    names = (path.name for path in (folder / "checkpoints").glob("*"))
    return sorted(int(name) for name in names if name.isdigit())


def stored(folder: Path, step: int) -> dict[str, np.ndarray]:
    """All that a checkpoint holds, by name."""
    path = canonical_path(folder) / "checkpoints" / str(step)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        content = reader.restore(path / CONTENT)
    leaves = jax.tree_util.tree_leaves_with_path(content)
    found = {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in leaves}
    progress = json.loads((path / PROGRESS / "metadata").read_text())
    return found | without_clocks(progress)


def metrics(folder: Path) -> dict[tuple, list]:
    """What was logged, by step and split; each value as often as it stands there."""
    found: dict[tuple, list] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        for name, value in without_clocks(row).items():
            found.setdefault((row["step"], row["split"], name), []).append(value)
    return found


def events(folder: Path) -> dict[tuple, list]:
    """The same of TensorBoard's files."""
    found: dict[tuple, list] = {}
    for path in sorted((folder / "tensorboard").glob("*tfevents*")):
        for _, event in read_events(path.read_bytes()):
            for value in event.summary.value:
                if value.tag.partition("/")[2] not in CLOCKS:
                    key = event.step, value.tag
                    found.setdefault(key, []).append(value.simple_value)
    return found


def without_clocks(row: dict) -> dict:
    """What does not depend on how fast the machine was."""
    return {name: value for name, value in row.items() if name not in CLOCKS}


def main() -> int:
    """Exit code 1 where two runs differ."""
    if len(sys.argv) != 3:
        print("usage: python -m analysis.compare_bitwise RUN RUN", file=sys.stderr)
        return 2
    try:
        found = differences(*map(resolve_path, sys.argv[1:]))
    except (OSError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(found) or "the same to the bit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
