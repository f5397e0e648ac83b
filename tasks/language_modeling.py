"""Language modelling task: each token from all tokens before it.

Batches are consecutive segments of a text; the model's carry passes from one to the
next in training and in evaluation.
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

from data.text_dataset import TextDataset
from decoding.config import DecodingConfig, choose_hypotheses, example_keys, search
from decoding.hypotheses import DecodingConstraints, Hypotheses
from models.registry import get_model_class
from tasks import base
from tasks.base import (
    MEMORY_KEYS,
    ScoredText,
    WeightedMetrics,
    cast_params,
    check_windows,
    token_losses,
)
from tasks.bootstrap import BLOCK_SIZE, BootstrapBlocks
from utils.errors import UserError
from utils.memory import bounded_jit

# Line breaks within a continuation are printed as escapes.
LINE_BREAKS = {
    ord(character): repr(character)[1:-1] for character in "\n\r\v\f\x85\u2028\u2029"
}
SCORING_BATCH_SIZE = 16  # lines


class Task(base.Task):
    """Training, evaluation and inference of language models.

    Attributes:
      tokenizer: tokenizer of the text.
      loss_fraction: fraction of each segment, counted from its end, that training
        minimises the loss of.
    """

    model_class = "LanguageModel"
    output_tokenizer = "tokenizer"
    corpus_kind = "text"
    sides = ("text",)
    selection_metric = "loss"
    metric_directions: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "loss",
            "perplexity",
            "bits_per_token",
            "word_perplexity",
            "bits_per_character",
            "bits_per_byte",
        ),
        "min",
    )

    def __init__(
        self,
        tokenizers: dict,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_fraction: float = 1.0,
    ):
        super().__init__(label_smoothing, z_loss)
        self.tokenizer = tokenizers["text"]
        self.loss_fraction = loss_fraction

    @classmethod
    def from_config(cls, cfg, tokenizers, languages=()):
        del languages
        keys = ("label_smoothing", "z_loss", "loss_fraction")
        return cls(tokenizers, **{key: cfg[key] for key in keys})

    @classmethod
    def check_config(cls, cfg):
        if cfg.data.document_order:
            raise UserError(
                "data.document_order=True is for translation and masked language "
                "modeling; language models carry their memory from segment to segment "
                "anyway"
            )

    @classmethod
    def example_batch(cls, cfg, length=None):
        shape = 2, length or cfg.data.segment_length
        tokens = jax.ShapeDtypeStruct(shape, "int32")
        return {"tokens": tokens, "labels": tokens}

    def evaluation_inputs(self, experiment, dataset: TextDataset, split):
        cfg = experiment.cfg
        batches = dataset.evaluation_batches(
            split,
            batch_size=cfg.eval.batch_size,
            length=cfg.eval.segment_length,
            window=cfg.eval.window,
            stride=cfg.eval.stride,
        )
        model = experiment.evaluation_model
        check_windows(model, batches)
        length = cfg.eval.segment_length or cfg.eval.window or 0
        if length > cfg.data.segment_length:
            params = nn.meta.unbox(experiment.parameters())
            self.check_memory(model, {"params": params}, batches)
        return batches, {}

    def make_model(self, config) -> nn.Module:
        model_class = get_model_class(config.name, self.model_class)
        return model_class(config, self.tokenizer.vocab_size)

    def model_inputs(self, batch: dict) -> tuple:
        return (batch["tokens"],)

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Returns metrics of the last `loss_fraction` of each segment, and the carry.

        This is the half loss of Dai et al. (2019), table 6.
        """
        length = batch["weights"].shape[1]
        start = length - math.ceil(self.loss_fraction * length)
        weights = batch["weights"] * (jnp.arange(length) >= start)
        batch = batch | {"weights": weights}
        return super().loss(model, variables, carry, batch, rng, train)

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a whole text; see tasks/base.py.

        Args:
          batches: consecutive segments, or sliding windows for a model without carry.
        """
        check_windows(model, batches)
        carry = model.initial_eval_carry(batches.batch_size, batches.length)
        variables = variables | self._precompute(model, variables, carry)
        carry = jax.tree.map(jnp.copy, carry)  # distinct buffers, since it is donated
        blocks = BootstrapBlocks.zeros(-(-len(batches.text.tokens) // BLOCK_SIZE))
        for k in range(len(batches)):
            batch = batches[k]
            losses, carry = self._token_losses(model, variables, carry, batch)
            indices = batches.label_positions(k) // BLOCK_SIZE
            blocks.add(indices, np.asarray(losses), batch["weights"])
        text, num_tokens = batches.text, float(blocks.weight.sum())
        scores, means = {}, {"value": blocks.mean}
        if intervals:
            means |= zip(("low", "high"), blocks.interval(), strict=True)
        for key, loss in means.items():
            for name, value in metrics_from_loss(loss, num_tokens, text).items():
                scores.setdefault(name, {})[key] = value
        context = {"segment_length": batches.length}
        if stride := getattr(batches, "stride", None):
            context = {"window": batches.length, "stride": stride}
        memory_keys = ("attention_window", *MEMORY_KEYS)
        return {
            "scores": scores,
            "protocol": {
                "tokens": int(num_tokens),
                "words": text.words,
                "characters": text.characters,
                "bytes": text.size,
                "batch_size": batches.batch_size,
                **context,
                **{key: getattr(model.config, key, 0) for key in memory_keys},
                "tokenizer": self.tokenizer.kind,
                **({"block": BLOCK_SIZE} if intervals else {}),
            },
            "blocks": blocks,
        }

    def check_memory(self, model, variables: PyTree, batches) -> None:
        """Raises UserError where an evaluation needs more memory than is free."""
        carry = jax.eval_shape(
            lambda: model.initial_eval_carry(batches.batch_size, batches.length)
        )
        self._token_losses.check(self, model, variables, carry, batches[0])

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _precompute(self, model, variables, carry):
        return model.apply(variables, carry, method="precompute")

    @functools.partial(bounded_jit, static_argnums=(0, 1), donate_argnums=3)
    def _token_losses(self, model, variables, carry, batch):
        return token_losses(model, variables, (batch["tokens"], carry), batch)

    def generate(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        decoding: DecodingConfig,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[list[ScoredText]]:
        """Yields continuations of each line of at most `decode.max_length` tokens.

        A line is read after an end symbol, as in training. A continuation is one line:
        breaks within it are escaped, such as \\n. Lines are read one by one, whatever
        `chunk_size` is.

        Raises:
          UserError: an option needs a source.
        """
        refuse_translation_options(prefix, document_order)
        decode = options.decode
        if decoding.coverage_penalty or decode.replace_unknown:
            key = "coverage_penalty" if decoding.coverage_penalty else "replace_unknown"
            raise UserError(
                f"decode.{key}={decode[key]} needs a source; language models have none"
            )
        for index, line in enumerate(lines):
            if not line.strip():
                yield []
                continue
            prompt = [self.tokenizer.eos, *self.tokenizer.encode(line)]
            length = len(prompt) - 1
            padded_length = 2 ** math.ceil(math.log2(max(length, 16)))
            tokens = np.zeros((1, padded_length), np.int32)
            tokens[0, :length] = prompt[:-1]
            hypotheses = self._search(
                model,
                variables,
                tokens,
                np.asarray([length], np.int32),
                np.asarray(prompt[-1:], np.int32),
                decode.max_length + 1,  # with the end symbol
                decoding,
                example_keys(decode.seed, np.asarray([index])),
            )
            if decoding.chooses_by_text:
                hypotheses = choose_hypotheses(
                    decoding,
                    hypotheses,
                    functools.partial(self.tokenizer.with_text().decode_after, prompt),
                    decode,
                    decoding.n_best,
                )
            yield [
                (self.tokenizer.decode_after(prompt, ids).translate(LINE_BREAKS), score)
                for ids, score in hypotheses.to_lists()[0]
            ]

    @functools.partial(bounded_jit, static_argnums=(0, 1, 6, 7))
    def _search(
        self, model, variables, tokens, lengths, last_token, max_steps, decoding, keys
    ) -> Hypotheses:
        batch_size, padded_length = tokens.shape
        mask = jnp.arange(padded_length) < lengths[:, None]
        carry = model.initial_carry(batch_size, train=False)
        constraints = DecodingConstraints(
            jnp.full(batch_size, max_steps),
            max_steps,
            self.tokenizer.eos,
            decoding.min_length,
            forbidden=(self.tokenizer.pad, self.tokenizer.bos),
            prompt=(tokens, mask),
        )
        variables = cast_params(model, variables)
        inputs = (tokens, mask, carry)
        return search(
            decoding, model, variables, inputs, last_token, constraints, keys=keys
        )

    def score_targets(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[tuple[float, int] | None]:
        """Scores each line as a target, read in segments as in an evaluation.

        Args:
          chunk_size: number of lines to read ahead, at most SCORING_BATCH_SIZE.
        """
        refuse_translation_options(False, document_order)
        length = options.eval.segment_length or options.data.segment_length
        size = min(chunk_size or SCORING_BATCH_SIZE, SCORING_BATCH_SIZE)
        lines = iter(lines)
        while chunk := list(itertools.islice(lines, size)):
            ids = [
                self.tokenizer.encode(line) if line.strip() else [] for line in chunk
            ]
            total = np.zeros(SCORING_BATCH_SIZE)
            carry = model.initial_carry(SCORING_BATCH_SIZE, train=False)
            for batch in self._segments(ids, length):
                losses, carry = self.target_losses(model, variables, carry, batch)
                total -= np.asarray(losses, float)
            for example, line in enumerate(chunk):
                score = float(total[example]), len(ids[example]) + 1
                yield score if line.strip() else None

    def _segments(
        self, texts: list[list[int]], length: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of consecutive segments; an example is a padded text."""
        eos, longest = self.tokenizer.eos, max(map(len, texts)) + 1
        shape = SCORING_BATCH_SIZE, -(-longest // length) * length
        dtypes = {"tokens": np.int32, "labels": np.int32, "weights": np.float32}
        arrays = {name: np.zeros(shape, dtype) for name, dtype in dtypes.items()}
        for example, ids in enumerate(texts):
            row = np.s_[example, : len(ids) + 1]
            arrays["tokens"][row] = [eos, *ids]
            arrays["labels"][row] = [*ids, eos]
            arrays["weights"][row] = 1
        for start in range(0, shape[1], length):
            segment = np.s_[:, start : start + length]
            yield {name: array[segment] for name, array in arrays.items()}


def refuse_translation_options(prefix: bool, document_order: bool) -> None:
    """Refuses the options of inference that only translation supports."""
    if prefix or document_order:
        flag = "prefix" if prefix else "documents"
        raise UserError(f"--{flag} is for translation; this run is a language model")


def metrics_from_loss(loss: float, num_tokens: float, text) -> dict[str, float]:
    """Converts a loss per token in nats to all metrics of a text.

    Args:
      text: has the exact counts `words`, `characters` and `size` (bytes), line ends
        included.
    """
    total = loss * num_tokens
    bits = total / math.log(2)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_token": loss / math.log(2),
        "word_perplexity": math.exp(min(total / text.words, 700.0)),
        "bits_per_character": bits / text.characters,
        "bits_per_byte": bits / text.size,
    }
