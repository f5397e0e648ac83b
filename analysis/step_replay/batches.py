"""Batches that a run saved in `replay/` (experiment/train.py)."""

import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from data.batching.base import Batch, TrainBatches
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.paths import resolve_path

# What numpy raises for a file that is no archive, or not a whole one.
NOT_BATCHES = (
    *(OSError, ValueError, TypeError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)


class KeptBatches(TrainBatches):
    """Batches that a run saved, in place of those of its dataset."""

    def __init__(self, kept: dict[int, Batch]):
        self.kept = kept
        shapes = {
            tuple(leaf.shape for leaf in batch.values()) for batch in kept.values()
        }
        self.shapes, self.epoch_length = sorted(shapes), 1
        self.batch_size = len(next(iter(next(iter(kept.values())).values())))

    def train_batches(self) -> "KeptBatches":
        """Returns these batches, as a dataset does."""
        return self

    def partial_batch(self, k: int, rows: slice) -> Batch:
        """Returns rows of batch k; any other batch where k was not kept."""
        batch = self.kept.get(k + 1) or next(iter(self.kept.values()))
        return {name: leaf[rows] for name, leaf in batch.items()}


def read_kept_batches(directory: RunDirectory) -> dict[int, Batch]:
    """Reads the batches in `replay/` of a run directory, by step.

    A file that cannot be read is left out, with a warning.
    """
    folder, kept = directory.path / "replay", {}
    for file in sorted(folder.glob("*.npz")) if folder.exists() else ():
        try:
            kept |= read_batches(file)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    return kept


def read_batches(path: str | Path) -> dict[int, Batch]:
    """Reads a file of batches that a run saved (experiment/train.py), by step.

    Raises:
      UserError: it is another file.
    """
    batches: dict[int, Batch] = {}
    try:
        with (
            resolve_path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            for key in arrays.files:
                step, _, name = key.partition("/")
                batches.setdefault(int(step), {})[name] = arrays[key]
    except NOT_BATCHES as error:
        raise UserError(f"{path} holds no batches of a run: {error}") from error
    return batches
