"""A corpus ready for one experiment: tokenizers, numbers and batches."""

import dataclasses
import functools
import os
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data.buckets import SentenceBatches
from data.corpora import Corpus, open_corpus
from data.encoding import (
    Encoded,
    content_hash,
    open_encoded,
    open_tokenizers,
    short_hash,
)
from data.streams import TextBatches, TextOnce
from data.tokenizers import KINDS, Tokenizer, dump_tokenizer, train_tokenizer
from errors import UserError

TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """See `open_dataset`.

    Attributes:
      tokenizers: by side: "source" and "target" (one and the same for a joint
        vocabulary), or "text".
      encoded: `[split][side]`.
    """

    cfg: ConfigDict
    corpus: Corpus
    tokenizers: dict[str, Tokenizer]
    encoded: dict[str, dict[str, Encoded]]

    @property
    def is_parallel(self) -> bool:
        """Whether an example is a sentence and its translation."""
        return self.corpus.kind == "parallel"

    def train_batches(self) -> SentenceBatches | TextBatches:
        """Endless and shuffled anew each epoch; text streams keep their order."""
        cfg = self.cfg
        train = self._split(TRAIN)
        if not self.is_parallel:
            rows, length = cfg.batch_rows, cfg.segment_length
            check_room(train["text"], rows, length)
            return TextBatches(train["text"], rows=rows, length=length)
        batches = SentenceBatches(
            train["source"],
            train["target"],
            count=cfg.buckets,
            batch_tokens=cfg.batch_tokens,
            max_length=cfg.max_length,
            seed=cfg.seed,
        )
        if batches.num_dropped:
            print(
                f"{batches.num_dropped} training pairs longer than "
                f"data.max_length={cfg.max_length} tokens are left out",
                file=sys.stderr,
            )
        return batches

    def evaluation_batches(
        self, split: str, *, rows: int, length: int | None = None
    ) -> SentenceBatches | TextOnce:
        """Every example, or every token, exactly once.

        Args:
          rows: parallel streams of a text.
          length: tokens a stream moves on by a batch; None: as in training.
        """
        cfg, sides = self.cfg, self._split(split)
        if not self.is_parallel:
            length = length or cfg.segment_length
            rows = min(rows, max(1, len(sides["text"].tokens) // 2))
            return TextOnce(sides["text"], rows=rows, length=length)
        return SentenceBatches(
            sides["source"],
            sides["target"],
            count=cfg.buckets,
            batch_tokens=cfg.batch_tokens,
        )

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """A split as text."""
        self._split(split)
        return list(self.corpus.read(split))

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """What tells this data from any other: `{"data": ..., "vocabulary": ...}`."""
        content = [
            [split, side, content_hash(encoded)]
            for split, sides in sorted(self.encoded.items())
            for side, encoded in sorted(sides.items())
        ]
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
    if "://" in cfg.dir:
        raise UserError(f"data.dir={cfg.dir}: encoded text is mapped from local disk")
    corpus = open_corpus(cfg.name, cfg.dir, cfg.source_dir)
    folder = Path(os.path.expanduser(cfg.dir)) / "encoded" / cfg.name.replace("/", "-")
    sides = ("source", "target") if corpus.kind == "parallel" else ("text",)
    if tokenizers is None:
        tokenizers = find_tokenizers(corpus, folder, sides, cfg)
    pairs = [(side, tokenizers[side]) for side in sides]
    return Dataset(cfg, corpus, tokenizers, open_encoded(corpus, folder, pairs))


def find_tokenizers(
    corpus: Corpus, folder: Path, sides: tuple[str, ...], cfg: ConfigDict
) -> dict[str, Tokenizer]:
    """Tokenizers by side, learnt now or before from the same corpus and settings."""
    keys = ("tokenizer", "vocab_size", "min_count", "joint_vocab")
    settings = {key: cfg[key] for key in keys}
    settings["recipe"] = KINDS[cfg.tokenizer].recipe if cfg.tokenizer in KINDS else {}
    found = open_tokenizers(corpus, folder, settings, lambda: learn(corpus, sides, cfg))
    return found if set(found) == set(sides) else dict.fromkeys(sides, found["joint"])


def learn(
    corpus: Corpus, sides: tuple[str, ...], cfg: ConfigDict
) -> dict[str, Tokenizer]:
    """Tokenizers by side, or one for all called "joint"."""

    def train(columns):
        texts = (text[i] for text in corpus.read(TRAIN) for i in columns)
        return train_tokenizer(cfg.tokenizer, texts, cfg.vocab_size, cfg.min_count)

    if len(sides) > 1 and cfg.joint_vocab:
        return {"joint": train(range(len(sides)))}
    return {side: train([i]) for i, side in enumerate(sides)}


def check_room(text: Encoded, rows: int, length: int) -> None:
    """Raises UserError where a batch would hold the text more than once."""
    if rows * length > len(text.tokens):
        raise UserError(
            f"data.batch_rows={rows} x data.segment_length={length} are more than "
            f"the text's {len(text.tokens)} tokens: lower one of them"
        )
