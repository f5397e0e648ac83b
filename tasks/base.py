"""The contract of a task, the registry of tasks, and what all tasks share."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree
from ml_collections import ConfigDict

from tasks.losses import WeightedMetrics
from utils.errors import UserError

# From `cfg.task` to a module with a class `Task`; only the chosen one is imported.
TASKS = {
    "language_modeling": "tasks.language_modeling",
    "translation": "tasks.translation",
}

# Keys of a model's config that a score card's protocol records.
MEMORY_KEYS = ("memory_length", "same_length", "clamp_length")

ScoredText = tuple[str, float]  # an output and the score that the search ranked it by


class Task(Protocol):
    """Contract of a task: how to train, evaluate and use a model.

    A task is created from the tokenizers by side and the keyword arguments
    `label_smoothing`, `z_loss`, `loss_fraction`, `document_order` and, for parallel
    text, `languages`. It holds no parameters: each method takes the model, its
    variables and its carry (state between consecutive batches) as arguments.

    Attributes:
      model_class: name of the class that an architecture's module defines for it.
      corpus_kind: kind of corpus that it reads.
      metric_directions: "min" or "max" for each metric of an evaluation.
      selection_metric: validation metric that selects checkpoints by default.
    """

    model_class: ClassVar[Literal["LanguageModel", "Seq2Seq"]]
    corpus_kind: ClassVar[Literal["text", "parallel"]]
    metric_directions: ClassVar[dict[str, Literal["min", "max"]]]
    selection_metric: ClassVar[str]

    def make_model(self, module, config) -> nn.Module:
        """Creates the model of an architecture for the vocabularies of the task."""

    def initial_carry(
        self, model, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the carry before the first batch; empty for a model without one."""

    def init(self, model, rng: jax.Array, batch: dict) -> PyTree:
        """Initialises the variables, boxed with the names of their logical axes."""

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Returns metrics as (sum, weight), and the carry for the next batch.

        The training objective is the sum of the means of "loss" and "auxiliary/...".
        """

    def evaluate(
        self, model, variables: PyTree, batches, options: ConfigDict, **inputs
    ) -> dict:
        """Returns the score card of a split, and details that are saved beside it.

        Its "scores" map each metric to its "value" and, with `intervals`, the ends
        "low" and "high" of its 95% interval; its "protocol" records all settings that
        scores depend on; its "blocks" are the losses as `BootstrapBlocks`. A task
        that generates adds "samples" and "references".
        """

    def predict(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int,
    ) -> Iterator[str]:
        """Yields an output for each line, in order; a blank line stays blank.

        Args:
          options: the whole config, of which `decode` matters most.
          prefix: whether a tab and a prefix of the output follow the input.
          document_order: whether the carry passes from line to line, up to a blank one.
          chunk_size: number of lines to read ahead.
        """

    def predict_n_best(self, *args, **keywords) -> Iterator[list[ScoredText]]:
        """Yields `decode.n_best` scored outputs for each line; none for a blank line.

        It takes the arguments of `predict`. A beam's outputs come best first.
        """

    def score_targets(self, *args, **keywords) -> Iterator[tuple[float, int] | None]:
        """Yields log probability (nats) and number of tokens of given targets.

        It takes the arguments of `predict` but `prefix`. The end symbol counts. None
        stands for a blank line.
        """


def reset_carry(carry: PyTree, initial: PyTree, reset: Bool[Array, "B"]) -> PyTree:
    """Replaces the carry of the examples that start a new text by the initial one."""

    def choose(old, new):
        if not old.ndim:
            return old
        return jnp.where(reset.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, carry, initial)


def cast_params(model, variables: PyTree) -> PyTree:
    """Casts matrices to the model's compute dtype, once before a decoding loop.

    Results do not change, for the model casts matrices where it uses them. Vectors
    (gains and biases) keep their dtype, since some are used in float32.
    """
    dtype = model.config.compute_dtype

    def cast(leaf):
        is_matrix = leaf.ndim > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if is_matrix else leaf

    return jax.tree.map(cast, variables)


def check_windows(model, batches) -> None:
    """Checks that batches of sliding windows come with a model without a carry.

    Raises:
      UserError: the model has a carry.
    """
    if not getattr(batches, "stride", None):
        return
    carry = jax.eval_shape(
        lambda: model.initial_eval_carry(batches.batch_size, batches.length)
    )
    if jax.tree.leaves(carry):
        raise UserError(
            f"eval.window={batches.length} needs a model without a carry; leave out "
            "eval.window, or set eval.memory_length=0 where the model has a memory"
        )
