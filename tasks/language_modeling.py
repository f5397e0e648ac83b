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
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tasks.carries import reset_rows
from tasks.likelihood import Pairs, likelihood_loss
from tasks.text_generator import TextGenerator

REACH = ("memory_length", "same_length", "clamp_length")  # of a model's config


class Task(TextGenerator):
    """See README.md for what a task is."""

    model_class = "LanguageModel"
    corpus_kind = "text"
    best = "loss"  # the validation score that chooses checkpoints
    better: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "loss",
            "perplexity",
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
        loss_share: float = 1.0,
        **_,
    ):
        super().__init__(tokenizers["text"])
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.loss_share = loss_share

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
    ) -> tuple[Pairs, PyTree]:
        """Pairs (sum, weight), and the next carry; see tasks/likelihood.py."""
        initial = model.initial_carry(len(batch["tokens"]), train=train)
        carry = reset_rows(carry, initial, batch["reset"])
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
        first = length - math.ceil(self.loss_share * length)
        return weights * (jnp.arange(length) >= first)

    def evaluate(self, model, variables: PyTree, batches, options: ConfigDict) -> dict:
        """Score card of a whole text; see README.md for its form.

        Args:
          batches: `TextOnce`.
          options: `eval` (see configs/base.py).
        """
        carry = model.evaluation_carry(batches.rows, batches.length)
        variables = variables | self._prepare(model, variables, carry)
        carry = jax.tree.map(jnp.copy, carry)  # no buffer twice: they are donated
        total = weight = 0.0
        for k in range(len(batches)):
            pair, carry = self._score(model, variables, carry, batches[k])
            part = jax.device_get(pair)
            total, weight = total + float(part[0]), weight + float(part[1])
        text = batches.text
        loss = total / weight
        bits = total / math.log(2)
        scores = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "word_perplexity": math.exp(min(total / text.words, 700.0)),
            "bits_per_character": bits / text.characters,
            "bits_per_byte": bits / text.size,
        }
        return {
            "scores": {name: {"value": value} for name, value in scores.items()},
            "protocol": {
                "tokens": int(weight),
                "words": text.words,
                "characters": text.characters,
                "bytes": text.size,
                "rows": batches.rows,
                "segment_length": batches.length,
                **{key: getattr(model.config, key, 0) for key in REACH},
                "tokenizer": self.tokenizer.kind,
            },
        }

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _prepare(self, model, variables, carry):
        return model.apply(variables, carry, method="prepare")

    @functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
    def _score(self, model, variables, carry, batch):
        inputs = batch["tokens"], carry
        pairs, carry = likelihood_loss(
            model, variables, inputs, batch, None, smoothing=0.0, train=False
        )
        return pairs["loss"], carry
