"""A corpus ready for one experiment: its tokenizers, token ids and batches."""

import dataclasses
import functools
import importlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data.batching.base import Batch, TrainBatches
from data.batching.bucketed import BucketedBatches, RotatingSegmentations
from data.batching.buckets import BatchPlan, open_plan, plan_batches, plan_segmentations
from data.batching.stream import LMEvalBatches, LMStreamBatches, SlidingWindows
from data.corpus import TRAIN, Corpus, open_corpus
from data.filters import filter_pairs
from data.mixtures import Mixture, mix, parse_mixture
from data.storage import local_root, short_hash
from data.token_cache import TokenizedSplit, open_segmentation, open_token_cache
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer, find_tokenizers
from utils.errors import UserError

SIDES = {"parallel": ("source", "target"), "text": ("text",)}  # by kind of corpus
# Modules that few configs need, imported when one does.
DOCUMENTS = "data.batching.documents"  # data.document_order
BPE_DROPOUT = "data.tokenizers.bpe_dropout"  # data.bpe_dropout
PLAN_KEYS = (  # keys of `cfg.data` that a plan depends on, besides the token ids
    *("buckets", "tokens_per_batch", "max_length", "min_length", "max_ratio"),
    *("drop_identical", "drop_duplicates"),
)


def open_dataset(
    cfg: ConfigDict, tokenizers: dict[str, Tokenizer] | None = None
) -> "Dataset":
    """Prepares and tokenizes the corpus `cfg.name`, or opens it if that was done.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizers of a run, by side; None: learn them on the training split.

    Raises:
      UserError: the corpus cannot be opened, or a setting is invalid.
    """
    if not cfg.name:
        raise UserError("data.name is not set: name a corpus, --config.data.name=...")
    root = local_root(cfg.dir, cfg.cache_dir)
    parts = [
        (open_corpus(name, root, cfg.source_dir), times)
        for name, times in parse_mixture(cfg.name)
    ]
    corpus = parts[0][0]
    if len(parts) > 1 or parts[0][1] > 1:
        corpus = mix(parts, cfg)
    return tokenize_corpus(corpus, cfg, tokenizers)


def tokenize_corpus(
    corpus: Corpus | Mixture,
    cfg: ConfigDict,
    tokenizers: dict[str, Tokenizer] | None = None,
) -> "Dataset":
    """Tokenizes a corpus that is open, or opens its stored tokens.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizers of a run, by side; None: learn them on the training split.
    """
    if cfg.reverse:
        corpus = corpus.reversed()
    root = local_root(cfg.dir, cfg.cache_dir)
    folder = root / "encoded" / cfg.name.replace("/", "-")
    sides = SIDES[corpus.kind]
    if tokenizers is None:
        tokenizers = find_tokenizers(corpus, folder, sides, cfg)
    pairs = [(side, tokenizers[side]) for side in sides]
    tokenized, folder = open_token_cache(corpus, folder, pairs)
    segmentations = ()
    if cfg.bpe_dropout:
        bpe_dropout = importlib.import_module(BPE_DROPOUT)
        segmentations = tuple(
            open_segmentation(corpus, folder, pairs, dropout)
            for dropout in bpe_dropout.make_segmentations(cfg, corpus.kind, tokenizers)
        )
    return Dataset(cfg, corpus, tokenizers, tokenized, folder, segmentations)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A tokenized corpus, which `open_dataset` returns.

    Attributes:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizer of each side, "source" and "target", or "text".
      tokenized: token ids, `[split][side]`.
      folder: folder of the token ids; batch plans are stored next to it.
      segmentations: the training split in each segmentation of BPE-dropout, `[side]`.
    """

    cfg: ConfigDict
    corpus: Corpus | Mixture
    tokenizers: dict[str, Tokenizer]
    tokenized: dict[str, dict[str, TokenizedSplit]]
    folder: Path
    segmentations: tuple[dict[str, TokenizedSplit], ...] = ()

    @property
    def is_parallel(self) -> bool:
        """Whether examples are sentence pairs."""
        return self.corpus.kind == "parallel"

    def train_batches(self) -> TrainBatches:
        """Returns endless batches of shuffled pairs, documents, or a text in order."""
        cfg = self.cfg
        train = self._read_split(TRAIN)
        if not self.is_parallel:
            batch_size, length = cfg.batch_size, cfg.segment_length
            if batch_size * length > len(train["text"].tokens):
                raise UserError(
                    f"data.batch_size={batch_size} x data.segment_length={length} are "
                    f"more than the text's {len(train['text'].tokens)} tokens: lower "
                    "one of them"
                )
            return LMStreamBatches(train["text"], batch_size=batch_size, length=length)
        for reason, count in self.dropped.items():
            print(f"{count} training pairs left out: {reason}", file=sys.stderr)
        if cfg.document_order:
            options = {"indices": self._selected[0], "seed": cfg.seed}
            pair = train["source"], train["target"]
            options["batch_size"] = cfg.batch_size
            return self._document_batches(TRAIN, pair, **options)
        batches = [
            BucketedBatches(*sides, plan, cfg.seed)
            for sides, plan in zip(self._train_pairs, self._train_plans, strict=True)
        ]
        return RotatingSegmentations(batches) if self.segmentations else batches[0]

    @property
    def dropped(self) -> dict[str, int]:
        """Number of pairs left out of training, by reason."""
        if not self.is_parallel:
            return {}
        if self.cfg.document_order:
            return self._selected[1]
        return self._train_plans[0].dropped

    @property
    def _train_pairs(self) -> list[tuple[TokenizedSplit, TokenizedSplit]]:
        """Source and target of the training split, in each segmentation."""
        segmentations = self.segmentations or (self._read_split(TRAIN),)
        return [(sides["source"], sides["target"]) for sides in segmentations]

    @functools.cached_property
    def _selected(self) -> tuple[np.ndarray, dict[str, int]]:
        """The pairs to train on, and the number of the others by reason."""
        train = self._read_split(TRAIN)
        pair = train["source"], train["target"]
        indices, dropped = filter_pairs(*pair, self.cfg, self._train_pairs)
        if not len(indices):
            raise UserError(
                f"no pair of {self.corpus.name} is left to train on: "
                f"{', '.join(dropped)}"
            )
        return indices, dropped

    @functools.cached_property
    def _train_plans(self) -> list[BatchPlan]:
        """A plan for each segmentation, stored on disk."""
        keys = {name: self.cfg[name] for name in PLAN_KEYS}
        if self.segmentations:
            pairs = self._train_pairs
            keys["dropout"] = [side.digest for sides in pairs for side in sides]
        stem = f"{self.folder.name}-plan-{short_hash(keys)}"
        names = [f"{stem}-{i}" for i in range(len(self.segmentations))] or [stem]

        @functools.cache
        def make():
            sizes = keys["buckets"], keys["tokens_per_batch"]
            return plan_segmentations(self._train_pairs, *sizes, *self._selected)

        return [
            open_plan(self.folder.with_name(name), lambda i=i: make()[i])
            for i, name in enumerate(names)
        ]

    def evaluation_batches(
        self,
        split: str,
        *,
        batch_size: int,
        length: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        max_length: int | None = None,
    ) -> Sequence[Batch]:
        """Returns batches with every example, or every token, exactly once.

        Args:
          batch_size: parallel streams of a text, or documents.
          length: tokens by which a batch advances a stream; None: as in training.
          window: length of sliding windows of a text, instead of streams.
          stride: tokens by which windows advance; None: `window`.
          max_length: number of tokens to which pairs are cut; None: `data.max_length`.
        """
        cfg, sides = self.cfg, self._read_split(split)
        if not self.is_parallel:
            text = sides["text"]
            if window:
                sizes = {"length": window, "stride": stride or window}
                return SlidingWindows(text, batch_size=batch_size, **sizes)
            length = length or cfg.segment_length
            batch_size = min(batch_size, max(1, len(text.tokens) // 2))
            return LMEvalBatches(text, batch_size=batch_size, length=length)
        limit = max_length or cfg.max_length
        for side, count in self.truncated(split, limit).items():
            print(f"{split}: {count} {side} cut to {limit} tokens", file=sys.stderr)
        source = sides["source"].truncate(limit, ends=True)
        pair = source, sides["target"].truncate(limit, ends=False)
        if cfg.document_order:
            return self._document_batches(split, pair, batch_size=batch_size)
        plan = plan_batches(*pair, cfg.buckets, cfg.tokens_per_batch)
        return BucketedBatches(*pair, plan)

    def truncated(self, split: str, max_length: int) -> dict[str, int]:
        """Returns the number of sources and of references longer than `max_length`."""
        sides = self._read_split(split)
        names = {"sources": "source", "references": "target"}
        counts = {
            name: int((sides[side].lengths > max_length).sum())
            for name, side in names.items()
        }
        return {name: count for name, count in counts.items() if count}

    def _document_batches(self, split: str, pair, **options) -> TrainBatches:
        names = self.corpus.documents(split)
        if names is None:
            raise UserError(
                f"data.document_order=True: {self.corpus.name} does not record the "
                f"documents of its split {split!r}"
            )
        make = importlib.import_module(DOCUMENTS).DocumentBatches
        return make(*pair, names, buckets=self.cfg.buckets, **options)

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """Returns the examples of a split as text."""
        self._read_split(split)
        return list(self.corpus.read(split))

    def references(self, split: str) -> list[list[str]]:
        """Returns the texts that each output is scored against, the target first.

        The others are the texts of `data.reference_columns` that are not blank.
        """
        columns = [self.corpus.column(split, c) for c in self.cfg.reference_columns]
        further = zip(*columns, strict=True) if columns else itertools.repeat(())
        return [
            [target, *(text for text in others if text.strip())]
            for (_, target), others in zip(self.texts(split), further, strict=False)
        ]

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Hashes of all token ids ("data") and of the tokenizers ("vocabulary")."""
        digests = [
            [split, side, tokenized.digest]
            for split, sides in sorted(self.tokenized.items())
            for side, tokenized in sorted(sides.items())
        ] + [[side.digest for side in sides.values()] for sides in self.segmentations]
        documents = {k: dump_tokenizer(v) for k, v in self.tokenizers.items()}
        return {"data": short_hash(digests), "vocabulary": short_hash(documents)}

    def unigram_loss(self, split: str) -> float:
        """Returns the loss of a unigram model, in nats per token.

        Its probabilities are the token counts of the training split plus one.
        """
        side = "target" if self.is_parallel else "text"
        size = self.tokenizers[side].vocab_size
        train = np.bincount(self.tokenized[TRAIN][side].tokens, minlength=size) + 1
        counts = np.bincount(self._read_split(split)[side].tokens, minlength=size)
        losses = np.log(train.sum()) - np.log(train)
        return float((counts * losses).sum() / counts.sum())

    def _read_split(self, split: str) -> dict[str, TokenizedSplit]:
        if split not in self.tokenized:
            raise UserError(
                f"{self.corpus.name} has no split {split!r}; "
                f"choose one of {', '.join(self.tokenized)}"
            )
        return self.tokenized[split]
