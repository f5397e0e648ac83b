"""Translation: a target sentence from a source sentence."""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator

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

CHUNK = 64  # lines that `predict` reads at a time
PLACES = 64 * 64  # rows times tokens that it translates at a time
SAMPLES = 100  # hypotheses a score card keeps


class Task:
    """See README.md for what a task is."""

    model_class = "Seq2Seq"
    corpus_kind = "parallel"
    best = ("bleu", "max")  # the validation score that chooses checkpoints

    def __init__(
        self,
        tokenizers: dict,
        *,
        label_smoothing: float = 0.0,
        loss_share: float = 1.0,
        languages: tuple[str, ...] = ("", ""),
    ):
        if loss_share != 1:
            raise UserError(f"loss_share={loss_share}: sentences count whole, so 1.0")
        self.source, self.target = tokenizers["source"], tokenizers["target"]
        self.label_smoothing = label_smoothing
        self.languages = languages

    def make_model(self, module, config) -> nn.Module:
        """The model of an architecture for this task's vocabularies."""
        return module.Seq2Seq(
            config,
            self.source.vocab_size,
            self.target.vocab_size,
            shared_vocab=self.source is self.target,
        )

    def initial_carry(
        self, model, rows: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Nothing: sentences come in no order, so none is remembered."""
        return model.initial_carry(rows, train=train, memory_length=0)

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
        initial = self.initial_carry(model, len(batch["source"]), train=train)
        carry = reset_rows(carry, initial, batch["reset"])
        smoothing = self.label_smoothing if train else 0.0
        return likelihood_loss(
            model,
            variables,
            (*inputs(batch), carry),
            batch,
            rng,
            smoothing=smoothing,
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
          batches: `SentenceBatches` over each example once.
          options: `decode` and `eval` (see configs/base.py).
          texts: the split as text; its targets are the references.
          intervals: whether scores get bootstrap intervals, which takes seconds.
        """
        total = weight = 0.0
        hypotheses = [""] * len(texts)
        for k in range(len(batches)):
            batch = batches[k]
            pairs = jax.device_get(self._score(model, variables, batch)["loss"])
            total, weight = total + float(pairs[0]), weight + float(pairs[1])
            found = self.translate(model, variables, batch, options)
            for number, text in zip(batch["ids"], found, strict=True):
                if number >= 0:
                    hypotheses[number] = text
        references = [target for _, target in texts]
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
                **signatures,
            },
            "samples": samples[:SAMPLES],
        }

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _score(self, model, variables, batch):
        carry = self.initial_carry(model, len(batch["source"]), train=False)
        pairs, _ = self.loss(model, variables, carry, batch, None, train=False)
        return pairs

    def translate(
        self, model, variables: PyTree, batch: dict, options: ConfigDict
    ) -> list[str]:
        """The greedy translation of each row of `source`."""
        width = batch["source"].shape[1]
        steps = min(
            options.decode.max_length, int(options.decode.length_factor * width) + 10
        )
        lengths = batch["source_mask"].sum(axis=1)
        limits = options.decode.length_factor * lengths + 10
        limits = np.minimum(limits, steps).astype(np.int32)
        found = self._search(
            model, variables, batch["source"], batch["source_mask"], limits, steps
        )
        rows = np.asarray(found).tolist()
        end = self.target.eos
        return [self.target.decode(row[: [*row, end].index(end)]) for row in rows]

    @functools.partial(jax.jit, static_argnums=(0, 1, 6))
    def _search(self, model, variables, source, mask, limits, max_steps):
        carry = self.initial_carry(model, len(source), train=False)
        context, state = model.apply(
            variables, source, mask, carry, max_steps=max_steps, method="start"
        )
        return greedy(
            functools.partial(model.apply, variables, method="step"),
            context,
            state,
            jnp.full(len(source), self.target.bos),
            limits=limits,
            max_steps=max_steps,
            end=self.target.eos,
            forbidden=(self.target.pad, self.target.bos),
        )

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
                texts = self.translate(model, variables, batch, options)
                for i, text in zip(full, texts, strict=False):
                    found[i] = text
                full = full[rows:]
            yield from found


def inputs(batch: dict) -> tuple:
    """What a Seq2Seq is called with, but for the carry."""
    names = ("source", "source_mask", "target_in", "target_mask")
    return tuple(batch[name] for name in names)


def source_batch(ids: list[list[int]], rows: int, width: int) -> dict[str, np.ndarray]:
    """Sentences as a padded array and its mask."""
    source = np.zeros((rows, width), np.int32)
    mask = np.zeros((rows, width), bool)
    for row, sentence in enumerate(ids):
        source[row, : len(sentence)] = sentence
        mask[row, : len(sentence)] = True
    return {"source": source, "source_mask": mask}
