"""Language modelling: each token from all that stand before it.

Consecutive segments of a text with the model's carry handed on, in training as
in evaluation.
"""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.hypotheses import Hypotheses
from decoding.rules import Rules
from errors import UserError
from tasks.carries import reset_rows
from tasks.likelihood import Pairs, likelihood_loss
from tasks.precision import narrowed
from tasks.search import Search, check_decode, row_keys, stepper

BREAKS = {character: repr(character)[1:-1] for character in "\n\r\v\f\x85\u2028\u2029"}
REACH = ("memory_length", "same_length", "clamp_length")  # of a model's config


class Task:
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
        self.tokenizer = tokenizers["text"]
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

    def predict(
        self, model, variables: PyTree, lines: Iterable[str], options: ConfigDict
    ) -> Iterator[str]:
        """A continuation of each line: `decode.max_length` tokens, or to the end.

        As in training, a line is read after the end of another. One line stays one
        line: a break within it is written as Python would, such as \\n.
        """
        search = Search.of(options.decode).best_alone
        for [(text, _)] in self._each_line(model, variables, lines, options, search):
            yield text

    def predict_all(
        self, model, variables: PyTree, lines: Iterable[str], options: ConfigDict
    ) -> Iterator[list[tuple[str, float]]]:
        """The `decode.n_best` continuations of each line with their scores."""
        search = Search.of(options.decode).scored
        return self._each_line(model, variables, lines, options, search)

    def _each_line(self, model, variables, lines, options, search):
        """What a search finds after each line.

        Raises UserError for what needs a source to look at, and for a beam that is
        larger than the vocabulary.
        """
        decode = options.decode
        check_decode(decode, self.tokenizer.vocab_size)
        if search.coverage_penalty or decode.replace_unknown:
            key = "coverage_penalty" if search.coverage_penalty else "replace_unknown"
            raise UserError(f"decode.{key}={decode[key]}: a text has no source")
        for number, line in enumerate(lines):
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
                decode.max_length + 1,  # the end comes on top
                search,
                row_keys(decode.seed, np.asarray([number])),
            )
            yield self._texts(prompt, jax.device_get(found))

    def _texts(self, prompt: list[int], found: Hypotheses) -> list[tuple[str, float]]:
        """Continuations and their scores, best first."""
        shown, texts = self.tokenizer.decode(prompt), []
        for tokens, score, length in zip(*(leaf[0] for leaf in found), strict=True):
            ids = tokens[: max(length - 1, 0)].tolist()
            text = self.tokenizer.decode(prompt + ids)[len(shown) :]
            text = "".join(BREAKS.get(character, character) for character in text)
            if score != -math.inf:
                texts.append((text, float(score)))
        return texts

    @functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
    def _continue(
        self, model, variables, tokens, lengths, last, max_steps, search, keys
    ):
        variables = narrowed(model, variables)
        rows, size = tokens.shape
        mask = jnp.arange(size) < lengths[:, None]
        carry = model.initial_carry(rows, train=False)
        context, state = model.apply(
            variables, tokens, mask, carry, max_steps=max_steps, method="start"
        )
        rules = Rules(
            jnp.full(rows, max_steps),
            max_steps,
            self.tokenizer.eos,
            search.min_length,
            forbidden=(self.tokenizer.pad, self.tokenizer.bos),
        )
        step = stepper(model, variables)
        return search(step, context, state, last, rules, keys=keys)
