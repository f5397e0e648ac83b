"""Translation task: a target sentence from a source sentence, or from any text.

Sentences are independent, or those of a document follow in order with a carry.

Batches have "source", "source_mask", "reset" (start of a document) and "ids", which
seed samples; "target_in", "target_mask", "labels" and "weights" where targets are
scored; "prefix" and "prefix_mask" where translations must begin with given tokens.
"""

import functools
import pkgutil
import sys
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.parallel_dataset import ParallelDataset
from decoding.config import DecodingConfig, decoding_protocol, max_source_length
from models.registry import get_model_class
from tasks.base import MEMORY_KEYS, token_losses
from tasks.bootstrap import BootstrapBlocks
from tasks.text_metrics.registry import (
    check_metrics,
    metric_directions,
    metric_names,
)
from tasks.text_metrics.scorer import Scorer, add_to_samples
from tasks.translation_inference import Translator, one_line, output_limits
from utils.errors import UserError
from utils.memory import bounded_jit

BASELINES = "tasks.baselines:score_baselines"  # imported when a run is evaluated


class Task(Translator):
    """Training and evaluation of translation models; `Translator` has their inference.

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
            self.normalize_reference,
            self.target.normalizer.lowercase,
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
        if count := self._count_longer_references(dataset, split, cfg):
            print(
                f"{split}: {count} references are longer than outputs may be: raise "
                f"decode.max_length={cfg.decode.max_length} or "
                f"decode.max_length_ratio={cfg.decode.max_length_ratio}",
                file=sys.stderr,
            )
        texts = dataset.texts(split)
        return batches, {
            "texts": texts,
            "references": dataset.references(split, texts),
            "columns": self.scorer.read_columns(dataset.corpus, split),
        }

    def truncated(self, dataset, split, cfg):
        limit = max_source_length(cfg)
        counts = dataset.truncated(split, limit)
        counts = {**counts, "max_length": limit} if counts else {}
        longer = self._count_longer_references(dataset, split, cfg)
        return counts | ({"longer_references": longer} if longer else {})

    def _count_longer_references(self, dataset, split, cfg) -> int:
        limits = functools.partial(output_limits, cfg.decode)
        return dataset.count_longer_references(split, limits)

    def baselines(self, dataset, split, *, texts, references, columns):
        score_baselines = pkgutil.resolve_name(BASELINES)
        normalize_source = self.source.normalizer.normalize_reference
        systems = self.baseline_names, self.scorer, normalize_source
        inputs = [source for source, _ in texts], references, columns
        scores = score_baselines(*systems, dataset, *inputs)
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
