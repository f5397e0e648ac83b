"""Inference of translation models: searches, n-best lists, scores of given targets."""

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from ml_collections import ConfigDict

from decoding.beam_axis import Hypotheses
from decoding.config import DecodingConfig, check_decode, example_keys, make_step_fn
from decoding.constraints import DecodingConstraints
from tasks.base import ScoredText, cast_params, reset_carry, token_losses
from tasks.bleu import one_line
from tasks.inference_batches import (
    CHUNK_SIZE,
    map_in_document_order,
    map_sorted_by_length,
    read_lines,
)


class Translator:
    """Inference half of the translation task.

    Batches have "source", "source_mask", "reset" (start of a document) and "ids",
    which seed samples; "prefix" and "prefix_mask" where translations must begin with
    given tokens; "target" and "target_mask" where these are scored.

    Attributes:
      source, target: tokenizers.
      document_order: whether a batch continues the documents of the one before.
    """

    def __init__(self, tokenizers: dict, *, document_order: bool):
        self.source, self.target = tokenizers["source"], tokenizers["target"]
        self.document_order = document_order

    def initial_carry(
        self, model, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the initial carry; without document order it has no memory."""
        length = memory_length if self.document_order else 0
        return model.initial_carry(batch_size, train=train, memory_length=length)

    def reset(self, model, carry: PyTree, reset, *, train: bool) -> PyTree:
        """Resets the carry of the examples that start a document."""
        initial = self.initial_carry(model, len(reset), train=train)
        return reset_carry(carry, initial, reset)

    # From lines to lines, as `predict.py` needs it; see tasks/base.py.

    def predict(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> Iterator[str]:
        """Yields the best translation of each line; a blank line stays blank."""

        def translate(carry, batch, texts):
            return self.translate(model, variables, carry, batch, options, texts)

        column = "prefix" if prefix else ""
        read = self._read_lines(lines, options, column)
        return self._map_lines(translate, model, read, "", document_order, chunk_size)

    def predict_n_best(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> Iterator[list[ScoredText]]:
        """Yields the `decode.n_best` scored translations of each line."""

        def translate(carry, batch, texts):
            return self.translate_n_best(model, variables, carry, batch, options, texts)

        column = "prefix" if prefix else ""
        read = self._read_lines(lines, options, column)
        return self._map_lines(translate, model, read, [], document_order, chunk_size)

    def score_targets(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        document_order: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> Iterator[tuple[float, int] | None]:
        """Yields log probability and number of tokens of given targets.

        A line is a source, a tab and its target.
        """

        def score(carry, batch, texts):
            return self.score(model, variables, carry, batch)

        read = self._read_lines(lines, options, "target")
        return self._map_lines(score, model, read, None, document_order, chunk_size)

    def _read_lines(self, lines, options: ConfigDict, column: str) -> Iterator:
        max_length = options.data.max_length
        return read_lines(
            lines, self.source, self.target, max_length=max_length, column=column
        )

    def _map_lines(
        self, function: Callable, model, lines, blank, document_order, chunk_size
    ) -> Iterator:
        """Applies a function of (carry, batch, texts) to batches of lines."""
        initial = self.initial_carry(model, 1, train=False)
        if document_order and jax.tree.leaves(initial):
            return map_in_document_order(lines, function, initial, blank=blank)
        if document_order:
            print(
                "this model has no memory; each sentence is translated independently",
                file=sys.stderr,
            )

        def independent(batch, texts):
            carry = self.initial_carry(model, len(texts), train=False)
            results, _ = function(carry, batch, texts)
            return results

        return map_sorted_by_length(
            lines, independent, blank=blank, chunk_size=chunk_size
        )

    # From a batch to texts or scores.

    def translate(
        self, model, variables, carry, batch, options: ConfigDict, texts: list[str]
    ) -> tuple[list[str], PyTree]:
        """Returns the best translation of each example, and the next carry.

        Args:
          texts: the sources, from which unknown words are copied.
        """
        decoding = DecodingConfig.from_config(options.decode).single_best
        hypotheses, after = self.search(
            model, variables, carry, batch, options, decoding
        )
        detokenized = self._detokenize(
            model, variables, carry, batch, hypotheses, options, texts
        )
        return [best for (best,) in detokenized], after

    def translate_n_best(
        self, model, variables, carry, batch, options: ConfigDict, texts: list[str]
    ) -> tuple[list[list[ScoredText]], PyTree]:
        """Returns scored translations of each example, and the next carry.

        Those of a beam come best first, samples in the order of their random keys.
        """
        decoding = DecodingConfig.from_config(options.decode).with_scores
        hypotheses, after = self.search(
            model, variables, carry, batch, options, decoding
        )
        detokenized = self._detokenize(
            model, variables, carry, batch, hypotheses, options, texts
        )
        scores = np.asarray(hypotheses.scores).tolist()
        pairs = [
            list(zip(*row, strict=True))
            for row in zip(detokenized, scores, strict=True)
        ]
        return [[pair for pair in row if pair[1] > -math.inf] for row in pairs], after

    def search(
        self, model, variables, carry, batch, options: ConfigDict, decoding
    ) -> tuple[Hypotheses, PyTree]:
        """Returns hypotheses of each example, and the carry after the best ones.

        A target may have `decode.max_length_ratio` times the tokens of its source and
        10 more, at most `decode.max_length`.

        Raises:
          UserError: the beam is larger than the vocabulary.
        """
        check_decode(options.decode, self.target.vocab_size)
        ratio, width = options.decode.max_length_ratio, batch["source"].shape[1]
        max_steps = min(options.decode.max_length, int(ratio * width) + 10)
        limits = ratio * batch["source_mask"].sum(axis=1) + 10
        limits = np.minimum(limits, max_steps).astype(np.int32)
        if "prefix" in batch:
            max_steps = max(max_steps, batch["prefix"].shape[1] + 1)
        names = ("source", "source_mask", "reset", "prefix", "prefix_mask")
        inputs = {name: batch[name] for name in names if name in batch}
        keys = example_keys(options.decode.seed, batch["ids"])
        return self._search(
            model, variables, carry, inputs, limits, max_steps, decoding, keys
        )

    @functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
    def _search(
        self,
        model,
        variables,
        carry,
        batch,
        length_limits,
        max_steps: int,
        decoding: DecodingConfig,
        keys,
    ):
        variables = cast_params(model, variables)
        source = batch["source"], batch["source_mask"]
        carry = self.reset(model, carry, batch["reset"], train=False)
        context, state = model.apply(
            variables, *source, carry, max_steps=max_steps, method="start"
        )
        prefix = (batch["prefix"], batch["prefix_mask"]) if "prefix" in batch else None
        constraints = DecodingConstraints(
            length_limits,
            max_steps,
            self.target.eos,
            decoding.min_length,
            forbidden=(self.target.pad, self.target.bos, *self.target.tags.values()),
            prefix=prefix,
        )
        hypotheses = decoding(
            make_step_fn(model, variables, attention=decoding.coverage_penalty > 0),
            context,
            state,
            jnp.full(len(length_limits), self.target.bos),
            constraints,
            keys=keys,
            source_mask=batch["source_mask"],
        )
        if jax.tree.leaves(carry):  # else there is nothing to carry on
            target = decoder_inputs(hypotheses.tokens[:, 0], self.target)
            _, carry = model.apply(variables, *source, *target, carry, train=False)
        return hypotheses, carry

    def score(
        self, model, variables, carry, batch
    ) -> tuple[list[tuple[float, int]], PyTree]:
        """Returns log probability and length of each "target", and the next carry."""
        names = ("source", "source_mask", "reset", "target")
        inputs = {name: batch[name] for name in names}
        log_prob, carry = self._log_prob(model, variables, carry, inputs)
        lengths = batch["target_mask"].sum(axis=1).tolist()
        return list(zip(np.asarray(log_prob).tolist(), lengths, strict=True)), carry

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _log_prob(self, model, variables, carry, batch):
        carry = self.reset(model, carry, batch["reset"], train=False)
        target_in, mask = decoder_inputs(batch["target"], self.target)
        labels = {"labels": batch["target"], "weights": mask}
        inputs = (batch["source"], batch["source_mask"], target_in, mask, carry)
        losses, carry = token_losses(model, variables, inputs, labels)
        return -losses.sum(axis=1), carry

    def _detokenize(
        self, model, variables, carry, batch, hypotheses: Hypotheses, options, texts
    ) -> list[list[str]]:
        """Returns the hypotheses of each example as texts of one line each."""
        tokens, lengths = jax.device_get((hypotheses.tokens, hypotheses.lengths))
        ids = [
            [
                beam[: max(length - 1, 0)].tolist()
                for beam, length in zip(*row, strict=True)
            ]
            for row in zip(tokens, lengths, strict=True)
        ]
        if options.decode.replace_unknown:
            names = ("source", "source_mask", "reset")
            inputs = {name: batch[name] for name in names}
            alignments = [
                np.asarray(self._align(model, variables, carry, inputs, beam))
                for beam in np.swapaxes(tokens, 0, 1)
            ]
            outputs = self._replace_unknown(ids, alignments, texts)
        else:
            outputs = [[self.target.decode(beam) for beam in row] for row in ids]
        return [[one_line(text) for text in row] for row in outputs]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _align(self, model, variables, carry, batch, tokens):
        """Returns the source position with most attention for each target token."""
        variables = cast_params(model, variables)
        carry = self.reset(model, carry, batch["reset"], train=False)
        source = batch["source"], batch["source_mask"]
        target = decoder_inputs(tokens, self.target)
        _, sown = model.apply(
            variables, *source, *target, carry, train=False, mutable=["intermediates"]
        )
        return model.alignment(sown["intermediates"]).argmax(axis=-1)

    def _replace_unknown(self, ids, alignments, texts) -> list[list[str]]:
        """Detokenizes hypotheses with unknown words copied from the sources."""
        outputs = []
        for example, (text, hypotheses) in enumerate(zip(texts, ids, strict=True)):
            words = [
                None if word in self.source.tags else word
                for word in self.source.words(text)
            ]
            outputs.append(
                [
                    replace_unknown(
                        self.target, beam, alignment[example, : len(beam)], words
                    )
                    for beam, alignment in zip(hypotheses, alignments, strict=True)
                ]
            )
        return outputs


def decoder_inputs(
    tokens: Int[Array, "B T"], tokenizer
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Shifts target tokens right by one, and masks them up to the end symbol."""
    is_end = tokens == tokenizer.eos
    mask = jnp.cumsum(is_end, axis=1) - is_end == 0
    first = jnp.full((len(tokens), 1), tokenizer.bos, tokens.dtype)
    shifted = jnp.concatenate([first, tokens[:, :-1]], axis=1)
    return jnp.where(mask, shifted, tokenizer.pad), mask


def replace_unknown(
    tokenizer,
    ids: Sequence[int],
    attended_positions: Sequence[int],
    words: Sequence[str | None],
) -> str:
    """Detokenizes a translation with unknown words copied from the source.

    After Jean et al. (2015, "On Using Very Large Target Vocabulary for Neural Machine
    Translation", section 4.1.3) and Luong et al. (2015): out-of-vocabulary names and
    numbers are mostly the same in both languages. An unknown word stays where most
    attention is on the end symbol or a tag of the source.

    Args:
      tokenizer: tokenizer of the target.
      ids: token ids of the translation without its end symbol.
      attended_positions: source position with most attention for each token.
      words: word of each source token without the end symbol; None for a tag.
    """
    tags = tokenizer.tags.values()
    pairs = [
        (token, position)
        for token, position in zip(ids, attended_positions, strict=True)
        if token not in tags
    ]
    text = tokenizer.detokenize([token for token, _ in pairs])
    parts = text.split(tokenizer.unknown)
    positions = [position for token, position in pairs if token == tokenizer.unk]
    if len(parts) != len(positions) + 1:  # a word of the text looks like the symbol
        return tokenizer.decode(ids)
    text = parts[0]
    for position, part in zip(positions, parts[1:], strict=True):
        word = words[position] if position < len(words) else None
        text += (word or tokenizer.unknown) + part
    return tokenizer.normalizer.undo(text)
