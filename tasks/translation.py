"""Translation task: a target sentence from a source sentence, or from any text.

Sentences are independent, or those of a document follow in order with a carry.

Batches have "source", "source_mask", "reset" (start of a document) and "ids", which
seed samples; "target_in", "target_mask", "labels" and "weights" where targets are
scored; "prefix" and "prefix_mask" where translations must begin with given tokens.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from ml_collections import ConfigDict

from data.parallel_dataset import ParallelDataset
from decoding.config import (
    DecodingConfig,
    decoding_protocol,
    example_keys,
    max_source_length,
    search,
)
from decoding.hypotheses import DecodingConstraints, Hypotheses
from models.registry import get_model_class
from tasks import base
from tasks.base import MEMORY_KEYS, ScoredText, cast_params, token_losses
from tasks.bootstrap import BootstrapBlocks
from tasks.text_metrics.registry import check_metrics
from tasks.text_metrics.scorer import (
    DEFAULT_METRICS,
    Scorer,
    add_to_samples,
    metric_directions,
    metric_names,
)
from utils.errors import UserError
from utils.memory import bounded_jit


class Task(base.Task):
    """Training, evaluation and inference of translation models.

    Attributes:
      source, target: tokenizers.
      languages: language codes of source and target.
      document_order: whether a batch continues the documents of the one before.
      metrics: names of `cfg.eval.metrics`; (): BLEU, chrF and exact match.
    """

    model_class = "Seq2Seq"
    output_tokenizer = "target"
    corpus_kind = "parallel"
    sides = ("source", "target")
    baseline_names: ClassVar[tuple[str, ...]] = ("copy", "nearest_neighbour")

    def __init__(
        self,
        tokenizers: dict,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_fraction: float = 1.0,
        languages: tuple[str, ...] = ("", ""),
        document_order: bool = False,
        metrics: tuple[str, ...] = (),
    ):
        if loss_fraction != 1:
            raise UserError(
                f"loss_fraction={loss_fraction} must be 1.0 for pairs of texts"
            )
        super().__init__(label_smoothing, z_loss)
        self.source, self.target = tokenizers["source"], tokenizers["target"]
        self.languages = languages
        self.document_order = document_order
        self.metrics = metrics
        self.selection_metric = (metrics or DEFAULT_METRICS)[0]

    @classmethod
    def from_config(cls, cfg, tokenizers, languages=()):
        return cls(
            tokenizers,
            label_smoothing=cfg.label_smoothing,
            z_loss=cfg.z_loss,
            loss_fraction=cfg.loss_fraction,
            document_order=cfg.data.document_order,
            metrics=tuple(cfg.eval.metrics),
            **({"languages": languages} if languages else {}),
        )

    @classmethod
    def check_config(cls, cfg):
        check_metrics(cfg.eval.metrics)

    @classmethod
    def directions(cls, cfg):
        return metric_directions(cfg) | {"loss": "min"}

    @classmethod
    def default_metric(cls, cfg):
        return metric_names(cfg)[0]

    @property
    def scorer(self) -> Scorer:
        """Scores of outputs by the metrics of the config."""
        return Scorer(
            self.metrics,
            self.languages[1],
            self.source.normalizer.normalize_reference,
            self.normalize_reference,
            self.target.normalizer.lowercase,
            self.baseline_names,
        )

    @classmethod
    def example_batch(cls, cfg, length=None):
        source, target = (2, length or 9), (2, length or 7)
        return {
            "source": jax.ShapeDtypeStruct(source, "int32"),
            "source_mask": jax.ShapeDtypeStruct(source, "bool"),
            "target_in": jax.ShapeDtypeStruct(target, "int32"),
            "target_mask": jax.ShapeDtypeStruct(target, "bool"),
            "labels": jax.ShapeDtypeStruct(target, "int32"),
        }

    def make_model(self, config) -> nn.Module:
        return get_model_class(config.name, self.model_class)(
            config,
            self.source.vocab_size,
            self.target.vocab_size,
            shared_vocab=self.source.shares_vocabulary(self.target),
        )

    def model_inputs(self, batch: dict) -> tuple:
        names = ("source", "source_mask", "target_in", "target_mask")
        return tuple(batch[name] for name in names)

    def initial_carry(
        self, model, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the initial carry; without document order it has no memory."""
        length = memory_length if self.document_order else 0
        return model.initial_carry(batch_size, train=train, memory_length=length)

    def evaluation_inputs(self, experiment, dataset: ParallelDataset, split):
        cfg = experiment.cfg
        batches = dataset.evaluation_batches(
            split, batch_size=cfg.eval.batch_size, max_length=max_source_length(cfg)
        )
        return batches, {
            "texts": dataset.texts(split),
            "references": dataset.references(split),
            "columns": self.scorer.read_columns(dataset.corpus, split),
        }

    def truncated(self, dataset, split, cfg):
        limit = max_source_length(cfg)
        counts = dataset.truncated(split, limit)
        return {**counts, "max_length": limit} if counts else {}

    def baselines(self, dataset, split, *, texts, references, columns):
        inputs = [source for source, _ in texts], references, columns
        scores = self.scorer.score_baselines(dataset, *inputs)
        return super().baselines(dataset, split) | scores

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        texts: list[tuple[str, str]],
        references: list[list[str]] | None = None,
        columns: dict[str, list[str]] | None = None,
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a split; see tasks/base.py.

        Args:
          batches: batches of sentences or of documents with each example once.
          texts: all pairs of the split.
          references: the references of each, its target first; None: its target.
          columns: further columns of the split that metrics read, by name.
        """
        blocks, hypotheses = self._evaluate_batches(
            model, variables, batches, options, [source for source, _ in texts]
        )
        references = references or [[target] for _, target in texts]
        compared = self.scorer.texts(hypotheses, references, columns or {})
        scored = self.scorer.score(compared, intervals=intervals)
        scores = scored.scores
        scores["loss"] = {"value": blocks.mean}
        if intervals:
            scores["loss"] |= zip(("low", "high"), blocks.interval(), strict=True)
        protocol = {
            **decoding_protocol(options.decode),
            "sentences": len(texts),
            "tokens": int(blocks.weight.sum()),
            "tokenizer": self.target.kind,
            "moses_tokenize": self.target.normalizer.moses,
            "lowercase": self.target.normalizer.lowercase,
        }
        if self.document_order:
            memory = {key: getattr(model.config, key, 0) for key in MEMORY_KEYS}
            sizes = {"document_order": True, "batch_size": batches.batch_size}
            protocol |= sizes | memory
        samples = [
            {"source": source, "reference": target, "hypothesis": hypothesis}
            for (source, target), hypothesis in zip(texts, hypotheses, strict=True)
        ]
        add_to_samples(samples, compared, scored)
        return {
            "scores": scores,
            "protocol": protocol | scored.protocol,
            "samples": samples,
            "references": [first for first, *_ in compared.references],
            "blocks": blocks,
        }

    def _evaluate_batches(
        self, model, variables, batches, options, sources: list[str]
    ) -> tuple[BootstrapBlocks, list[str]]:
        """Returns losses by sentence, and the translation of every sentence.

        Losses are those after the references of the sentences before, translations
        those after the translations before. A blank source has a blank translation.
        """
        blocks, hypotheses = BootstrapBlocks.zeros(len(sources)), {}
        decoding = DecodingConfig.from_config(options.decode).single_best
        # Batches of independent sentences have no fixed size, and need no carry.
        size = getattr(batches, "batch_size", 1)
        carry = after = self.initial_carry(model, size, train=False)
        for k in range(len(batches)):
            batch = batches[k]
            losses, carry = self._token_losses(model, variables, carry, batch)
            indices = np.broadcast_to(batch["ids"][:, None], losses.shape)
            blocks.add(indices, np.asarray(losses), batch["weights"])
            ids = batch["ids"].tolist()
            lines = [sources[i] if i >= 0 else "" for i in ids]  # -1: padding
            outputs, after = self.translate(
                model, variables, after, batch, options, lines, decoding
            )
            for i, line, texts in zip(ids, lines, outputs, strict=True):
                hypotheses[i] = texts[0][0] if texts and line.strip() else ""
        return blocks, [hypotheses[i] for i in range(len(sources))]

    @functools.partial(bounded_jit, static_argnums=(0, 1))
    def _token_losses(self, model, variables, carry, batch):
        carry = self.reset(model, carry, batch["reset"], train=False)
        inputs = (*self.model_inputs(batch), carry)
        return token_losses(model, variables, inputs, batch)

    def normalize_reference(self, target: str) -> str:
        """Normalizes a reference to what a perfect model would output."""
        return one_line(self.target.normalizer.normalize_reference(target))

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
        from tasks import inference_batches as batches

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
            from tasks.unknown_words import copy_unknown_words

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
        """Returns hypotheses of each example, and the carry after the best ones.

        A target may have `decode.max_length_ratio` times the tokens of its source and
        10 more, at most `decode.max_length`.
        """
        ratio, width = options.decode.max_length_ratio, batch["source"].shape[1]
        max_steps = min(options.decode.max_length, int(ratio * width) + 10)
        limits = ratio * batch["source_mask"].sum(axis=1) + 10
        limits = np.minimum(limits, max_steps).astype(np.int32)
        if "prefix" in batch:
            max_steps = max(max_steps, batch["prefix"].shape[1] + 1)
        names = ("source", "source_mask", "reset", "prefix", "prefix_mask")
        inputs = {name: batch[name] for name in names if name in batch}
        keys = example_keys(options.decode.seed, batch["ids"])
        hypotheses, after = self._search(
            model, variables, carry, inputs, limits, max_steps, decoding, keys
        )
        if decoding.method == "mbr":
            from decoding.minimum_bayes_risk import choose_samples, make_utility
            from tasks.text_metrics.ngrams import sacrebleu_tokenizer

            tokenize = sacrebleu_tokenizer(self.languages[1])
            hypotheses = choose_samples(
                hypotheses,
                lambda ids: one_line(self.target.with_text().decode(ids)),
                make_utility(options.decode.mbr_utility, tokenize),
                decoding.n_best,
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
            jnp.full(len(limits), self.target.bos),
            constraints,
            keys=keys,
            source_mask=batch["source_mask"],
        )
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


def one_line(text: str) -> str:
    """Replaces line breaks by spaces, so that a text fits a file of lines."""
    return text.replace("\r", " ").replace("\n", " ")


def decoder_inputs(
    tokens: Int[Array, "B T"], tokenizer
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Shifts target tokens right by one, and masks them up to the end symbol."""
    is_end = tokens == tokenizer.eos
    mask = jnp.cumsum(is_end, axis=1) - is_end == 0
    first = jnp.full((len(tokens), 1), tokenizer.bos, tokens.dtype)
    shifted = jnp.concatenate([first, tokens[:, :-1]], axis=1)
    return jnp.where(mask, shifted, tokenizer.pad), mask
