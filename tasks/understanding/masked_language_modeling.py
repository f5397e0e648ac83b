"""Pre-training of encoders: masked tokens and next sentences (Devlin et al. 2019).

Batches are segments of documents. With `data.document_order`, the memory of an encoder
passes from one segment of a document to the next.
"""

import functools
import math
from collections.abc import Iterator
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from data.understanding.masked_dataset import open_masked
from data.understanding.masking import EVALUATION_SEED, MaskingOptions
from models.heads.masked_lm import MaskedLanguageModel
from tasks.base import MEMORY_KEYS, ScoredText
from tasks.bootstrap import BootstrapBlocks, score_examples
from tasks.understanding.base import (
    EncoderTask,
    example_tokens,
    pad_rows,
    read_chunks,
    refuse_search_options,
)
from tasks.understanding.fill_mask import MaskedLine, best_fillings, encode_masked
from utils.errors import UserError
from utils.memory import bounded_jit
from utils.ranges import BELOW_ONE, check_range

BASELINE_BATCH_SIZE = 32


class Task(EncoderTask):
    """Training, evaluation and inference of masked language models.

    Attributes:
      options: how tokens are masked.
      document_order: whether batches continue each other.
    """

    own_keys = (
        *("data.document_order", "mlm.whole_word", "mlm.next_sentence"),
        "mlm.short_fraction",
    )
    head_class = MaskedLanguageModel
    unit = "tokens"  # those that are predicted
    selection_metric = "loss"
    metric_directions: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("loss", "perplexity", "next_sentence_loss"), "min"),
        **dict.fromkeys(("masked_accuracy", "next_sentence_accuracy"), "max"),
    }

    def __init__(self, cfg: ConfigDict, tokenizers: dict):
        super().__init__(cfg, tokenizers)
        self.options = MaskingOptions(**cfg.mlm)
        self.document_order = cfg.data.document_order

    @classmethod
    def check_config(cls, cfg):
        super().check_config(cfg)
        probability = cfg.mlm.probability
        check_range("mlm.probability", probability, 0, BELOW_ONE)
        if not probability:
            raise UserError("mlm.probability=0.0 leaves no token to predict")
        if cfg.mlm.next_sentence and cfg.data.document_order:
            raise UserError(
                "mlm.next_sentence=True takes sentences from other documents, and "
                "data.document_order=True reads documents in order: set one to False"
            )
        if cfg.mlm.short_fraction and cfg.data.document_order:
            raise UserError(
                f"mlm.short_fraction={cfg.mlm.short_fraction} leaves out text after a "
                "short segment, and data.document_order=True reads every segment "
                "after the one before: set one to 0 or False"
            )
        metric = cfg.keep.metric or ""
        if metric.startswith("next_sentence") and not cfg.mlm.next_sentence:
            raise UserError(f"keep.metric={metric!r} needs mlm.next_sentence=True")

    @classmethod
    def open_dataset(cls, cfg, tokenizers=None):
        return open_masked(cfg.data, MaskingOptions(**cfg.mlm), tokenizers)

    @classmethod
    def example_batch(cls, cfg, length=None):
        batch = example_tokens(cfg, length, ("is_next", "int32"))
        num_rows, length = batch["tokens"].shape
        shape = (num_rows, MaskingOptions(**cfg.mlm).num_predictions(length))
        for name in ("positions", "labels"):
            batch[name] = jax.ShapeDtypeStruct(shape, "int32")
        return batch | {"weights": jax.ShapeDtypeStruct(shape, "float32")}

    @property
    def head_options(self) -> dict:
        return {"next_sentence": self.options.next_sentence}

    def model_inputs(self, batch: dict) -> tuple:
        return (*super().model_inputs(batch), batch["positions"])

    def initial_carry(self, model, batch_size, *, train, memory_length=None):
        """Returns the memory before the first segment, if batches continue it."""
        if not self.document_order:
            return ()
        return model.initial_carry(batch_size, train=train, memory_length=memory_length)

    def init(self, model, rng, batch):
        carry = model.initial_carry(len(batch["tokens"]), train=True)

        def call_all(model, batch, carry):
            (hidden, _), _ = model(*self.model_inputs(batch), carry, train=False)
            return model.log_prob(hidden, batch["labels"])

        return nn.init(call_all, model)(rng, batch, carry)

    # --- Loss ---

    def loss(self, model, variables, carry, batch, rng, train):
        """Returns the loss of masked tokens in nats, that of pairs, and the carry.

        The objective is the sum of both means, as in BERT.
        """
        smoothing = self.label_smoothing if train else 0.0
        carry = self._start(model, carry, batch, train=train)

        def predict(model):
            inputs = self.model_inputs(batch)
            (hidden, next_logits), new = model(*inputs, carry, train=train)
            log_prob = model.log_prob(hidden, batch["labels"], smoothing=smoothing)
            return log_prob, next_logits, new

        rngs = {"dropout": rng} if train else {}
        log_prob, next_logits, new = nn.apply(predict, model)(variables, rngs=rngs)
        weights = batch["weights"]
        metrics = {"loss": (-(log_prob * weights).sum(), weights.sum())}
        if self.options.next_sentence:
            losses, is_valid = next_sentence_losses(next_logits, batch)
            name = "auxiliary/next_sentence_loss" if train else "next_sentence_loss"
            metrics[name] = ((losses * is_valid).sum(), is_valid.sum())
        return metrics, new if self.document_order else ()

    def _start(self, model, carry: PyTree, batch: dict, *, train: bool) -> PyTree:
        """Returns the carry that the segments of a batch begin with."""
        if self.document_order:
            return self.reset(model, carry, batch["reset"], train=train)
        return model.initial_carry(len(batch["tokens"]), train=train)

    # --- Evaluation ---

    def evaluation_inputs(self, experiment, dataset, split):
        batch_size = experiment.cfg.eval.batch_size
        return dataset.evaluation_batches(split, batch_size=batch_size), {}

    @functools.partial(bounded_jit, static_argnums=(0, 1))
    def _score(self, model, variables: PyTree, carry: PyTree, batch: dict):
        """Returns sums over each row of a batch, [B, 5], and the next carry.

        They are the loss, the correct and all masked tokens, and of a pair the loss
        and whether it is classified correctly.
        """
        carry = self._start(model, carry, batch, train=False)

        def predict(model):
            inputs = self.model_inputs(batch)
            (hidden, next_logits), new = model(*inputs, carry, train=False)
            log_prob = model.log_prob(hidden, batch["labels"])
            return log_prob, model.logits(hidden), next_logits, new

        log_prob, logits, next_logits, new = nn.apply(predict, model)(variables)
        weights = batch["weights"]
        is_correct = logits.argmax(axis=-1) == batch["labels"]
        columns = [-log_prob, is_correct, jnp.ones_like(weights)]
        sums = [(column * weights).sum(axis=1) for column in columns]
        pairs = [jnp.zeros(len(weights))] * 2
        if self.options.next_sentence:
            losses, _ = next_sentence_losses(next_logits, batch)
            pairs = [losses, next_logits.argmax(axis=-1) == batch["is_next"]]
        return jnp.stack([*sums, *pairs], axis=1), new if self.document_order else ()

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a split; see tasks/base.py.

        A block of the intervals is a segment.

        Args:
          batches: each segment once, with fixed masks.
        """
        carry = self.initial_carry(model, batches.batch_size, train=False)
        sums = np.zeros((batches.num_segments, 5))
        for k in range(len(batches)):
            batch = batches[k]
            rows, carry = self._score(model, variables, carry, batch)
            is_valid = batch["ids"] >= 0
            sums[batch["ids"][is_valid]] = np.asarray(rows)[is_valid]
        has_pairs = self.options.next_sentence

        def score(indices):
            return scores_of_sums(sums[indices].sum(axis=0), len(indices), has_pairs)

        memory_keys = MEMORY_KEYS if self.document_order else ()
        return {
            "scores": score_examples(len(sums), score, intervals=intervals),
            "protocol": {
                "segments": len(sums),
                "documents": len(batches.documents),
                "tokens": int(sums[:, 2].sum()),
                "max_length": batches.length,
                "tokenizer": self.tokenizer.kind,
                "vocabulary_size": self.tokenizer.vocab_size,
                "lowercase": self.tokenizer.normalizer.lowercase,
                # Not mlm.short_fraction: an evaluation reads whole segments.
                "mask_probability": self.options.probability,
                "mask_whole_word": self.options.whole_word,
                "mask_next_sentence": self.options.next_sentence,
                "mask_seed": EVALUATION_SEED,
                "document_order": self.document_order,
                **{key: getattr(model.config, key, 0) for key in memory_keys},
            },
            "blocks": BootstrapBlocks(sums[:, 0], sums[:, 2]),
        }

    def baselines(self, dataset, split):
        """Returns the scores of a unigram model and of one class of pairs."""
        batches = dataset.evaluation_batches(split, batch_size=BASELINE_BATCH_SIZE)
        log_prob, sums = dataset.unigram, np.zeros(5)
        best = log_prob.argmax()
        for k in range(len(batches)):
            batch = batches[k]
            labels = batch["labels"][batch["weights"] > 0]
            sums[:3] += -log_prob[labels].sum(), (labels == best).sum(), len(labels)
            sums[4] += batch.get("is_next", np.zeros(1)).sum()
        scores = scores_of_sums(sums, 1, has_pairs=False)
        baselines = {"unigram": scores}
        if self.options.next_sentence:
            share = float(sums[4] / batches.num_segments)
            accuracy = 100 * max(share, 1 - share)
            baselines["majority"] = {"next_sentence_accuracy": accuracy}
        return baselines

    def truncated(self, dataset, split, cfg):
        return {}

    # --- Inference ---

    def encode_line(self, number: int, line: str) -> tuple[list[int], int]:
        ids = encode_masked(self.tokenizer, number, line, self.max_length).ids
        return ids, len(ids)

    def generate(
        self,
        model,
        variables: PyTree,
        lines,
        options: ConfigDict,
        decoding=None,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[list[ScoredText]]:
        """Yields each line with its masks filled and its probability, best first.

        There are `decode.n_best` fillings. Masks, written <mask> or [MASK], are filled
        independently of each other.

        Raises:
          UserError: a line has no mask.
        """
        refuse_search_options(prefix, document_order)
        count = max(1, options.decode.n_best)
        for chunk in read_chunks(lines, chunk_size):
            masked = [
                encode_masked(self.tokenizer, number, line, self.max_length)
                for number, line in chunk
                if line.strip()
            ]
            found = iter(self._fill(model, variables, masked, count) if masked else ())
            for _, line in chunk:
                yield next(found) if line.strip() else []

    def _fill(
        self, model, variables: PyTree, lines: list[MaskedLine], count: int
    ) -> list[list[ScoredText]]:
        """Returns the best fillings of each line."""
        size = 1 << (len(lines) - 1).bit_length()
        batch = pad_rows([(line.ids, len(line.ids)) for line in lines], size)
        most = max(len(line.positions) for line in lines)
        positions = np.zeros((size, 1 << (most - 1).bit_length()), np.int32)
        for row, line in zip(positions, lines, strict=False):
            row[: len(line.positions)] = line.positions
        batch["positions"] = positions
        ordinary = self._ordinary_ids()
        count = min(count, len(ordinary))
        probabilities, ids = self._top(model, variables, batch, ordinary, count)
        probabilities, ids = np.asarray(probabilities), np.asarray(ids)
        return [
            best_fillings(self.tokenizer, line, probabilities[row], ids[row], count)
            for row, line in enumerate(lines)
        ]

    def _ordinary_ids(self) -> Int[np.ndarray, "N"]:
        """Returns the ids of all pieces of text."""
        first = 1 + max(getattr(self.tokenizer, key) for key in ("pad", "unk", "bos"))
        markers = set(self.tokenizer.tags.values())
        ids = [i for i in range(first, self.tokenizer.vocab_size) if i not in markers]
        return np.asarray(ids, np.int32)

    @functools.partial(bounded_jit, static_argnums=(0, 1, 5))
    def _top(self, model, variables: PyTree, batch: dict, ordinary, count: int):
        """Returns the most probable ids of each position, [B, P, count] each."""
        carry = model.initial_carry(batch["tokens"].shape[0], train=False)

        def predict(model):
            (hidden, _), _ = model(*self.model_inputs(batch), carry, train=False)
            return jax.nn.softmax(model.logits(hidden))[..., ordinary]

        probabilities, ids = jax.lax.top_k(nn.apply(predict, model)(variables), count)
        return probabilities, jnp.asarray(ordinary)[ids]


def next_sentence_losses(
    logits: Float[Array, "B 2"], batch: dict
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Returns the cross entropy of each pair, and 0 for padding or else 1."""
    chosen = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(chosen, batch["is_next"][:, None], axis=1)[:, 0]
    return -chosen, batch["mask"].any(axis=1).astype(jnp.float32)


def scores_of_sums(sums: np.ndarray, num_pairs: int, has_pairs: bool) -> dict:
    """Converts the sums of `_score` over some segments to metrics."""
    loss = sums[0] / max(sums[2], 1)
    scores = {
        "loss": float(loss),
        "perplexity": math.exp(min(loss, 700.0)),
        "masked_accuracy": float(100 * sums[1] / max(sums[2], 1)),
    }
    if has_pairs:
        scores["next_sentence_loss"] = float(sums[3] / num_pairs)
        scores["next_sentence_accuracy"] = float(100 * sums[4] / num_pairs)
    return scores
