"""Translation: a target sentence from a source sentence.

Each alone, or those of a document in order, with the model's carry handed on.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from errors import UserError
from tasks.bleu import exact_match, score_text
from tasks.floors import floors
from tasks.likelihood import Pairs, likelihood_loss
from tasks.line_translator import LineTranslator
from tasks.search import protocol
from tasks.translation_inputs import inputs

SAMPLES = 100  # hypotheses a score card keeps


class Task(LineTranslator):
    """See README.md for what a task is."""

    model_class = "Seq2Seq"
    corpus_kind = "parallel"
    best = "bleu"  # the validation score that chooses checkpoints
    better: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("bleu", "chrf", "exact_match"), "max"),
        "loss": "min",
    }

    def __init__(
        self,
        tokenizers: dict,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_share: float = 1.0,
        languages: tuple[str, ...] = ("", ""),
        documents: bool = False,
    ):
        """With `documents` a batch goes on where the one before it stopped."""
        if loss_share != 1:
            raise UserError(f"loss_share={loss_share}: sentences count whole, so 1.0")
        super().__init__(tokenizers, documents=documents)
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
    ) -> tuple[Pairs, PyTree]:
        """Pairs (sum, weight), and the next carry; see tasks/likelihood.py."""
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
          batches: `SentenceBatches` or, with `documents`, `DocumentBatches`, over
            each example once.
          options: `decode` and `eval` (see configs/base.py).
          texts: the split as text; its targets are the references.
          intervals: whether scores get bootstrap intervals, which takes seconds.
        """
        total, weight = self._losses(model, variables, batches)
        sources = [source for source, _ in texts]
        found = self._translations(model, variables, batches, options, sources)
        hypotheses = [found[number] for number in range(len(texts))]
        references = [self.target.normal.comparable(target) for _, target in texts]
        scores, signatures = score_text(
            hypotheses, references, self.languages[1], intervals=intervals
        )
        scores["exact_match"] = {"value": exact_match(hypotheses, references)}
        scores["loss"] = {"value": total / weight}
        samples = [
            {"source": source, "reference": target, "hypothesis": hypothesis}
            for (source, target), hypothesis in zip(texts, hypotheses, strict=True)
        ]
        return {
            "scores": scores,
            "protocol": {
                **protocol(options.decode),
                "sentences": len(texts),
                "tokens": int(weight),
                "tokenizer": self.target.kind,
                "moses": self.target.normal.moses,
                "lowercase": self.target.normal.lowercase,
                **({"documents": True} if self.documents else {}),
                **signatures,
            },
            "samples": samples[:SAMPLES],
        }

    def _losses(self, model, variables, batches) -> tuple[float, float]:
        """Sum and weight; what is remembered are the references before."""
        total = weight = 0.0
        carry = self._first_carry(model, batches)
        for k in range(len(batches)):
            pair, carry = self._score(model, variables, carry, batches[k])
            part = jax.device_get(pair)
            total, weight = total + float(part[0]), weight + float(part[1])
        return total, weight

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
        return self.initial_carry(model, getattr(batches, "rows", 1), train=False)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _score(self, model, variables, carry, batch):
        pairs, carry = self.loss(model, variables, carry, batch, None, train=False)
        return pairs["loss"], carry

    def floors(
        self, train: list[tuple[str, str]], split: list[tuple[str, str]]
    ) -> dict[str, dict]:
        """Scores of translations that need no learning; see tasks/floors.py."""
        return floors(train, split, self.languages[1])
