"""Documents ready for one experiment: their tokenizer, token ids and masked batches."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from ml_collections import ConfigDict

from data.corpus import TRAIN
from data.storage import short_hash
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer
from data.understanding.dataset import (
    TextColumns,
    encoder_folder,
    find_text_tokenizer,
    open_columns,
)
from data.understanding.documents import Documents, open_documents
from data.understanding.masking import MaskedBatches, MaskingOptions
from utils.errors import UserError


def open_masked(
    cfg: ConfigDict, options: MaskingOptions, tokenizers: dict | None = None
) -> "MaskedDataset":
    """Prepares, divides and tokenizes a text, or opens it if that was done.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: "text", the tokenizer of a run; None: learn it.

    Raises:
      UserError: the corpus cannot be opened, is no text, or has no documents.
    """
    corpus = open_columns(cfg, {"text_column": cfg.text_column})
    if cfg.text_column:
        corpus = dataclasses.replace(corpus, fields=(cfg.text_column,))
    elif corpus.kind != "text":
        raise UserError(
            f"{corpus.name} has no documents to learn from, but the columns "
            f"{', '.join(corpus.columns)}: set data.text_column to read one as text"
        )
    tokenizer = find_text_tokenizer(corpus, cfg, tokenizers)
    documents = open_documents(corpus, encoder_folder(cfg), tokenizer)
    return MaskedDataset(cfg, options, corpus, {"text": tokenizer}, documents)


@dataclasses.dataclass(frozen=True)
class MaskedDataset:
    """Documents of sentences, tokenized.

    Attributes:
      cfg: the experiment's `cfg.data`.
      options: how tokens are masked.
      tokenizers: "text".
      documents: the documents of each split.
    """

    cfg: ConfigDict
    options: MaskingOptions
    corpus: TextColumns
    tokenizers: dict[str, Tokenizer]
    documents: dict[str, Documents]

    dropped: ClassVar[dict[str, int]] = {}  # no sentence is left out of training

    def train_batches(self) -> MaskedBatches:
        """Returns endless batches, with other masks in each epoch."""
        return self._batches(TRAIN, self.cfg.batch_size, self.cfg.seed)

    def evaluation_batches(self, split: str, *, batch_size: int) -> MaskedBatches:
        """Returns batches with each segment once, always with the same masks."""
        self.corpus.check_split(split)
        return self._batches(split, batch_size, None)

    def _batches(self, split: str, batch_size: int, seed: int | None) -> MaskedBatches:
        cfg, documents = self.cfg, self.documents[split]
        where = f"{self.corpus.name}, split {split!r}"
        if self.options.next_sentence and len(documents) < 2:
            raise UserError(
                f"mlm.next_sentence=True takes sentences from other documents, and "
                f"{where} is a single one: separate documents by blank lines"
            )
        batches = MaskedBatches(
            documents,
            self.tokenizers["text"],
            self.options,
            batch_size=batch_size,
            max_length=cfg.max_length,
            document_order=cfg.document_order,
            seed=seed,
        )
        if not batches.num_segments:
            raise UserError(
                f"mlm.next_sentence=True needs documents of two sentences or more, and "
                f"{where} has none"
            )
        if not batches.can_predict():
            limit = self.options.num_predictions(cfg.max_length)
            raise UserError(
                f"mlm.whole_word=True: {where} has no word of {limit} tokens or fewer, "
                "as many as a text's predictions: set mlm.whole_word=False, or raise "
                "data.max_length or mlm.probability"
            )
        if cfg.document_order and split == TRAIN and batches.num_segments < batch_size:
            raise UserError(
                f"data.batch_size={batch_size} is more than the "
                f"{batches.num_segments} segments of {where}: lower it, or "
                "data.max_length"
            )
        return batches

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """Returns the sentences or lines of a split, before they are tokenized."""
        return list(self.corpus.read(split))

    @functools.cached_property
    def unigram(self) -> np.ndarray:
        """Log probability of each token: its training count plus one, normalized."""
        size = self.tokenizers["text"].vocab_size
        counts = np.bincount(self.documents[TRAIN].tokens, minlength=size) + 1
        return np.log(counts) - np.log(counts.sum())

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Hashes of all tokens and divisions ("data") and of the vocabulary."""
        digests = [[name, one.digest] for name, one in sorted(self.documents.items())]
        documents = {k: dump_tokenizer(v) for k, v in self.tokenizers.items()}
        return {"data": short_hash(digests), "vocabulary": short_hash(documents)}
