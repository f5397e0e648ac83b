"""Inference of language models: continuations of lines, and scores of lines."""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.beam_axis import Hypotheses
from decoding.config import DecodingConfig, check_decode, example_keys, make_step_fn
from decoding.constraints import DecodingConstraints
from tasks.base import ScoredText, cast_params, token_losses
from utils.errors import UserError

# Line breaks within a continuation are printed as escapes.
LINE_BREAKS = {
    character: repr(character)[1:-1] for character in "\n\r\v\f\x85\u2028\u2029"
}
SCORING_BATCH_SIZE = 16  # lines


class TextGenerator:
    """Inference half of the language modelling task.

    A line is read after an end symbol, as in training.

    Attributes:
      tokenizer: tokenizer of the text.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def predict(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int = 1,
    ) -> Iterator[str]:
        """Yields a continuation of each line of at most `decode.max_length` tokens.

        A continuation is one line: breaks within it are escaped, such as \\n. Lines are
        read one by one, whatever `chunk_size` is; see tasks/base.py.
        """
        check_keywords(prefix, document_order)
        decoding = DecodingConfig.from_config(options.decode).single_best
        for texts in self._continue_lines(model, variables, lines, options, decoding):
            yield texts[0][0] if texts else ""

    def predict_n_best(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int = 1,
    ) -> Iterator[list[ScoredText]]:
        """Yields the `decode.n_best` scored continuations of each line."""
        check_keywords(prefix, document_order)
        decoding = DecodingConfig.from_config(options.decode).with_scores
        return self._continue_lines(model, variables, lines, options, decoding)

    def score_targets(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        document_order: bool = False,
        chunk_size: int = SCORING_BATCH_SIZE,
    ) -> Iterator[tuple[float, int] | None]:
        """Yields log probability and number of tokens of each line, its target.

        A line is read in segments, as in an evaluation.

        Args:
          chunk_size: number of lines to read ahead, at most SCORING_BATCH_SIZE.
        """
        check_keywords(False, document_order)
        length = options.eval.segment_length or options.data.segment_length
        size = min(chunk_size, SCORING_BATCH_SIZE)
        lines = iter(lines)
        while chunk := list(itertools.islice(lines, size)):
            ids = [
                self.tokenizer.encode(line) if line.strip() else [] for line in chunk
            ]
            total = np.zeros(SCORING_BATCH_SIZE)
            carry = model.initial_carry(SCORING_BATCH_SIZE, train=False)
            for batch in self._segments(ids, length):
                losses, carry = self._segment_losses(model, variables, carry, batch)
                total -= np.asarray(losses, float)
            for example, line in enumerate(chunk):
                score = float(total[example]), len(ids[example]) + 1
                yield score if line.strip() else None

    def _segments(
        self, texts: list[list[int]], length: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of consecutive segments; an example is a padded text."""
        eos, longest = self.tokenizer.eos, max(map(len, texts)) + 1
        shape = SCORING_BATCH_SIZE, -(-longest // length) * length
        labels, tokens = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        weights = np.zeros(shape, np.float32)
        for example, ids in enumerate(texts):
            labels[example, : len(ids) + 1] = [*ids, eos]
            tokens[example, : len(ids) + 1] = [eos, *ids]
            weights[example, : len(ids) + 1] = 1
        for start in range(0, shape[1], length):
            segment = np.s_[:, start : start + length]
            yield {
                "tokens": tokens[segment],
                "labels": labels[segment],
                "weights": weights[segment],
            }

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _segment_losses(self, model, variables, carry, batch):
        inputs = batch["tokens"], carry
        losses, carry = token_losses(model, variables, inputs, batch)
        return losses.sum(axis=1), carry

    def _continue_lines(
        self, model, variables, lines, options, decoding: DecodingConfig
    ) -> Iterator[list[ScoredText]]:
        """Yields the continuations of each line that a search finds, best first.

        Raises:
          UserError: an option needs a source, or the beam is larger than the
            vocabulary.
        """
        decode = options.decode
        check_decode(decode, self.tokenizer.vocab_size)
        if decoding.coverage_penalty or decode.replace_unknown:
            key = "coverage_penalty" if decoding.coverage_penalty else "replace_unknown"
            raise UserError(
                f"decode.{key}={decode[key]} needs a source; language models have none"
            )
        for index, line in enumerate(lines):
            if not line.strip():
                yield []
                continue
            prompt = [self.tokenizer.eos, *self.tokenizer.encode(line)]
            length = len(prompt) - 1
            padded_length = 2 ** math.ceil(math.log2(max(length, 16)))
            tokens = np.zeros((1, padded_length), np.int32)
            tokens[0, :length] = prompt[:-1]
            hypotheses = self._search(
                model,
                variables,
                tokens,
                np.asarray([length], np.int32),
                np.asarray(prompt[-1:], np.int32),
                decode.max_length + 1,  # with the end symbol
                decoding,
                example_keys(decode.seed, np.asarray([index])),
            )
            yield self._detokenize(prompt, jax.device_get(hypotheses))

    @functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
    def _search(
        self,
        model,
        variables,
        tokens,
        lengths,
        last_token,
        max_steps: int,
        decoding: DecodingConfig,
        keys,
    ) -> Hypotheses:
        variables = cast_params(model, variables)
        batch_size, padded_length = tokens.shape
        mask = jnp.arange(padded_length) < lengths[:, None]
        carry = model.initial_carry(batch_size, train=False)
        context, state = model.apply(
            variables, tokens, mask, carry, max_steps=max_steps, method="start"
        )
        constraints = DecodingConstraints(
            jnp.full(batch_size, max_steps),
            max_steps,
            self.tokenizer.eos,
            decoding.min_length,
            forbidden=(self.tokenizer.pad, self.tokenizer.bos),
        )
        step_fn = make_step_fn(model, variables)
        return decoding(step_fn, context, state, last_token, constraints, keys=keys)

    def _detokenize(
        self, prompt: list[int], hypotheses: Hypotheses
    ) -> list[ScoredText]:
        """Returns the continuations of one prompt with their scores."""
        prompt_text, outputs = self.tokenizer.decode(prompt), []
        rows = (leaf[0] for leaf in hypotheses)
        for tokens, score, length in zip(*rows, strict=True):
            ids = tokens[: max(length - 1, 0)].tolist()
            text = self.tokenizer.decode(prompt + ids)[len(prompt_text) :]
            text = "".join(LINE_BREAKS.get(character, character) for character in text)
            if score != -math.inf:
                outputs.append((text, float(score)))
        return outputs


def check_keywords(prefix: bool, document_order: bool) -> None:
    """Refuses the options of inference that only translation supports."""
    if prefix or document_order:
        flag = "prefix" if prefix else "documents"
        raise UserError(f"--{flag} is for translation; this run is a language model")
