"""Language modelling: each token from all that stand before it.

Consecutive segments of a text with the model's carry handed on, in training as
in evaluation.
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

from tasks.bootstrap import BLOCK, BootstrapBlocks
from tasks.carries import reset_carry
from tasks.generation import TextGenerator
from tasks.losses import WeightedMetrics, likelihood_loss, token_losses
from utils.errors import UserError

# Of a model's config.
MEMORY_KEYS = ("attention_window", "memory_length", "same_length", "clamp_length")


class Task(TextGenerator):
    """See README.md for what a task is."""

    model_class = "LanguageModel"
    corpus_kind = "text"
    selection_metric = "loss"  # the validation score that chooses checkpoints
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
        super().__init__(tokenizers["text"])
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.loss_fraction = loss_fraction

    def make_model(self, module, config) -> nn.Module:
        """The model of an architecture for this task's vocabulary."""
        return module.LanguageModel(config, self.tokenizer.vocab_size)

    def initial_carry(
        self, model, rows: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """What the first segment finds."""
        return model.initial_carry(rows, train=train, memory_length=memory_length)

    def init(self, model, rng: jax.Array, batch: dict) -> PyTree:
        """Variables of the model, with names of logical axes."""

        def everything(model, tokens, labels, carry):
            hidden, _ = model(tokens, carry, train=False)
            return model.log_prob(hidden, labels)

        carry = model.initial_carry(len(batch["tokens"]), train=True)
        init = nn.init(everything, model)
        return init(rng, batch["tokens"], batch["labels"], carry)

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Metrics as (sum, weight), and the next carry; see tasks/losses.py."""
        initial = model.initial_carry(len(batch["tokens"]), train=train)
        carry = reset_carry(carry, initial, batch["reset"])
        return likelihood_loss(
            model,
            variables,
            (batch["tokens"], carry),
            batch | {"weights": self._last_part(batch["weights"])},
            rng,
            smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            train=train,
        )

    def _last_part(self, weights):
        """Weights of the tokens that count (half loss in Dai et al. 2019, table 6)."""
        length = weights.shape[1]
        first = length - math.ceil(self.loss_fraction * length)
        return weights * (jnp.arange(length) >= first)

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        intervals: bool = False,
    ) -> dict:
        """Score card of a whole text; see README.md for its form.

        Args:
          batches: `LMEvalBatches`, or `SlidingWindows` for a model without carry.
          options: `eval` (see configs/base.py).
          intervals: whether scores get bootstrap intervals.

        Raises UserError for windows where a model carries something.
        """
        check_windows(model, batches)
        carry = model.initial_eval_carry(batches.batch_size, batches.length)
        stride = getattr(batches, "stride", None)
        blocks = self._losses(model, variables, carry, batches)
        text, tokens = batches.text, float(blocks.weight.sum())
        low_high = blocks.interval() if intervals else ()
        told = [
            metrics_from_loss(mean, tokens, text) for mean in (blocks.mean, *low_high)
        ]
        ends = ("value", "low", "high")
        return {
            "scores": {
                name: dict(zip(ends, [one[name] for one in told], strict=False))
                for name in told[0]
            },
            "protocol": {
                "tokens": int(tokens),
                "words": text.words,
                "characters": text.characters,
                "bytes": text.size,
                "rows": batches.batch_size,
                **(
                    {"window": batches.length, "stride": stride}
                    if stride
                    else {"segment_length": batches.length}
                ),
                **{key: getattr(model.config, key, 0) for key in MEMORY_KEYS},
                "tokenizer": self.tokenizer.kind,
                **({"block": BLOCK} if intervals else {}),
            },
            "blocks": blocks,
        }

    def _losses(self, model, variables, carry, batches) -> BootstrapBlocks:
        """Of every token of a text, each in its block."""
        variables = variables | self._prepare(model, variables, carry)
        carry = jax.tree.map(jnp.copy, carry)  # no buffer twice: they are donated
        blocks = BootstrapBlocks.zeros(-(-len(batches.text.tokens) // BLOCK))
        for k in range(len(batches)):
            batch = batches[k]
            found, carry = self._score(model, variables, carry, batch)
            blocks.add(
                batches.label_positions(k) // BLOCK, np.asarray(found), batch["weights"]
            )
        return blocks

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _prepare(self, model, variables, carry):
        return model.apply(variables, carry, method="precompute")

    @functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
    def _score(self, model, variables, carry, batch):
        return token_losses(model, variables, (batch["tokens"], carry), batch)


def check_windows(model, batches) -> None:
    """Raises UserError for windows where a model carries something."""
    if not getattr(batches, "stride", None):
        return
    carry = jax.eval_shape(
        lambda: model.initial_eval_carry(batches.batch_size, batches.length)
    )
    if jax.tree.leaves(carry):
        raise UserError(
            f"eval.window={batches.length}: this model reads on from what it "
            "carries, so windows are not for it; leave eval.window out, or set "
            "eval.memory_length=0 where that is a key of it"
        )


def metrics_from_loss(loss: float, tokens: float, text) -> dict[str, float]:
    """What nats a token come to, by the exact counts of a text.

    Args:
      text: with its `words`, `characters` and bytes (`size`), ends of lines included.
    """
    total = loss * tokens
    bits = total / math.log(2)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_token": loss / math.log(2),
        "word_perplexity": math.exp(min(total / text.words, 700.0)),
        "bits_per_character": bits / text.characters,
        "bits_per_byte": bits / text.size,
    }
