"""Translations and scores of lines: search, text of the outputs, and the carry."""

import functools
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from ml_collections import ConfigDict

from decoding.config import (
    DecodingConfig,
    choose_hypotheses,
    example_keys,
    max_source_length,
    search,
)
from decoding.hypotheses import DecodingConstraints, Hypotheses
from tasks import base
from tasks import inference_batches as batches
from tasks.base import ScoredText, cast_params
from utils.memory import bounded_jit

# Imported where decode.replace_unknown is set.
UNKNOWN_WORDS = "tasks.unknown_words:copy_unknown_words"


class Translator(base.Task):
    """Inference with translation models.

    Attributes:
      source, target: tokenizers.
      languages: language codes of source and target.
    """

    def generate(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        decoding: DecodingConfig,
        *,
        prefix: bool = False,
        **keywords,
    ) -> Iterator[list[ScoredText]]:
        """Yields translations of each line, samples in the order of their keys."""

        def translate(carry, batch, texts):
            return self.translate(
                model, variables, carry, batch, options, texts, decoding
            )

        column = "prefix" if prefix else ""
        return self._map_lines(translate, model, lines, options, column, [], **keywords)

    def score_targets(
        self, model, variables: PyTree, lines: Iterable[str], options, **keywords
    ) -> Iterator[tuple[float, int] | None]:
        """Scores lines of a source, a tab and its target; see tasks/base.py."""

        def score(carry, batch, texts):
            mask = batch["labels_mask"]
            batch = batch | {"target_mask": mask, "weights": mask}
            losses, carry = self.target_losses(model, variables, carry, batch)
            scores, lengths = -np.asarray(losses), mask.sum(axis=1)
            return list(zip(scores.tolist(), lengths.tolist(), strict=True)), carry

        return self._map_lines(score, model, lines, options, "target", None, **keywords)

    def _map_lines(
        self,
        function: Callable,
        model,
        lines,
        options: ConfigDict,
        column,
        blank,
        *,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator:
        """Applies a function of (carry, batch, texts) to batches of lines."""
        limit = max_source_length(options)
        lines = batches.read_lines(lines, self.source, self.target, limit, column)
        carry = self.initial_carry(model, 1, train=False)
        if document_order and jax.tree.leaves(carry):
            return batches.map_in_document_order(lines, function, carry, blank)
        if document_order:
            print(
                "this model has no memory; each sentence is translated independently",
                file=sys.stderr,
            )

        def independent(batch, texts):
            carry = self.initial_carry(model, len(texts), train=False)
            return function(carry, batch, texts)[0]

        return batches.map_sorted_by_length(lines, independent, blank, chunk_size)

    def translate(
        self, model, variables, carry, batch, options: ConfigDict, texts, decoding
    ) -> tuple[list[list[ScoredText]], PyTree]:
        """Returns scored translations of each example, and the next carry.

        Args:
          texts: the sources, from which unknown words are copied.
        """
        hypotheses, after = self.search(
            model, variables, carry, batch, options, decoding
        )
        if options.decode.replace_unknown:
            copy_unknown_words = pkgutil.resolve_name(UNKNOWN_WORDS)
            names = ("source", "source_mask", "reset")
            inputs = {name: batch[name] for name in names}
            outputs = copy_unknown_words(
                self, model, variables, carry, inputs, hypotheses, texts
            )
        else:
            outputs = [
                [(self.target.decode(ids), score) for ids, score in row]
                for row in hypotheses.to_lists()
            ]
        outputs = [[(one_line(text), score) for text, score in row] for row in outputs]
        return outputs, after

    def search(
        self, model, variables, carry, batch, options: ConfigDict, decoding
    ) -> tuple[Hypotheses, PyTree]:
        """Returns hypotheses of each example, and the carry after the best ones."""
        max_steps = int(output_limits(options.decode, batch["source"].shape[1]))
        limits = output_limits(options.decode, batch["source_mask"].sum(axis=1))
        if "prefix" in batch:
            max_steps = max(max_steps, batch["prefix"].shape[1] + 1)
        names = ("source", "source_mask", "reset", "prefix", "prefix_mask")
        inputs = {name: batch[name] for name in names if name in batch}
        keys = example_keys(options.decode.seed, batch["ids"])
        hypotheses, after = self._search(
            model, variables, carry, inputs, limits, max_steps, decoding, keys
        )
        if decoding.chooses_by_text:
            hypotheses = choose_hypotheses(
                decoding,
                hypotheses,
                lambda ids: one_line(self.target.with_text().decode(ids)),
                options.decode,
                decoding.n_best,
                language=self.languages[1],
                is_padding=batch["ids"] < 0,
            )
            best = hypotheses.tokens[:, 0]
            after = self._carry_after(model, variables, carry, inputs, best)
        return hypotheses, after

    @functools.partial(bounded_jit, static_argnums=(0, 1, 6, 7))
    def _search(
        self, model, variables, carry, batch, limits, max_steps: int, decoding, keys
    ):
        variables = cast_params(model, variables)
        source, has_prefix = (batch["source"], batch["source_mask"]), "prefix" in batch
        carry = self.reset(model, carry, batch["reset"], train=False)
        constraints = DecodingConstraints(
            limits,
            max_steps,
            self.target.eos,
            decoding.min_length,
            forbidden=(self.target.pad, self.target.bos, *self.target.tags.values()),
            prefix=(batch["prefix"], batch["prefix_mask"]) if has_prefix else None,
        )
        hypotheses = search(
            decoding,
            model,
            variables,
            (*source, carry),
            jnp.full(limits.shape[0], self.target.bos),
            constraints,
            keys=keys,
            source_mask=batch["source_mask"],
        )
        if decoding.chooses_by_text:  # `_carry_after` follows the choice
            return hypotheses, carry
        best = hypotheses.tokens[:, 0]
        return hypotheses, self._advance(model, variables, source, carry, best)

    @functools.partial(bounded_jit, static_argnums=(0, 1))
    def _carry_after(self, model, variables, carry, batch, tokens):
        """Returns the carry after translations of a batch."""
        variables = cast_params(model, variables)
        carry = self.reset(model, carry, batch["reset"], train=False)
        source = batch["source"], batch["source_mask"]
        return self._advance(model, variables, source, carry, tokens)

    def _advance(self, model, variables, source, carry, tokens):
        if not jax.tree.leaves(carry):  # there is nothing to carry on
            return carry
        target = decoder_inputs(tokens, self.target)
        return model.apply(variables, *source, *target, carry, train=False)[1]


def output_limits(
    decode: ConfigDict, lengths: Int[np.ndarray, "..."] | int
) -> Int[np.ndarray, "..."]:
    """Returns the largest number of tokens of outputs, given those of their sources.

    It is `decode.max_length_ratio` times that of the source and 10 more, at most
    `decode.max_length`.
    """
    limits = decode.max_length_ratio * np.asarray(lengths) + 10
    return np.minimum(limits, decode.max_length).astype(np.int32)


def one_line(text: str) -> str:
    """Replaces line breaks by spaces, so that a text fits a file of lines."""
    return text.replace("\r", " ").replace("\n", " ")


def decoder_inputs(
    tokens: Int[Array, "B T"], tokenizer
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Shifts target tokens right by one, and masks them up to the end symbol."""
    is_end = tokens == tokenizer.eos
    mask = jnp.cumsum(is_end, axis=1) - is_end == 0
    first = jnp.full((tokens.shape[0], 1), tokenizer.bos, tokens.dtype)
    shifted = jnp.concatenate([first, tokens[:, :-1]], axis=1)
    return jnp.where(mask, shifted, tokenizer.pad), mask
