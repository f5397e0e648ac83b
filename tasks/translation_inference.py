"""From batches of sources to translations, or to the scores of given ones."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.config import DecodingConfig, check_decode, example_keys, make_step_fn
from decoding.constraints import DecodingConstraints
from decoding.hypotheses import Hypotheses
from tasks.bleu import one_line
from tasks.carries import reset_carry
from tasks.losses import token_losses
from tasks.precision import cast_params
from tasks.replace_unk import replace_unknown
from tasks.translation_inputs import decoder_inputs

Scored = tuple[str, float]  # a translation and what the search ranked it by


class Translator:
    """What the task of translation does with a model once it is trained.

    Batches of sources have `source`, `source_mask`, `reset` and `ids`, numbers that
    samples depend on; `prefix` and `prefix_mask`, [B P], where translations have to
    begin with given tokens; `target` and `target_mask` where one is to be scored.

    Attributes:
      source, target: tokenizers.
      document_order: whether a batch goes on where the one before it stopped.
    """

    def __init__(self, tokenizers: dict, *, document_order: bool):
        self.source, self.target = tokenizers["source"], tokenizers["target"]
        self.document_order = document_order

    def initial_carry(
        self, model, rows: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Nothing where sentences come in no order, so that none is remembered."""
        length = memory_length if self.document_order else 0
        return model.initial_carry(rows, train=train, memory_length=length)

    def begin(self, model, carry: PyTree, reset, *, train: bool) -> PyTree:
        """The carry, with the initial one where a document begins."""
        initial = self.initial_carry(model, len(reset), train=train)
        return reset_carry(carry, initial, reset)

    def translate(
        self, model, variables, carry, batch, options: ConfigDict, lines: list[str]
    ) -> tuple[list[str], PyTree]:
        """The best translation of each row, and the next carry.

        Args:
          lines: the sources as text, for words that no vocabulary has.
        """
        search = DecodingConfig.from_config(options.decode).single_best
        found, after = self.search(model, variables, carry, batch, options, search)
        texts = self._texts(model, variables, carry, batch, found, options, lines)
        return [best for (best,) in texts], after

    def translations(
        self, model, variables, carry, batch, options: ConfigDict, lines: list[str]
    ) -> tuple[list[list[Scored]], PyTree]:
        """The `decode.n_best` of each row with their scores, and the next carry.

        A beam's come best first, samples in the order in which they were drawn.
        """
        search = DecodingConfig.from_config(options.decode).with_scores
        found, after = self.search(model, variables, carry, batch, options, search)
        texts = self._texts(model, variables, carry, batch, found, options, lines)
        rows = zip(texts, np.asarray(found.scores).tolist(), strict=True)
        pairs = [list(zip(*row, strict=True)) for row in rows]
        return [[pair for pair in row if pair[1] > -math.inf] for row in pairs], after

    def search(
        self,
        model,
        variables,
        carry,
        batch,
        options: ConfigDict,
        search: DecodingConfig,
    ) -> tuple[Hypotheses, PyTree]:
        """Hypotheses of each row, and the carry after the best.

        Raises UserError for a beam that is larger than the vocabulary.
        """
        check_decode(options.decode, self.target.vocab_size)
        factor, width = options.decode.max_length_ratio, batch["source"].shape[1]
        steps = min(options.decode.max_length, int(factor * width) + 10)
        limits = factor * batch["source_mask"].sum(axis=1) + 10
        limits = np.minimum(limits, steps).astype(np.int32)
        if "prefix" in batch:
            steps = max(steps, batch["prefix"].shape[1] + 1)
        names = ("source", "source_mask", "reset", "prefix", "prefix_mask")
        given = {name: batch[name] for name in names if name in batch}
        keys = example_keys(options.decode.seed, batch["ids"])
        return self._search(model, variables, carry, given, limits, steps, search, keys)

    @functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
    def _search(self, model, variables, carry, batch, limits, max_steps, search, keys):
        variables = cast_params(model, variables)
        sentence = batch["source"], batch["source_mask"]
        carry = self.begin(model, carry, batch["reset"], train=False)
        context, state = model.apply(
            variables, *sentence, carry, max_steps=max_steps, method="start"
        )
        prefix = (batch["prefix"], batch["prefix_mask"]) if "prefix" in batch else None
        never = (self.target.pad, self.target.bos, *self.target.tags.values())
        rules = DecodingConstraints(
            limits, max_steps, self.target.eos, search.min_length, never, prefix
        )
        found = search(
            make_step_fn(model, variables, attention=search.coverage_penalty > 0),
            context,
            state,
            jnp.full(len(limits), self.target.bos),
            rules,
            keys=keys,
            source_mask=batch["source_mask"],
        )
        if jax.tree.leaves(carry):  # else the pass would be traced for nothing
            target = decoder_inputs(found.tokens[:, 0], self.target)
            _, carry = model.apply(variables, *sentence, *target, carry, train=False)
        return found, carry

    def given(
        self, model, variables, carry, batch, options: ConfigDict, lines: list[str]
    ) -> tuple[list[tuple[float, int]], PyTree]:
        """Log probability and tokens of each row's `target`, and the next carry."""
        names = ("source", "source_mask", "reset", "target")
        sentence = {name: batch[name] for name in names}
        log_prob, after = self._given(model, variables, carry, sentence)
        tokens = batch["target_mask"].sum(axis=1).tolist()
        return list(zip(np.asarray(log_prob).tolist(), tokens, strict=True)), after

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _given(self, model, variables, carry, batch):
        carry = self.begin(model, carry, batch["reset"], train=False)
        target_in, mask = decoder_inputs(batch["target"], self.target)
        labels = {"labels": batch["target"], "weights": mask}
        sentence = batch["source"], batch["source_mask"], target_in, mask
        losses, carry = token_losses(model, variables, (*sentence, carry), labels)
        return -losses.sum(axis=1), carry

    def _texts(
        self, model, variables, carry, batch, found, options, lines
    ) -> list[list[str]]:
        """Each row's hypotheses as text, of one line each."""
        tokens, lengths = jax.device_get((found.tokens, found.lengths))
        sentences = [
            [
                one[: max(length - 1, 0)].tolist()
                for one, length in zip(*row, strict=True)
            ]
            for row in zip(tokens, lengths, strict=True)
        ]
        if options.decode.replace_unknown:
            given = {name: batch[name] for name in ("source", "source_mask", "reset")}
            looked_at = [
                np.asarray(self._look(model, variables, carry, given, one))
                for one in np.swapaxes(tokens, 0, 1)
            ]
            texts = self._replaced(sentences, looked_at, lines)
        else:
            texts = [[self.target.decode(ids) for ids in row] for row in sentences]
        return [[one_line(text) for text in row] for row in texts]

    def _replaced(self, sentences, looked_at, lines) -> list[list[str]]:
        """Texts whose unknown words are those that were looked at."""
        texts = []
        for row, (line, hypotheses) in enumerate(zip(lines, sentences, strict=True)):
            words = [
                None if word in self.source.tags else word
                for word in self.source.words(line)
            ]
            texts.append(
                [
                    replace_unknown(self.target, ids, places[row, : len(ids)], words)
                    for ids, places in zip(hypotheses, looked_at, strict=True)
                ]
            )
        return texts

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _look(self, model, variables, carry, batch, found):
        """The place in the source that each token found looks at most."""
        variables = cast_params(model, variables)
        carry = self.begin(model, carry, batch["reset"], train=False)
        sentence = batch["source"], batch["source_mask"]
        target = decoder_inputs(found, self.target)
        _, sown = model.apply(
            variables, *sentence, *target, carry, train=False, mutable=["intermediates"]
        )
        return model.alignment(sown["intermediates"]).argmax(axis=-1)
