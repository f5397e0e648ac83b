"""Translation: a target sentence from a source sentence.

Each alone, or those of a document in order, with the model's carry handed on.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from decoding.greedy import greedy
from errors import UserError
from tasks.bleu import exact_match, score_text
from tasks.carries import reset_rows
from tasks.floors import floors
from tasks.likelihood import Pairs, likelihood_loss
from tasks.precision import narrowed
from tasks.translation_inputs import decoder_inputs, inputs, source_batch

CHUNK = 64  # lines that `predict` reads at a time
PLACES = 64 * 64  # rows times tokens that it translates at a time
SAMPLES = 100  # hypotheses a score card keeps


class Task:
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
        self.source, self.target = tokenizers["source"], tokenizers["target"]
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.languages = languages
        self.documents = documents

    def make_model(self, module, config) -> nn.Module:
        """The model of an architecture for this task's vocabularies."""
        return module.Seq2Seq(
            config,
            self.source.vocab_size,
            self.target.vocab_size,
            shared_vocab=self.source.shares_vocabulary(self.target),
        )

    def initial_carry(
        self, model, rows: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Nothing where sentences come in no order, so that none is remembered."""
        length = memory_length if self.documents else 0
        return model.initial_carry(rows, train=train, memory_length=length)

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
        carry = self._begin(model, carry, batch["reset"], train=train)
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

    def _begin(self, model, carry, reset, *, train: bool) -> PyTree:
        """The carry, with the initial one where a document begins."""
        initial = self.initial_carry(model, len(reset), train=train)
        return reset_rows(carry, initial, reset)

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
        found = self._translations(model, variables, batches, options)
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
                "search": "greedy",
                "decode": options.decode.to_dict(),
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

    def _translations(self, model, variables, batches, options) -> dict[int, str]:
        """By number of the example; what is remembered are translations before."""
        hypotheses = {}
        carry = self._first_carry(model, batches)
        for k in range(len(batches)):
            batch = batches[k]
            texts, carry = self.translate(model, variables, carry, batch, options)
            hypotheses |= zip(batch["ids"].tolist(), texts, strict=True)
        return hypotheses

    def _first_carry(self, model, batches) -> PyTree:
        """What the first batch finds; it has no rows where nothing is remembered."""
        return self.initial_carry(model, getattr(batches, "rows", 1), train=False)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _score(self, model, variables, carry, batch):
        pairs, carry = self.loss(model, variables, carry, batch, None, train=False)
        return pairs["loss"], carry

    def translate(
        self, model, variables: PyTree, carry: PyTree, batch: dict, options: ConfigDict
    ) -> tuple[list[str], PyTree]:
        """The greedy translation of each row of `source`, and the next carry."""
        width = batch["source"].shape[1]
        steps = min(
            options.decode.max_length, int(options.decode.length_factor * width) + 10
        )
        lengths = batch["source_mask"].sum(axis=1)
        limits = options.decode.length_factor * lengths + 10
        limits = np.minimum(limits, steps).astype(np.int32)
        source = {name: batch[name] for name in ("source", "source_mask", "reset")}
        found, carry = self._search(model, variables, carry, source, limits, steps)
        rows = np.asarray(found).tolist()
        end = self.target.eos
        texts = [self.target.decode(row[: [*row, end].index(end)]) for row in rows]
        return texts, carry

    @functools.partial(jax.jit, static_argnums=(0, 1, 6))
    def _search(self, model, variables, carry, batch, limits, max_steps):
        variables = narrowed(model, variables)
        sentence = batch["source"], batch["source_mask"]
        carry = self._begin(model, carry, batch["reset"], train=False)
        context, state = model.apply(
            variables, *sentence, carry, max_steps=max_steps, method="start"
        )
        found = greedy(
            functools.partial(model.apply, variables, method="step"),
            context,
            state,
            jnp.full(len(limits), self.target.bos),
            limits=limits,
            max_steps=max_steps,
            end=self.target.eos,
            forbidden=(self.target.pad, self.target.bos),
        )
        if jax.tree.leaves(carry):  # else the pass would be traced for nothing
            target = decoder_inputs(found, self.target)
            _, carry = model.apply(variables, *sentence, *target, carry, train=False)
        return found, carry

    def floors(
        self, train: list[tuple[str, str]], split: list[tuple[str, str]]
    ) -> dict[str, dict]:
        """Scores of translations that need no learning; see tasks/floors.py."""
        return floors(train, split, self.languages[1])

    def predict(
        self, model, variables: PyTree, lines: Iterable[str], options: ConfigDict
    ) -> Iterator[str]:
        """A translation a line, in order; a blank line stays blank."""
        lines = iter(lines)
        while chunk := list(itertools.islice(lines, CHUNK)):
            ids = [[*self.source.encode(line), self.source.eos] for line in chunk]
            full = [i for i, line in enumerate(chunk) if line.strip()]
            full.sort(key=lambda i: -len(ids[i]))
            found = [""] * len(chunk)
            while full:
                width = max(8, 2 ** math.ceil(math.log2(len(ids[full[0]]))))
                rows = min(CHUNK, max(1, PLACES // width))
                batch = source_batch([ids[i] for i in full[:rows]], rows, width)
                carry = self.initial_carry(model, rows, train=False)
                texts, _ = self.translate(model, variables, carry, batch, options)
                for i, text in zip(full, texts, strict=False):
                    found[i] = text
                full = full[rows:]
            yield from found
