"""Sentence pairs ready for one experiment: filters, batch plans and batches."""

import functools
import itertools
import pkgutil
import sys
from collections.abc import Callable, Sequence

import numpy as np

from data.batching.base import Batch, TrainBatches
from data.batching.bucketed import BucketedBatches, RotatingSegmentations
from data.batching.buckets import BatchPlan, open_plan, plan_batches, plan_segmentations
from data.corpus import TRAIN
from data.dataset import Dataset
from data.filters import filter_pairs
from data.storage import short_hash
from data.token_cache import TokenizedSplit
from utils.errors import UserError

# Imported for `data.document_order` only.
DOCUMENT_BATCHES = "data.batching.documents:DocumentBatches"
PLAN_KEYS = (  # keys of `cfg.data` that a plan depends on, besides the token ids
    *("buckets", "tokens_per_batch", "max_length", "min_length", "max_ratio"),
    *("drop_identical", "drop_duplicates"),
)


class ParallelDataset(Dataset):
    """Tokenized sentence pairs, in buckets or in document order."""

    def train_batches(self) -> TrainBatches:
        cfg, train = self.cfg, self._read_split(TRAIN)
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
        self, split: str, *, batch_size: int, max_length: int | None = None
    ) -> Sequence[Batch]:
        """Returns batches with every pair exactly once.

        Args:
          batch_size: documents in parallel, of `data.document_order`.
          max_length: number of tokens to which pairs are cut; None: `data.max_length`.
        """
        cfg, sides = self.cfg, self._read_split(split)
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

    def count_longer_references(self, split: str, limits: Callable) -> int:
        """Returns the number of references that are longer than outputs may be.

        Args:
          limits: largest numbers of tokens of outputs, given those of their sources.
        """
        sides = self._read_split(split)
        return int((sides["target"].lengths > limits(sides["source"].lengths)).sum())

    def _document_batches(self, split: str, pair, **options) -> TrainBatches:
        names = self.corpus.documents(split)
        if names is None:
            raise UserError(
                f"data.document_order=True: {self.corpus.name} does not record the "
                f"documents of its split {split!r}"
            )
        make = pkgutil.resolve_name(DOCUMENT_BATCHES)
        return make(*pair, names, buckets=self.cfg.buckets, **options)

    def references(self, split: str, texts: list | None = None) -> list[list[str]]:
        """Returns the texts that each output is scored against, the target first.

        The others are the texts of `data.reference_columns` that are not blank.

        Args:
          texts: the examples of the split, where they are read already.
        """
        columns = [self.corpus.column(split, c) for c in self.cfg.reference_columns]
        further = zip(*columns, strict=True) if columns else itertools.repeat(())
        return [
            [target, *(text for text in others if text.strip())]
            for (_, target), others in zip(
                texts or self.texts(split), further, strict=False
            )
        ]
