"""Language modelling: each token from all that stand before it.

Consecutive segments of a text with the model's carry handed on, in training as
in evaluation.
"""

import functools
import math
from collections.abc import Iterable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.greedy import greedy
from tasks.carries import reset_rows

BREAKS = {character: repr(character)[1:-1] for character in "\n\r\v\f\x85\u2028\u2029"}

Pairs = dict[str, tuple[jax.Array, jax.Array]]


class Task:
    """See README.md for what a task is."""

    model_class = "LanguageModel"
    corpus_kind = "text"
    best = ("loss", "min")  # the validation score that chooses checkpoints

    def __init__(self, tokenizers: dict, *, label_smoothing: float = 0.0, **_):
        self.tokenizer = tokenizers["text"]
        self.label_smoothing = label_smoothing

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
        """Negative log likelihood in nats as (sum, weight), and the next carry."""
        initial = model.initial_carry(len(batch["tokens"]), train=train)
        return self._loss(model, variables, carry, initial, batch, rng, train)

    def _loss(self, model, variables, carry, initial, batch, rng, train):
        carry = reset_rows(carry, initial, batch["reset"])
        smoothing = self.label_smoothing if train else 0.0

        def predict(model):
            hidden, after = model(batch["tokens"], carry, train=train)
            return model.log_prob(hidden, batch["labels"], smoothing=smoothing), after

        rngs = {"dropout": rng} if train else {}
        log_prob, after = nn.apply(predict, model)(variables, rngs=rngs)
        weights = batch["weights"]
        return {"loss": (-(log_prob * weights).sum(), weights.sum())}, after

    def evaluate(self, model, variables: PyTree, batches, options: ConfigDict) -> dict:
        """Score card of a whole text; see README.md for its form.

        Args:
          batches: `TextOnce`.
          options: `eval` (see configs/base.py).
        """
        length = options.eval.memory_length
        carry = initial = model.initial_carry(
            batches.rows, train=False, memory_length=length
        )
        total = weight = 0.0
        for k in range(len(batches)):
            pairs, carry = self._score(model, variables, carry, initial, batches[k])
            part = jax.device_get(pairs["loss"])
            total, weight = total + float(part[0]), weight + float(part[1])
        memory_length = getattr(model.config, "memory_length", 0)
        if options.eval.memory_length is not None:
            memory_length = options.eval.memory_length
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
                "memory_length": memory_length,
                "tokenizer": self.tokenizer.kind,
            },
        }

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _score(self, model, variables, carry, initial, batch):
        return self._loss(model, variables, carry, initial, batch, None, train=False)

    def predict(
        self, model, variables: PyTree, lines: Iterable[str], options: ConfigDict
    ) -> Iterator[str]:
        """A continuation of each line: `decode.max_length` tokens, or to the end.

        As in training, a line is read after the end of another. One line stays one
        line: a break within it is written as Python would, such as \\n.
        """
        for line in lines:
            prompt = [self.tokenizer.eos, *self.tokenizer.encode(line)]
            size = 2 ** math.ceil(math.log2(max(len(prompt) - 1, 16)))
            tokens = np.zeros((1, size), np.int32)
            tokens[0, : len(prompt) - 1] = prompt[:-1]
            found = self._continue(
                model,
                variables,
                tokens,
                np.asarray([len(prompt) - 1], np.int32),
                np.asarray(prompt[-1:], np.int32),
                options.decode.max_length + 1,  # the end comes on top
            )
            ids = np.asarray(found)[0].tolist()
            ids = ids[: ids.index(self.tokenizer.eos)]
            shown = self.tokenizer.decode(prompt)
            text = self.tokenizer.decode(prompt + ids)[len(shown) :]
            yield "".join(BREAKS.get(character, character) for character in text)

    @functools.partial(jax.jit, static_argnums=(0, 1, 6))
    def _continue(self, model, variables, tokens, lengths, last, max_steps):
        rows, size = tokens.shape
        mask = jnp.arange(size) < lengths[:, None]
        carry = model.initial_carry(rows, train=False)
        context, state = model.apply(
            variables, tokens, mask, carry, max_steps=max_steps, method="start"
        )
        return greedy(
            functools.partial(model.apply, variables, method="step"),
            context,
            state,
            last,
            limits=jnp.full(rows, max_steps),
            max_steps=max_steps,
            end=self.tokenizer.eos,
            forbidden=(self.tokenizer.pad, self.tokenizer.bos),
        )
