"""Vocabularies and training batches of the corpus of a comparison."""

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax
    from ml_collections import ConfigDict

    from data.dataset import Dataset

MAX_BATCHES = 500  # read of a training, to see which shapes it has


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """Shape of some of the training batches.

    Attributes:
      batch: shapes of its arrays, by name.
      share: expected number of such batches in a step. Batches with fewer rows than
        others of their lengths count as parts of a batch.
    """

    batch: "dict[str, jax.ShapeDtypeStruct]"
    share: float

    @property
    def tokens(self) -> "jax.ShapeDtypeStruct":
        """Shape [B, T] of the text or of the target."""
        return self.batch["target_in" if "target_in" in self.batch else "tokens"]


class Corpus:
    """The corpus of a comparison, with the batches that each config makes of it."""

    def __init__(self, dataset: "Dataset"):
        self.tokenizers = dataset.tokenizers  # by side
        self._shapes: dict[str, list[BatchShape]] = {}

    def batch_shapes(self, cfg: "ConfigDict") -> list[BatchShape]:
        """Returns the shapes of the training batches of a config."""
        key = f"{cfg.data.to_json_best_effort(sort_keys=True)} {cfg.task}"
        if key not in self._shapes:
            from experiment.build import open_dataset

            batches = open_dataset(cfg, self.tokenizers).train_batches()
            count = min(batches.epoch_length, MAX_BATCHES)
            self._shapes[key] = count_shapes(batches, count)
        return self._shapes[key]


def count_shapes(batches, count: int) -> list[BatchShape]:
    """Returns the shapes of the first batches, and how many there are of each."""
    import jax

    rows, whole = Counter(), {}
    for k in range(count):
        batch = batches[k]
        lengths = tuple((name, leaf.shape[1:]) for name, leaf in sorted(batch.items()))
        rows[lengths] += (size := batches.num_examples(k))
        if lengths not in whole or size > whole[lengths][0]:
            shapes = {
                name: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)
                for name, leaf in batch.items()
            }
            whole[lengths] = size, shapes
    return [
        BatchShape(shapes, rows[lengths] / (size * count))
        for lengths, (size, shapes) in whole.items()
    ]
