"""From lines of text to their continuations, or to the scores of the lines."""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.config import DecodingConfig, check_decode, example_keys, make_step_fn
from decoding.constraints import DecodingConstraints
from decoding.hypotheses import Hypotheses
from tasks.losses import token_losses
from tasks.precision import cast_params
from utils.errors import UserError

BREAKS = {character: repr(character)[1:-1] for character in "\n\r\v\f\x85\u2028\u2029"}
ROWS = 16  # lines that are scored at a time

Scored = tuple[str, float]  # a continuation and what the search ranked it by


class TextGenerator:
    """What `predict.py` asks of the task of language modelling.

    As in training, a line is read after the end of another.

    Attributes:
      tokenizer: of the text.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def predict(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        **how,
    ) -> Iterator[str]:
        """A continuation of each line: `decode.max_length` tokens, or to the end.

        One line stays one line: a break within it is written as Python would, such
        as \\n. A blank line stays blank. Lines are read one by one.
        """
        check_how(**how)
        search = DecodingConfig.from_config(options.decode).single_best
        for found in self._each_line(model, variables, lines, options, search):
            yield found[0][0] if found else ""

    def predict_n_best(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        **how,
    ) -> Iterator[list[Scored]]:
        """The `decode.n_best` continuations of each line with their scores."""
        check_how(**how)
        search = DecodingConfig.from_config(options.decode).with_scores
        return self._each_line(model, variables, lines, options, search)

    def score_targets(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        size: int = ROWS,
        **how,
    ) -> Iterator[tuple[float, int] | None]:
        """Log probability in nats, and tokens, of each line with its end.

        None for a blank line. A line is read in segments as in an evaluation.

        Args:
          size: lines that are read ahead, at most ROWS.
        """
        check_how(**how)
        length = options.eval.segment_length or options.data.segment_length
        lines = iter(lines)
        while chunk := list(itertools.islice(lines, min(size, ROWS))):
            ids = [
                self.tokenizer.encode(line) if line.strip() else [] for line in chunk
            ]
            total = np.zeros(ROWS)
            carry = model.initial_carry(ROWS, train=False)
            for batch in self._segments(ids, length):
                part, carry = self._losses_of(model, variables, carry, batch)
                total -= np.asarray(part, float)
            for row, text in enumerate(chunk):
                yield (float(total[row]), len(ids[row]) + 1) if text.strip() else None

    def _segments(
        self, texts: list[list[int]], length: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Each text with its end as a row of consecutive segments, padded."""
        end, count = self.tokenizer.eos, max(map(len, texts)) + 1
        labels = np.zeros((ROWS, -(-count // length) * length), np.int32)
        tokens, weights = labels.copy(), np.zeros(labels.shape, np.float32)
        for row, ids in enumerate(texts):
            labels[row, : len(ids) + 1] = [*ids, end]
            tokens[row, : len(ids) + 1] = [end, *ids]
            weights[row, : len(ids) + 1] = 1
        for first in range(0, labels.shape[1], length):
            part = np.s_[:, first : first + length]
            yield {
                "tokens": tokens[part],
                "labels": labels[part],
                "weights": weights[part],
            }

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _losses_of(self, model, variables, carry, batch):
        inputs = batch["tokens"], carry
        losses, carry = token_losses(model, variables, inputs, batch)
        return losses.sum(axis=1), carry

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
            if not line.strip():
                yield []
                continue
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
                example_keys(decode.seed, np.asarray([number])),
            )
            yield self._texts(prompt, jax.device_get(found))

    def _texts(self, prompt: list[int], found: Hypotheses) -> list[Scored]:
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
        variables = cast_params(model, variables)
        rows, size = tokens.shape
        mask = jnp.arange(size) < lengths[:, None]
        carry = model.initial_carry(rows, train=False)
        context, state = model.apply(
            variables, tokens, mask, carry, max_steps=max_steps, method="start"
        )
        rules = DecodingConstraints(
            jnp.full(rows, max_steps),
            max_steps,
            self.tokenizer.eos,
            search.min_length,
            forbidden=(self.tokenizer.pad, self.tokenizer.bos),
        )
        step = make_step_fn(model, variables)
        return search(step, context, state, last, rules, keys=keys)


def check_how(column: str = "", documents: bool = False, **_) -> None:
    """Raises UserError for what only sources and their translations have."""
    if column or documents:
        asked = column or "documents"
        raise UserError(f"--{asked} is for translation: this run continues texts")
