"""Translation task: a target sentence from a source sentence.

Sentences are independent, or those of a document follow in order with a carry.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.config import decoding_protocol
from tasks.base import MEMORY_KEYS, WeightedMetrics, likelihood_loss, token_losses
from tasks.bleu import exact_match, one_line, score_text
from tasks.bootstrap import BootstrapBlocks
from tasks.translation_inference import Translator
from utils.errors import UserError


class Task(Translator):
    """Training and evaluation of translation models; contract in tasks/base.py."""

    model_class = "Seq2Seq"
    corpus_kind = "parallel"
    selection_metric = "bleu"
    metric_directions: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("bleu", "chrf", "exact_match"), "max"),
        "loss": "min",
    }

    def __init__(
        self,
        tokenizers: dict,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_fraction: float = 1.0,
        languages: tuple[str, ...] = ("", ""),
        document_order: bool = False,
    ):
        """Creates the task from tokenizers by side.

        Args:
          languages: language codes of source and target.
          document_order: whether a batch continues the documents of the one before.

        Raises:
          UserError: `loss_fraction` is not 1.
        """
        if loss_fraction != 1:
            raise UserError(
                f"loss_fraction={loss_fraction} must be 1.0 for task='translation'"
            )
        super().__init__(tokenizers, document_order=document_order)
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.languages = languages

    def make_model(self, module, config) -> nn.Module:
        """Creates the Seq2Seq model of an architecture for both vocabularies."""
        return module.Seq2Seq(
            config,
            self.source.vocab_size,
            self.target.vocab_size,
            shared_vocab=self.source.shares_vocabulary(self.target),
        )

    def init(self, model, rng: jax.Array, batch: dict) -> PyTree:
        """Initialises the variables, boxed with the names of their logical axes."""

        def call_all(model, carry):
            hidden, _ = model(*model_inputs(batch), carry, train=False)
            return model.log_prob(hidden, batch["labels"])

        carry = self.initial_carry(model, len(batch["source"]), train=True)
        return nn.init(call_all, model)(rng, carry)

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Returns metrics as (sum, weight), and the next carry; see tasks/base.py."""
        carry = self.reset(model, carry, batch["reset"], train=train)
        return likelihood_loss(
            model,
            variables,
            (*model_inputs(batch), carry),
            batch,
            rng,
            smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            train=train,
        )

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        texts: list[tuple[str, str]],
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a split; see tasks/base.py.

        Args:
          batches: batches of sentences or of documents with each example once.
          options: the config, of which `decode` is used.
          texts: all pairs of the split; their targets are the references.
          intervals: whether to add bootstrap intervals, which takes seconds.
        """
        blocks = self._evaluate_losses(model, variables, batches, len(texts))
        sources = [source for source, _ in texts]
        hypotheses = self._translate_all(model, variables, batches, options, sources)
        references = [self.normalize_reference(target) for _, target in texts]
        scores, signatures = score_text(
            hypotheses, references, self.languages[1], intervals=intervals
        )
        scores["exact_match"] = {"value": exact_match(hypotheses, references)}
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
            protocol |= {
                "document_order": True,
                "batch_size": batches.batch_size,
                **memory,
            }
        samples = [
            {"source": source, "reference": target, "hypothesis": hypothesis}
            for (source, target), hypothesis in zip(texts, hypotheses, strict=True)
        ]
        return {
            "scores": scores,
            "protocol": protocol | signatures,
            "samples": samples,
            "references": references,
            "blocks": blocks,
        }

    def _evaluate_losses(
        self, model, variables, batches, num_sentences: int
    ) -> BootstrapBlocks:
        """Returns the loss of every sentence after the references before it."""
        blocks = BootstrapBlocks.zeros(num_sentences)
        carry = self._initial_eval_carry(model, batches)
        for k in range(len(batches)):
            batch = batches[k]
            losses, carry = self._token_losses(model, variables, carry, batch)
            ids = np.broadcast_to(batch["ids"][:, None], batch["weights"].shape)
            blocks.add(ids, np.asarray(losses), batch["weights"])
        return blocks

    def _translate_all(
        self, model, variables, batches, options, sources: list[str]
    ) -> list[str]:
        """Translates every sentence after the translations before it."""
        hypotheses = {}
        carry = self._initial_eval_carry(model, batches)
        for k in range(len(batches)):
            batch = batches[k]
            ids = batch["ids"].tolist()
            lines = [sources[i] if i >= 0 else "" for i in ids]  # -1: padding
            texts, carry = self.translate(
                model, variables, carry, batch, options, lines
            )
            hypotheses |= zip(ids, texts, strict=True)
        return [hypotheses[i] for i in range(len(sources))]

    def _initial_eval_carry(self, model, batches) -> PyTree:
        # Batches of independent sentences have no fixed size, and need no carry.
        return self.initial_carry(model, getattr(batches, "batch_size", 1), train=False)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _token_losses(self, model, variables, carry, batch):
        carry = self.reset(model, carry, batch["reset"], train=False)
        return token_losses(model, variables, (*model_inputs(batch), carry), batch)

    def normalize_source(self, source: str) -> str:
        """Normalizes a source like the references, for baselines that copy it."""
        return self.source.normalizer.normalize_reference(source)

    def normalize_reference(self, target: str) -> str:
        """Normalizes a reference to what a perfect model would output."""
        return one_line(self.target.normalizer.normalize_reference(target))


def model_inputs(batch: dict) -> tuple:
    """Returns the arguments of a Seq2Seq model before the carry."""
    names = ("source", "source_mask", "target_in", "target_mask")
    return tuple(batch[name] for name in names)
