"""A table of labelled texts ready for one experiment: tokens, labels and batches."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
from ml_collections import ConfigDict

from data.corpus import TRAIN, Corpus
from data.storage import local_root, short_hash
from data.table import TextColumns, open_columns
from data.token_cache import TokenizedSplit, open_token_cache
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer, find_tokenizers
from data.understanding.batches import LabeledBatches, Texts
from data.understanding.labels import Labels, check_line_breaks, parse_grades
from data.understanding.markers import MARKERS, MASK
from utils.errors import UserError


def encoder_folder(cfg: ConfigDict) -> Path:
    """Returns the folder of the token ids of a corpus."""
    root = local_root(cfg.dir, cfg.cache_dir)
    return root / "encoded" / cfg.name.replace("/", "-")


def find_text_tokenizer(
    corpus: Corpus, cfg: ConfigDict, tokenizers: dict | None
) -> Tokenizer:
    """Returns the tokenizer of a run, or one learned on training texts, with tags."""
    if tokenizers is not None:
        if MASK not in tokenizers["text"].tags:
            raise UserError(
                "the vocabulary of the run that training starts from has no special "
                "tokens of encoders: start from a run of "
                "task='masked_language_modeling' or set data.vocabulary"
            )
        return tokenizers["text"]
    names = ("text", "pair")[: len(corpus.fields)]
    learned = find_tokenizers(corpus, encoder_folder(cfg), names, cfg)
    return learned["text"].with_tags(MARKERS)


def open_labeled(
    cfg: ConfigDict, tokenizers: dict | None = None, *, regression: bool = False
) -> "LabeledDataset":
    """Prepares and tokenizes labelled texts, or opens them if that was done.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizer and labels of a run, "text" and "label", or the tokenizer
        alone of a run whose parameters training starts from.
      regression: whether labels are grades.
    """
    keys = ("text_column", "pair_column", "label_column")
    corpus = open_columns(cfg, {key: cfg[key] for key in keys})
    columns = tuple(filter(None, (cfg.text_column, cfg.pair_column)))
    corpus = dataclasses.replace(corpus, fields=columns)
    tokenizer = find_text_tokenizer(corpus, cfg, tokenizers)
    sides = [(side, tokenizer) for side in ("text", "pair")[: len(columns)]]
    tokenized, _ = open_token_cache(corpus, encoder_folder(cfg), sides)
    labels = (tokenizers or {}).get("label")
    if labels is None and regression:
        labels = Labels((), ())
    elif labels is None:
        names = read_column(corpus, TRAIN, cfg.label_column)
        declared = corpus.label_names(cfg.label_column)
        labels = Labels.learn(cfg.label_column, names, declared)
    return LabeledDataset(
        cfg, corpus, {"text": tokenizer, "label": labels}, tokenized, regression
    )


def read_column(corpus: Corpus, split: str, column: str) -> list[str]:
    """Returns a column of a split. Raises UserError if it holds sequences."""
    texts = [text for (text,) in corpus.read_columns(split, (column,))]
    if texts and not isinstance(texts[0], str):
        raise UserError(
            f"the column {column!r} holds a sequence, and a text has one label"
        )
    return texts


@dataclasses.dataclass(frozen=True)
class LabeledDataset:
    """Labelled texts or pairs of texts, tokenized.

    Attributes:
      cfg: the experiment's `cfg.data`.
      tokenizers: "text", and "label" with the classes.
      tokenized: token ids, `[split][side]` with the sides "text" and perhaps "pair".
      regression: whether labels are grades.
    """

    cfg: ConfigDict
    corpus: TextColumns
    tokenizers: dict
    tokenized: dict[str, dict[str, TokenizedSplit]]
    regression: bool = False

    dropped: ClassVar[dict[str, int]] = {}  # no example is left out of training

    @functools.cached_property
    def _names(self) -> dict[str, list[str]]:
        """Labels of the splits that were read, by split."""
        return {}

    def label_names(self, split: str) -> list[str]:
        """Returns the label of each example as text."""
        if split not in self._names:
            column = self.cfg.label_column
            self._names[split] = read_column(self.corpus, split, column)
        return self._names[split]

    def labels(self, split: str) -> np.ndarray:
        """Returns the id of each label, -1 for unknown ones, or the grades.

        Raises:
          UserError: a label is missing, or training lacks it (`data.unseen_labels`).
        """
        names, labels = self.label_names(split), self.tokenizers["label"]
        if "" in names:
            raise UserError(
                f"{self.corpus.name} has no label for example {names.index('') + 1} of "
                f"its split {split!r}: score another split"
            )
        if self.regression:
            return parse_grades(names, self.cfg.label_column, split)
        check_line_breaks(set(names), self.cfg.label_column)
        labels.check_seen(names, split, self.cfg.unseen_labels)
        return labels.numbers(names)

    def examples(self, split: str) -> Texts:
        """Returns the tokens of a split's examples, cut to `data.max_length`."""
        return Texts(list(self.tokenized[split].values()), self.cfg.max_length)

    def train_batches(self) -> LabeledBatches:
        """Returns endless batches in another order in each epoch."""
        return self._batches(TRAIN, self.cfg.batch_size, self.cfg.seed)

    def evaluation_batches(self, split: str, *, batch_size: int) -> LabeledBatches:
        """Returns batches with each example once."""
        self.corpus.check_split(split)
        return self._batches(split, batch_size, None)

    def _batches(self, split, batch_size, seed):
        texts = self.examples(split)
        if not len(texts):
            raise UserError(f"the split {split!r} of {self.corpus.name} is empty")
        if texts.num_cut:
            limit = self.cfg.max_length
            print(
                f"{split}: {texts.num_cut} texts cut to {limit} tokens", file=sys.stderr
            )
        sizes = batch_size, self.cfg.buckets, seed
        return LabeledBatches(texts, self.labels(split), *sizes)

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """Returns the text, or both texts, of each example."""
        return list(self.corpus.read(split))

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Hashes of all tokens and labels ("data") and of vocabularies."""
        digests = [
            [split, side, tokenized.digest]
            for split, sides in sorted(self.tokenized.items())
            for side, tokenized in sorted(sides.items())
        ] + [[split, self.label_names(split)] for split in sorted(self.tokenized)]
        documents = {k: dump_tokenizer(v) for k, v in self.tokenizers.items()}
        return {"data": short_hash(digests), "vocabulary": short_hash(documents)}
