"""Prints the arrays of a checkpoint: names, shapes, types, sizes and norms.

python -m analysis.checkpoint RUN [best|last|STEP]
"""

import sys
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

from training.checkpoint import CONTENT, Checkpoints
from training.checkpoint_params import resolve_steps
from training.run_dir import RunDirectory
from utils.cli import exit_with
from utils.errors import UserError
from utils.text_tables import align_columns

GROUPS = ("state/params", "state/ema", "state/opt_state", "state", "carry")
HEAD = ("array", "shape", "type", "bytes", "norm")


def read_arrays(folder) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of a checkpoint's content and their names, one at a time."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        stored = reader.metadata(folder).item_metadata.tree
        paths = jax.tree_util.tree_flatten_with_path(stored)[0]
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        content = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=args))
    named = {path: "/".join(map(_key, path)) for path, _ in paths}
    for path, leaf in jax.tree_util.tree_flatten_with_path(content)[0]:
        yield named[path], np.asarray(leaf)


def _key(entry) -> str:
    """Returns the name of one entry of a path in a tree."""
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", ""))))


def norm(array: np.ndarray) -> float:
    """Returns the Euclidean norm, in float64; nan where a number is not finite."""
    values = np.asarray(array, np.float64)
    return float(np.sqrt(np.sum(values**2))) if np.isfinite(values).all() else np.nan


def describe(folder) -> list[str]:
    """Formats the arrays of a checkpoint as a table, and the totals of its parts."""
    rows, counts = [HEAD], {}
    for name, array in read_arrays(folder):
        shape = "x".join(map(str, array.shape)) or "-"
        kind, size = str(array.dtype), f"{array.nbytes:,}"
        rows.append((name, shape, kind, size, f"{norm(array):.6g}"))
        group = next((g for g in GROUPS if name.startswith(f"{g}/")), name)
        number, total = counts.get(group, (0, 0))
        counts[group] = number + array.size, total + array.nbytes
    totals = [
        (group, f"{number:,} numbers", f"{total:,} bytes")
        for group, (number, total) in counts.items()
    ]
    return [*align_columns(rows, "<<<>>"), "", *align_columns(totals, "<>>")]


def main() -> None:
    """Prints the table of a run's checkpoint."""
    if len(sys.argv) not in (2, 3):
        raise UserError(
            "name a run: python -m analysis.checkpoint RUN [best|last|STEP]"
        )
    workdir, which = [*sys.argv[1:], "best"][:2]
    directory = RunDirectory(workdir)
    directory.read_config()  # refuses what is not a run
    reader = Checkpoints(directory.checkpoints, directory.run_id, is_reader=True)
    (step,) = resolve_steps(reader, which)[-1:]
    corruption = reader.find_corruption(step)
    if corruption:
        print(f"warning: checkpoint {step} is damaged ({corruption})", file=sys.stderr)
    try:
        table = describe(reader.folder / str(step) / CONTENT)
    except Exception as error:  # orbax raises many kinds for damaged files
        if not corruption:
            raise
        raise UserError(
            f"the arrays of checkpoint {step} cannot be read; name another one"
        ) from error
    print(f"{directory.path}, step {step}")
    print("\n".join(table))


if __name__ == "__main__":
    exit_with(main)
