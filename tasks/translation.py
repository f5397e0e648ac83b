"""Translation: a target sentence from a source sentence.

Each alone, or those of a document in order, with the model's carry handed on.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.config import protocol
from tasks.baselines import trivial_baselines
from tasks.bleu import exact_match, one_line, score_text
from tasks.bootstrap import BootstrapBlocks
from tasks.line_translator import LineTranslator
from tasks.losses import WeightedMetrics, likelihood_loss, token_losses
from tasks.translation_inputs import inputs
from utils.errors import UserError

MEMORY_KEYS = ("memory_length", "same_length", "clamp_length")  # of a model's config


class Task(LineTranslator):
    """See README.md for what a task is."""

    model_class = "Seq2Seq"
    corpus_kind = "parallel"
    selection_metric = "bleu"  # the validation score that chooses checkpoints
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
        """With `document_order` a batch goes on where the one before it stopped."""
        if loss_fraction != 1:
            raise UserError(
                f"loss_fraction={loss_fraction}: sentences count whole, so 1.0"
            )
        super().__init__(tokenizers, document_order=document_order)
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.languages = languages

    def make_model(self, module, config) -> nn.Module:
        """The model of an architecture for this task's vocabularies."""
        return module.Seq2Seq(
            config,
            self.source.vocab_size,
            self.target.vocab_size,
            shared_vocab=self.source.shares_vocabulary(self.target),
        )

    def init(self, model, rng: jax.Array, batch: dict) -> PyTree:
        """Variables of the model, with names of logical axes."""

        def everything(model, carry):
            hidden, _ = model(*inputs(batch), carry, train=False)
            return model.log_prob(hidden, batch["labels"])

        carry = self.initial_carry(model, len(batch["source"]), train=True)
        return nn.init(everything, model)(rng, carry)

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Metrics as (sum, weight), and the next carry; see tasks/losses.py."""
        carry = self.begin(model, carry, batch["reset"], train=train)
        smoothing = self.label_smoothing if train else 0.0
        return likelihood_loss(
            model,
            variables,
            (*inputs(batch), carry),
            batch,
            rng,
            smoothing=smoothing,
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
        """Score card of a split; see README.md for its form.

        Args:
          batches: `BucketedBatches` or, with `document_order`, `DocumentBatches`, over
            each example once.
          options: `decode` and `eval` (see configs/base.py).
          texts: the split as text; its targets are the references.
          intervals: whether scores get bootstrap intervals, which takes seconds.
        """
        blocks = self._losses(model, variables, batches, len(texts))
        sources = [source for source, _ in texts]
        found = self._translations(model, variables, batches, options, sources)
        hypotheses = [found[i] for i in range(len(texts))]
        references = [self._reference(target) for _, target in texts]
        scores, signatures = score_text(
            hypotheses, references, self.languages[1], intervals=intervals
        )
        scores["exact_match"] = {"value": exact_match(hypotheses, references)}
        scores["loss"] = {"value": blocks.mean}
        if intervals:
            scores["loss"] |= zip(("low", "high"), blocks.interval(), strict=True)
        return {
            "scores": scores,
            "protocol": {
                **protocol(options.decode),
                "sentences": len(texts),
                "tokens": int(blocks.weight.sum()),
                "tokenizer": self.target.kind,
                "moses_tokenize": self.target.normalizer.moses,
                "lowercase": self.target.normalizer.lowercase,
                **(self._reach(model, batches) if self.document_order else {}),
                **signatures,
            },
            "samples": [
                {"source": source, "reference": target, "hypothesis": hypothesis}
                for (source, target), hypothesis in zip(texts, hypotheses, strict=True)
            ],
            "references": references,
            "blocks": blocks,
        }

    def _reach(self, model, batches) -> dict:
        """What a score card says of how documents were read."""
        found = {key: getattr(model.config, key, 0) for key in MEMORY_KEYS}
        return {"document_order": True, "rows": batches.batch_size, **found}

    def _losses(self, model, variables, batches, count: int) -> BootstrapBlocks:
        """Of every sentence; what is remembered are the references before."""
        blocks = BootstrapBlocks.zeros(count)
        carry = self._first_carry(model, batches)
        for k in range(len(batches)):
            batch = batches[k]
            found, carry = self._score(model, variables, carry, batch)
            numbers = np.broadcast_to(batch["ids"][:, None], batch["weights"].shape)
            blocks.add(numbers, np.asarray(found), batch["weights"])
        return blocks

    def _translations(
        self, model, variables, batches, options, sources
    ) -> dict[int, str]:
        """By number of the example; what is remembered are translations before."""
        hypotheses = {}
        carry = self._first_carry(model, batches)
        for k in range(len(batches)):
            batch = batches[k]
            ids = batch["ids"].tolist()
            lines = [sources[number] if number >= 0 else "" for number in ids]
            texts, carry = self.translate(
                model, variables, carry, batch, options, lines
            )
            hypotheses |= zip(ids, texts, strict=True)
        return hypotheses

    def _first_carry(self, model, batches) -> PyTree:
        """What the first batch finds; it has no rows where nothing is remembered."""
        return self.initial_carry(model, getattr(batches, "batch_size", 1), train=False)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _score(self, model, variables, carry, batch):
        carry = self.begin(model, carry, batch["reset"], train=False)
        return token_losses(model, variables, (*inputs(batch), carry), batch)

    def trivial_baselines(
        self, train: list[tuple[str, str]], split: list[tuple[str, str]]
    ) -> dict[str, dict]:
        """Scores of translations that need no learning; see tasks/baselines.py."""
        written = self.source.normalizer.normalize_reference, self._reference
        return trivial_baselines(train, split, self.languages[1], written)

    def _reference(self, target: str) -> str:
        """A line that a perfect model would write."""
        return one_line(self.target.normalizer.normalize_reference(target))
