"""Language modelling task: each token from all tokens before it.

Batches are consecutive segments of a text; the model's carry passes from one to the
next in training and in evaluation.
"""

import functools
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tasks.base import (
    MEMORY_KEYS,
    WeightedMetrics,
    check_windows,
    likelihood_loss,
    reset_carry,
    token_losses,
)
from tasks.bootstrap import BLOCK_SIZE, BootstrapBlocks
from tasks.generation import TextGenerator


class Task(TextGenerator):
    """Training and evaluation of language models; contract in tasks/base.py."""

    model_class = "LanguageModel"
    corpus_kind = "text"
    selection_metric = "loss"
    metric_directions: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "loss",
            "perplexity",
            "bits_per_token",
            "word_perplexity",
            "bits_per_character",
            "bits_per_byte",
        ),
        "min",
    )

    def __init__(
        self,
        tokenizers: dict,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_fraction: float = 1.0,
        **_,
    ):
        """Creates the task from the tokenizer of the side "text".

        Args:
          loss_fraction: fraction of each segment, counted from its end, that training
            minimises the loss of.
        """
        super().__init__(tokenizers["text"])
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.loss_fraction = loss_fraction

    def make_model(self, module, config) -> nn.Module:
        """Creates the LanguageModel of an architecture for the vocabulary."""
        return module.LanguageModel(config, self.tokenizer.vocab_size)

    def initial_carry(
        self, model, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the carry before the first segment."""
        return model.initial_carry(batch_size, train=train, memory_length=memory_length)

    def init(self, model, rng: jax.Array, batch: dict) -> PyTree:
        """Initialises the variables, boxed with the names of their logical axes."""

        def call_all(model, tokens, labels, carry):
            hidden, _ = model(tokens, carry, train=False)
            return model.log_prob(hidden, labels)

        carry = model.initial_carry(len(batch["tokens"]), train=True)
        init = nn.init(call_all, model)
        return init(rng, batch["tokens"], batch["labels"], carry)

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Returns metrics as (sum, weight), and the next carry; see tasks/base.py."""
        initial = model.initial_carry(len(batch["tokens"]), train=train)
        carry = reset_carry(carry, initial, batch["reset"])
        return likelihood_loss(
            model,
            variables,
            (batch["tokens"], carry),
            batch | {"weights": self._mask_start(batch["weights"])},
            rng,
            smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            train=train,
        )

    def _mask_start(self, weights):
        """Sets the weights before the last `loss_fraction` of a segment to 0.

        This is the half loss of Dai et al. (2019), table 6.
        """
        length = weights.shape[1]
        start = length - math.ceil(self.loss_fraction * length)
        return weights * (jnp.arange(length) >= start)

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a whole text; see tasks/base.py.

        Args:
          batches: consecutive segments, or sliding windows for a model without carry.
          options: the config; nothing of it is used.
          intervals: whether to add bootstrap intervals.

        Raises:
          UserError: the batches are windows, and the model has a carry.
        """
        check_windows(model, batches)
        carry = model.initial_eval_carry(batches.batch_size, batches.length)
        blocks = self._evaluate_losses(model, variables, carry, batches)
        text, num_tokens = batches.text, float(blocks.weight.sum())
        low_high = blocks.interval() if intervals else ()
        metrics = [
            metrics_from_loss(loss, num_tokens, text)
            for loss in (blocks.mean, *low_high)
        ]
        stride = getattr(batches, "stride", None)
        context = (
            {"window": batches.length, "stride": stride}
            if stride
            else {"segment_length": batches.length}
        )
        memory_keys = ("attention_window", *MEMORY_KEYS)
        return {
            "scores": {
                name: {
                    key: values[name]
                    for key, values in zip(
                        ("value", "low", "high"), metrics, strict=False
                    )
                }
                for name in metrics[0]
            },
            "protocol": {
                "tokens": int(num_tokens),
                "words": text.words,
                "characters": text.characters,
                "bytes": text.size,
                "batch_size": batches.batch_size,
                **context,
                **{key: getattr(model.config, key, 0) for key in memory_keys},
                "tokenizer": self.tokenizer.kind,
                **({"block": BLOCK_SIZE} if intervals else {}),
            },
            "blocks": blocks,
        }

    def _evaluate_losses(self, model, variables, carry, batches) -> BootstrapBlocks:
        """Returns the losses of all tokens, summed by block of the text."""
        variables = variables | self._precompute(model, variables, carry)
        carry = jax.tree.map(jnp.copy, carry)  # distinct buffers, since it is donated
        blocks = BootstrapBlocks.zeros(-(-len(batches.text.tokens) // BLOCK_SIZE))
        for k in range(len(batches)):
            batch = batches[k]
            losses, carry = self._token_losses(model, variables, carry, batch)
            indices = batches.label_positions(k) // BLOCK_SIZE
            blocks.add(indices, np.asarray(losses), batch["weights"])
        return blocks

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _precompute(self, model, variables, carry):
        return model.apply(variables, carry, method="precompute")

    @functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
    def _token_losses(self, model, variables, carry, batch):
        return token_losses(model, variables, (batch["tokens"], carry), batch)


def metrics_from_loss(loss: float, num_tokens: float, text) -> dict[str, float]:
    """Converts a loss per token in nats to all metrics of a text.

    Args:
      text: has the exact counts `words`, `characters` and `size` (bytes), line ends
        included.
    """
    total = loss * num_tokens
    bits = total / math.log(2)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_token": loss / math.log(2),
        "word_perplexity": math.exp(min(total / text.words, 700.0)),
        "bits_per_character": bits / text.characters,
        "bits_per_byte": bits / text.size,
    }
