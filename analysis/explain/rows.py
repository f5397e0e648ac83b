"""Loss and gradient of each row of a batch, and its text."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from analysis.step_replay.program import step_gradients
from analysis.step_replay.replay import StepInputs
from data.batching.base import Batch
from data.tokenizers.base import PAD
from experiment.setup import TrainingSetup
from training.gradients import total_loss

NUM_GROUPS = 32  # of rows whose gradient is computed at first
NUM_REFINED = 2  # groups whose rows are computed one by one
MAX_CHARACTERS = 160  # of a text
# Fields of a batch with token ids: the tokenizer of their text, by side.
TEXTS = {"tokens": "text", "source": "source", "labels": "target"}


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """Rows of a batch and what they add to the loss and the gradient.

    Attributes:
      weight: weight of their loss, such as their number of tokens.
      loss: mean loss of these rows.
      gradient_norm: norm of what they add to the gradient of the batch.
    """

    rows: tuple[int, ...]
    weight: float
    loss: float
    gradient_norm: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def row_groups(setup: TrainingSetup, inputs: StepInputs) -> list[RowGroup]:
    """Returns groups of rows, the most important first; those are single rows.

    Large batches are first divided into `NUM_GROUPS` groups, of which the most
    important are divided into rows. Rows that are not finite are before all others.
    """
    measure = _make_measure(setup, inputs)
    rows = np.arange(len(next(iter(inputs.batch.values()))))
    parts = np.array_split(rows, min(len(rows), NUM_GROUPS))
    groups = sorted(map(measure, parts), key=_importance)
    refined = [group for group in groups[:NUM_REFINED] if len(group.rows) > 1]
    others = [group for group in groups if group not in refined and group.weight]
    single = [measure([row]) for group in refined for row in group.rows]
    return sorted((group for group in others + single), key=_importance)


def without(setup: TrainingSetup, inputs: StepInputs, rows: Sequence[int]) -> RowGroup:
    """Returns loss and gradient norm of the batch without some rows."""
    count = len(next(iter(inputs.batch.values())))
    left = sorted(set(range(count)) - set(rows))
    group = _make_measure(setup, inputs)(left)
    total = _weights(inputs).sum()
    norm = group.gradient_norm * total / group.weight if group.weight else 0.0
    return dataclasses.replace(group, gradient_norm=float(norm))


def _importance(group: RowGroup) -> tuple[bool, float]:
    return group.is_finite, -group.gradient_norm if group.is_finite else 0.0


def _weights(inputs: StepInputs) -> np.ndarray:
    weights = np.nan_to_num(np.asarray(inputs.batch["weights"], np.float64))
    return weights.reshape(len(weights), -1).sum(1)


def _make_measure(setup, inputs) -> Callable[[Sequence[int]], RowGroup]:
    """Returns a function that measures some rows.

    All others are replaced by one of them, with weight 0.
    """
    compiled, weights = _compile_masked(setup, inputs), _weights(inputs)
    total = max(weights.sum(), 1.0)

    def measure(rows) -> RowGroup:
        chosen = np.zeros(len(weights), np.float32)
        chosen[list(rows)] = 1
        index = np.where(chosen, np.arange(len(weights)), rows[0])
        loss, weight, norm = compiled(
            inputs.state, inputs.carry, inputs.batch, jnp.asarray(index)
        )
        weight = float(weight)
        return RowGroup(
            tuple(map(int, rows)), weight, float(loss), float(norm) * weight / total
        )

    return measure


def _compile_masked(setup: TrainingSetup, inputs: StepInputs) -> Callable:
    """Compiles (state, carry, batch, index) -> loss, weight and gradient norm.

    Row i is replaced by row index[i], with weight 0 where that is another one.
    """

    def compute(state, carry, batch):
        grads, metrics, _ = step_gradients(setup, state, carry, batch)
        numbers = total_loss(metrics), metrics["loss"][1], optax.global_norm(grads)
        return (), carry, numbers

    step = setup.partitioner.wrap(compute, inputs.carry)

    @jax.jit
    def measure(state, carry, batch, index):
        def choose(leaf):
            return leaf[index] if leaf.ndim and len(leaf) == len(index) else leaf

        carry, batch = jax.tree.map(choose, (carry, batch))
        weights = batch["weights"]
        is_own = (index == jnp.arange(len(index))).reshape(
            -1, *[1] * (weights.ndim - 1)
        )
        batch = batch | {"weights": jnp.where(is_own, weights, 0)}
        return step(state, carry, batch)[2]

    return measure


def row_texts(setup: TrainingSetup, batch: Batch, row: int) -> dict[str, str]:
    """Returns the texts of a row by side, cut where they are long."""
    texts = {}
    for name, ids in row_ids(setup, batch, row).items():
        text = setup.experiment.tokenizers[TEXTS[name]].decode(ids)
        if len(text) > MAX_CHARACTERS:
            text = text[:MAX_CHARACTERS] + "..."
        texts[TEXTS[name]] = text
    return texts


def row_ids(setup: TrainingSetup, batch: Batch, row: int) -> dict[str, list[int]]:
    """Returns the token ids of a row by the field of the batch, without padding."""
    found = {}
    for name, side in TEXTS.items():
        if name in batch and side in setup.experiment.tokenizers:
            ids = np.asarray(batch[name])[row].tolist()
            while ids and ids[-1] == PAD:
                ids.pop()
            found[name] = ids
    return found


def rows_with(batch: Batch, names: Sequence[str], tokens: Sequence[int]) -> list[int]:
    """Returns the rows that have one of some tokens in the named fields."""
    rows: set[int] = set()
    for name in names:
        if name in batch:
            ids = np.asarray(batch[name])
            rows |= set(np.nonzero(np.isin(ids, tokens).any(-1))[0].tolist())
    return sorted(rows)
