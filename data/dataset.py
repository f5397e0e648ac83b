"""A corpus ready for one experiment: tokenizers, numbers and batches."""

import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data.batching.bucketed import CopiesInTurn, SentenceBatches
from data.batching.buckets import make_plan
from data.batching.documents import DocumentBatches
from data.batching.stream import TextBatches, TextOnce
from data.batching.windows import SlidingWindows
from data.corpus import TRAIN, Corpus, open_corpus
from data.mixtures import Mixture, check_filters, mix, parts_of
from data.remote import local_root
from data.storage import short_hash
from data.token_cache.reader import Encoded, open_copy, open_encoded
from data.tokenizers.bpe_dropout import dropouts
from data.tokenizers.build import find_tokenizers
from data.tokenizers.serialization import Tokenizer, dump_tokenizer
from data.training_pairs import TrainingPairs
from utils.errors import UserError

SIDES = {"parallel": ("source", "target"), "text": ("text",)}  # by kind of corpus


@dataclasses.dataclass(frozen=True)
class Dataset:
    """See `open_dataset`.

    Attributes:
      tokenizers: by side: "source" and "target", or "text".
      encoded: `[split][side]`.
      folder: that `encoded` is mapped from.
      copies: `[side]`, the training split segmented anew by BPE-dropout.
    """

    cfg: ConfigDict
    corpus: Corpus | Mixture
    tokenizers: dict[str, Tokenizer]
    encoded: dict[str, dict[str, Encoded]]
    folder: Path
    copies: tuple[dict[str, Encoded], ...] = ()

    @property
    def is_parallel(self) -> bool:
        """Whether an example is a sentence and its translation."""
        return self.corpus.kind == "parallel"

    def train_batches(
        self,
    ) -> SentenceBatches | CopiesInTurn | DocumentBatches | TextBatches:
        """Endless and shuffled anew each epoch; text streams keep their order."""
        cfg = self.cfg
        train = self._split(TRAIN)
        if not self.is_parallel:
            rows, length = cfg.batch_size, cfg.segment_length
            check_room(train["text"], rows, length)
            return TextBatches(train["text"], rows=rows, length=length)
        for reason, count in self.dropped.items():
            print(f"{count} training pairs left out: {reason}", file=sys.stderr)
        if cfg.document_order:
            kept, _ = self._pairs.kept
            return self._documents(TRAIN, rows=cfg.batch_size, kept=kept, seed=cfg.seed)
        return self._pairs.batches()

    @property
    def dropped(self) -> dict[str, int]:
        """How many pairs training leaves out, by reason."""
        return self._pairs.dropped if self.is_parallel else {}

    @functools.cached_property
    def _pairs(self) -> TrainingPairs:
        def both(sides):
            return sides["source"], sides["target"]

        copies = tuple(both(copy) for copy in self.copies)
        train = both(self._split(TRAIN))
        return TrainingPairs(self.cfg, self.corpus.name, self.folder, train, copies)

    def evaluation_batches(
        self,
        split: str,
        *,
        rows: int,
        length: int | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> SentenceBatches | DocumentBatches | TextOnce | SlidingWindows:
        """Every example, or every token, exactly once.

        Args:
          rows: parallel streams of a text.
          length: tokens a stream moves on by a batch; None: as in training.
          window: of a text, instead of streams: tokens read at once, each time anew.
          stride: tokens a window moves on by; None: its length.
        """
        cfg, sides = self.cfg, self._split(split)
        if not self.is_parallel and window:
            stride = stride or window
            return SlidingWindows(
                sides["text"], rows=rows, length=window, stride=stride
            )
        if not self.is_parallel:
            length = length or cfg.segment_length
            rows = min(rows, max(1, len(sides["text"].tokens) // 2))
            return TextOnce(sides["text"], rows=rows, length=length)
        if cfg.document_order:
            return self._documents(split, rows=rows)
        source, target = sides["source"], sides["target"]
        plan = make_plan(
            source, target, count=cfg.buckets, tokens_per_batch=cfg.tokens_per_batch
        )
        return SentenceBatches(source, target, plan)

    def _documents(self, split: str, **options) -> DocumentBatches:
        """The pairs of a split in the order of their documents."""
        sides, names = self._split(split), self.corpus.documents(split)
        if names is None:
            raise UserError(
                f"data.document_order=True: {self.corpus.name} does not say to which "
                f"documents the pairs of its split {split!r} belong"
            )
        return DocumentBatches(
            sides["source"],
            sides["target"],
            names,
            buckets=self.cfg.buckets,
            **options,
        )

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """A split as text."""
        self._split(split)
        return list(self.corpus.read(split))

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """What tells this data from any other: `{"data": ..., "vocabulary": ...}`."""
        content = [
            [split, side, encoded.digest]
            for split, sides in sorted(self.encoded.items())
            for side, encoded in sorted(sides.items())
        ] + [[side.digest for side in copy.values()] for copy in self.copies]
        documents = {k: dump_tokenizer(v) for k, v in self.tokenizers.items()}
        return {"data": short_hash(content), "vocabulary": short_hash(documents)}

    def unigram_loss(self, split: str) -> float:
        """Nats a token of a model that knows only how frequent tokens are.

        Frequencies are those of the training split, each token counted once
        more so that none is impossible.
        """
        side = "target" if self.is_parallel else "text"
        size = self.tokenizers[side].vocab_size
        train = np.bincount(self.encoded[TRAIN][side].tokens, minlength=size) + 1
        found = np.bincount(self._split(split)[side].tokens, minlength=size)
        surprise = np.log(train.sum()) - np.log(train)
        return float((found * surprise).sum() / found.sum())

    def _split(self, split: str) -> dict[str, Encoded]:
        if split not in self.encoded:
            raise UserError(
                f"{self.corpus.name} has no split {split!r}; "
                f"there are {', '.join(self.encoded)}"
            )
        return self.encoded[split]


def open_dataset(
    cfg: ConfigDict, tokenizers: dict[str, Tokenizer] | None = None
) -> Dataset:
    """Prepares, tokenises and encodes `cfg.name`, or finds it done.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: by side, those of a run; None: learnt from the training split.

    Raises UserError for what the user can mend.
    """
    if not cfg.name:
        raise UserError("data.name is not set: name a corpus, --config.data.name=...")
    root = local_root(cfg.dir, cfg.cache_dir)
    parts = [
        (open_corpus(name, root, cfg.source_dir), times)
        for name, times in parts_of(cfg.name)
    ]
    corpus = parts[0][0]
    if len(parts) > 1 or parts[0][1] > 1:
        check_filters(cfg, parts)
        corpus = mix(parts, tagged=cfg.target_tag)
    if cfg.reverse:
        corpus = corpus.reversed()
    folder = root / "encoded" / cfg.name.replace("/", "-")
    sides = SIDES[corpus.kind]
    if tokenizers is None:
        tokenizers = find_tokenizers(corpus, folder, sides, cfg)
    drawn = dropouts(cfg, corpus.kind, tokenizers)
    pairs = [(side, tokenizers[side]) for side in sides]
    encoded, folder = open_encoded(corpus, folder, pairs)
    copies = tuple(open_copy(corpus, folder, pairs, dropout) for dropout in drawn)
    return Dataset(cfg, corpus, tokenizers, encoded, folder, copies)


def check_room(text: Encoded, rows: int, length: int) -> None:
    """Raises UserError where a batch would hold the text more than once."""
    if rows * length > len(text.tokens):
        raise UserError(
            f"data.batch_size={rows} x data.segment_length={length} are more than "
            f"the text's {len(text.tokens)} tokens: lower one of them"
        )
