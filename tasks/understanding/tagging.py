"""Tagging of words, alone or with the intent of their sentence.

Batches have the arrays of texts, and "word_starts" (position of the first token of each
word, 0: none), "labels" and "weights" [B, N] of its tag, and with intents "intents" and
"intent_weights" [B].
"""

import functools
from collections.abc import Iterator, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from ml_collections import ConfigDict

from data.storage import short_hash
from data.tokenizers.symbols import CharTokenizer
from data.understanding.labels import mark_entities
from data.understanding.tagged import (
    OUTSIDE,
    encode_word,
    encode_words,
    intent_separator,
    open_tagged,
)
from models.heads.crf import viterbi
from models.heads.tagger import Tagger
from tasks.base import ScoredText
from tasks.bootstrap import BootstrapBlocks
from tasks.understanding.base import (
    EncoderTask,
    example_tokens,
    pad_rows,
    read_chunks,
    refuse_search_options,
    tell_cut,
)
from tasks.understanding.label_metrics import score_labels
from tasks.understanding.losses import cross_entropy
from tasks.understanding.naive_bayes import majority_label, naive_bayes_labels
from tasks.understanding.span_metrics import (
    entity_table,
    forbidden_transitions,
    score_tags,
    span_protocol,
)
from tasks.understanding.tag_baseline import most_frequent_tags
from utils.errors import UserError
from utils.memory import bounded_jit

ENTITY_SCORES = (
    *("f1", "precision", "recall"),
    *("strict_f1", "strict_precision", "strict_recall"),
)
SAMPLE = ("source", "reference", "hypothesis")  # fields of a sample
ACCURACIES = ("token_accuracy", "sentence_accuracy", "intent_accuracy")


class Task(EncoderTask):
    """Training, evaluation and inference of taggers.

    Attributes:
      tags: the tags.
      intents: the intents; None: sentences have none.
      has_entities: whether the tags mark entities, in IOB2.
      has_several_intents: whether a sentence may have several, of which one counts.
    """

    required = ("text_column", "tag_column")
    own_keys = (
        *("data.label_column", "data.tag_column", "data.unseen_labels"),
        *("head.pooling", "head.dropout", "head.crf"),
    )
    head_class = Tagger
    selection_metric = "f1"
    metric_directions: ClassVar[dict[str, str]] = {
        **dict.fromkeys((*ENTITY_SCORES, *ACCURACIES), "max"),
        "loss": "min",
    }

    def __init__(self, cfg: ConfigDict, tokenizers: dict):
        super().__init__(cfg, tokenizers)
        self.has_several_intents = intent_separator(cfg.data.name) is not None
        self.tags, self.intents = tokenizers["tag"], tokenizers.get("label")
        self.unit = "examples" if cfg.head.crf else "words"
        self.has_entities = mark_entities(self.tags.names)

    def missing_metrics(self):
        entities = () if self.has_entities else ENTITY_SCORES
        return frozenset([*entities, *(() if self.intents else ("intent_accuracy",))])

    @classmethod
    def check_config(cls, cfg):
        super().check_config(cfg)
        if cfg.head.crf and cfg.label_smoothing:
            raise UserError(
                f"label_smoothing={cfg.label_smoothing} needs head.crf=False"
            )
        if cfg.keep.metric == "intent_accuracy" and not cfg.data.label_column:
            raise UserError(
                "keep.metric='intent_accuracy' needs intents: set data.label_column"
            )

    @classmethod
    def open_dataset(cls, cfg, tokenizers=None):
        return open_tagged(cfg.data, tokenizers)

    @classmethod
    def example_batch(cls, cfg, length=None):
        batch = example_tokens(cfg, length)
        rows, width = batch["tokens"].shape
        words = {"word_starts": "int32", "labels": "int32", "weights": "float32"}
        for name, dtype in words.items():
            batch[name] = jax.ShapeDtypeStruct((rows, width - 2), dtype)
        if cfg.data.label_column:
            batch["intents"] = jax.ShapeDtypeStruct((rows,), "int32")
            batch["intent_weights"] = jax.ShapeDtypeStruct((rows,), "float32")
        return batch

    @property
    def head_options(self) -> dict:
        intents = self.intents.vocab_size if self.intents else 0
        return {"num_tags": self.tags.vocab_size, "num_intents": intents}

    def model_inputs(self, batch):
        return *super().model_inputs(batch), batch["word_starts"]

    def init(self, model, rng, batch):
        def call_all(model, *inputs):
            (logits, _), _ = model(*inputs, train=False)
            if self.head_config.crf:
                model.log_prob(logits, batch["labels"], batch["word_starts"] > 0)

        carry = model.initial_carry(len(batch["tokens"]), train=True)
        return nn.init(call_all, model)(rng, *self.model_inputs(batch), carry)

    # --- Loss ---

    def loss(self, model, variables, carry, batch, rng, train):
        """Returns the mean loss in nats, and the carry.

        It is the mean cross entropy of tags, or that of the tags of a sentence with
        `head.crf`. The mean cross entropy of intents is "auxiliary/intent_loss".
        """
        outputs = self.apply(model, variables, batch, rng, train=train)
        smoothing = self.label_smoothing if train else 0.0
        losses, weights = self._tag_losses(
            model, variables, outputs[0], batch, smoothing
        )
        metrics = {"loss": (losses.sum(), weights.sum())}
        if self.intents:
            weights = batch["intent_weights"]
            losses = cross_entropy(outputs[1], batch["intents"], smoothing) * weights
            metrics["auxiliary/intent_loss"] = losses.sum(), weights.sum()
        return metrics, carry

    def _tag_losses(
        self, model, variables, logits: Float[Array, "B N L"], batch, smoothing=0.0
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """Returns the loss of each sentence and its weight.

        With `head.crf`, a sentence with an unknown tag has weight 0.
        """
        labels, weights = batch["labels"], batch["weights"]
        if not self.head_config.crf:
            losses = cross_entropy(logits, labels, smoothing)
            return (losses * weights).sum(axis=1), weights.sum(axis=1)
        mask = batch["word_starts"] > 0
        log_prob = model.apply(variables, logits, labels, mask, method="log_prob")
        is_known = mask.any(axis=1) & ((weights > 0) == mask).all(axis=1)
        return jnp.where(is_known, -log_prob, 0.0), is_known.astype(jnp.float32)

    # --- Evaluation ---

    def evaluation_inputs(self, experiment, dataset, split):
        batch_size = experiment.cfg.eval.batch_size
        batches = dataset.evaluation_batches(split, batch_size=batch_size)
        inputs = {"sentences": dataset.sentences(split)}
        return batches, inputs | {"intents": dataset.intents(split)}

    @functools.partial(bounded_jit, static_argnums=(0, 1))
    def _forward(self, model, variables: PyTree, batch: dict) -> dict:
        """Returns predictions of a batch, their log probability, and the losses."""
        logits, intents = self.apply(model, variables, batch, None, train=False)
        mask = batch["word_starts"] > 0
        forbidden = jnp.asarray(forbidden_transitions(self.tags.names))
        if self.head_config.crf:
            tags, log_prob = model.apply(
                variables, logits, mask, forbidden, method="decode"
            )
        else:
            tags, log_prob = decode_softmax(logits, mask, forbidden)
        found = {"tags": tags, "log_prob": log_prob}
        if intents is not None:
            found["intents"] = intents.argmax(axis=1)
        if "labels" in batch:
            losses = self._tag_losses(model, variables, logits, batch)
            found["losses"], found["weights"] = losses
        return found

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        sentences: Sequence[tuple[list[str], list[str]]],
        intents: list[str],
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a split; see tasks/base.py.

        Args:
          sentences: words and tags of all sentences.
          intents: the intent of each; [] if they have none.
        """
        blocks, found = self._evaluate_batches(
            model, variables, batches, len(sentences)
        )
        references = [tags for _, tags in sentences]
        predictions = [
            self.tag_names(tags, len(words))
            for (words, _), (tags, _) in zip(sentences, found, strict=True)
        ]
        named = [self.intents.names[i] for _, i in found] if self.intents else []
        sides = references, predictions
        scores = self.score(*sides, intents, named, intervals=intervals)
        scores["loss"] = {"value": blocks.mean}
        if intervals:
            scores["loss"] |= zip(("low", "high"), blocks.interval(), strict=True)
        return {
            "scores": scores,
            "protocol": self.protocol(references, intents),
            **({"classes": entity_table(*sides)} if self.has_entities else {}),
            "samples": make_samples(
                [words for words, _ in sentences], *sides, intents, named
            ),
            "references": [" ".join(tags) for tags in references],
            "blocks": blocks,
        }

    def _evaluate_batches(self, model, variables, batches, count: int):
        """Returns losses by sentence, and each one's tag ids and intent id."""
        found: list = [None] * count
        blocks = BootstrapBlocks.zeros(count)
        for k in range(len(batches)):
            batch = batches[k]
            inputs = {key: batch[key] for key in batch if key not in ("ids", "reset")}
            outputs = jax.device_get(self._forward(model, variables, inputs))
            blocks.add(
                np.maximum(batch["ids"], 0), outputs["losses"], outputs["weights"]
            )
            lengths = (batch["word_starts"] > 0).sum(axis=1)
            for row, index in enumerate(batch["ids"].tolist()):
                if index >= 0:
                    intent = outputs["intents"][row] if self.intents else None
                    found[index] = outputs["tags"][row, : lengths[row]], intent
        return blocks, found

    def tag_names(self, numbers: np.ndarray, num_words: int) -> list[str]:
        """Returns predicted tags; words that were cut off are outside of entities."""
        names = [self.tags.names[i] for i in numbers.tolist()]
        return names + [OUTSIDE] * (num_words - len(names))

    def score(self, references, predictions, intents, found_intents, *, intervals):
        """Returns the scores of predictions; with `intervals` their ends."""
        pair = (intents, found_intents) if self.intents else None
        options = {"entities": self.has_entities, "intervals": intervals}
        return score_tags(references, predictions, pair, **options)

    def protocol(self, references: list[list[str]], intents: list[str]) -> dict:
        """Returns the settings that scores depend on."""
        unseen_tags = sum(
            tag not in self.tags.ids for tags in references for tag in tags
        )
        protocol = {
            "sentences": len(references),
            "words": sum(map(len, references)),
            "tokenizer": self.tokenizer.kind,
            "lowercase": self.tokenizer.normalizer.lowercase,
            "max_length": self.max_length,
            "tags": self.tags.vocab_size,
            "crf": self.head_config.crf,
        }
        if self.has_entities:
            decoding = {"decoding": "Viterbi without ill-formed entities"}
            protocol |= decoding | span_protocol()
        if unseen_tags:
            protocol["unseen_tags"] = unseen_tags
        if self.intents:
            unseen = sum(name not in self.intents.ids for name in intents)
            protocol |= {
                "pooling": self.head_config.pooling,
                "intents": self.intents.vocab_size,
                **({"unseen_intents": unseen} if unseen else {}),
            }
        if self.intents and self.has_several_intents:
            rule = "the most frequent in training (Liu and Lane 2016)"
            protocol["several_intents"] = rule
        return protocol

    def hashes(self, dataset, split):
        labeled = dataset.sentences(split), dataset.intents(split)
        return {**dataset.hashes, "labeled_texts": short_hash(*labeled)}

    def baselines(self, dataset, split, *, sentences, intents):
        """Returns the scores of most frequent tags, and of baselines of the intent."""
        train = dataset.sentences("train")
        predictions = most_frequent_tags(train, [words for words, _ in sentences])
        options = {"entities": self.has_entities}
        scores = score_tags([tags for _, tags in sentences], predictions, **options)
        found = {"most_frequent_tag": _values(scores)}
        if self.intents:
            known, texts = dataset.intents("train"), dataset.texts("train")
            outputs = {
                "majority": [majority_label(known)] * len(intents),
                "naive_bayes": naive_bayes_labels(texts, known, dataset.texts(split)),
            }
            for name, labels in outputs.items():
                accuracy = score_labels(intents, labels)["accuracy"]["value"]
                found[name] = {"intent_accuracy": accuracy}
        return found

    def truncated(self, dataset, split, cfg):
        texts = dataset.examples(split)
        if not texts.num_cut:
            return {}
        return {
            "sentences": texts.num_cut,
            "words": texts.words_lost,
            "entities": texts.entities_lost,
            "max_length": cfg.data.max_length,
        }

    # --- Inference ---

    def encode_line(self, number: int, line: str) -> tuple[list[int], int]:
        encode = functools.partial(encode_word, self.tokenizer)
        ids, _, _ = encode_words(self.split_words(line), encode, self.max_length)
        return ids.tolist(), len(ids)

    def split_words(self, line: str) -> list[str]:
        """Returns the words of a line: its characters, if it has no space.

        The latter for a tokenizer of characters only.
        """
        if self.tokenizer.kind == CharTokenizer.kind and " " not in line.strip():
            return list(line.strip())
        return line.split()

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
        """Yields the tags of each line of words, and their joint probability.

        Spaces separate the tags; a tab and the intent follow them, if there are
        intents.
        """
        refuse_search_options(prefix, document_order)
        encode = functools.cache(functools.partial(encode_word, self.tokenizer))
        for chunk in read_chunks(lines, chunk_size):
            texts = [(n, self.split_words(line)) for n, line in chunk if line.strip()]
            rows = [encode_words(words, encode, self.max_length) for _, words in texts]
            for (number, words), (ids, starts, is_cut) in zip(texts, rows, strict=True):
                lost = f"; {len(words) - len(starts)} words lost"
                tell_cut(number, len(ids) + is_cut, self.max_length, lost)
            outputs = self._tag_rows(model, variables, texts, rows) if rows else {}
            for number, _ in chunk:
                yield [outputs[number]] if number in outputs else []

    def _tag_rows(self, model, variables, texts, rows) -> dict[int, ScoredText]:
        """Returns tags and probability of each line by its number."""
        size = 1 << (len(rows) - 1).bit_length()
        batch = pad_rows([(tokens, len(tokens)) for tokens, _, _ in rows], size)
        shape = size, batch["tokens"].shape[1] - 2
        batch["word_starts"] = np.zeros(shape, np.int32)
        for row, (_, starts, _) in enumerate(rows):
            batch["word_starts"][row, : len(starts)] = starts
        found = jax.device_get(self._forward(model, variables, batch))
        outputs = {}
        for row, ((number, words), (_, starts, _)) in enumerate(
            zip(texts, rows, strict=True)
        ):
            tags = self.tag_names(found["tags"][row, : len(starts)], len(words))
            text = " ".join(tags)
            if self.intents:
                text += f"\t{self.intents.names[found['intents'][row]]}"
            outputs[number] = text, float(np.exp(found["log_prob"][row]))
        return outputs


def decode_softmax(
    logits: Float[Array, "B N L"],
    mask: Bool[Array, "B N"],
    forbidden: Bool[Array, "L1 L"],
) -> tuple[Int[Array, "B N"], Float[Array, "B"]]:
    """Returns the most probable tags of independent words, and their log probability.

    Args:
      forbidden: transitions not to choose, see `forbidden_transitions`.
    """
    log_probs = jax.nn.log_softmax(logits)
    penalty = jnp.where(forbidden, -jnp.inf, 0.0)
    end = jnp.zeros(logits.shape[2])
    tags = viterbi(log_probs, mask, penalty[:-1], penalty[-1], end)
    chosen = jnp.take_along_axis(log_probs, tags[..., None], axis=2)[..., 0]
    return tags, jnp.where(mask, chosen, 0.0).sum(axis=1)


def make_samples(words, references, predictions, intents, found_intents) -> list[dict]:
    """Returns each sentence with its tags and predicted ones, and with its intents."""
    sides = zip(words, references, predictions, strict=True)
    samples = [
        {name: " ".join(part) for name, part in zip(SAMPLE, row, strict=True)}
        for row in sides
    ]
    named = zip(samples, intents, found_intents, strict=False)
    for sample, intent, found in named if found_intents else ():
        sample |= {"reference_intent": intent, "hypothesis_intent": found}
    return samples


def _values(scores: dict) -> dict[str, float]:
    return {name: score["value"] for name, score in scores.items()}
