"""A corpus ready for one experiment: its tokenizers, token ids and batches."""

import abc
import dataclasses
import functools
import pkgutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data.batching.base import Batch, TrainBatches
from data.corpus import TRAIN, Corpus, open_corpus
from data.storage import local_root, short_hash
from data.token_cache import TokenizedSplit, open_segmentation, open_token_cache
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer, find_tokenizers
from utils.errors import UserError

SIDES = {"parallel": ("source", "target"), "text": ("text",)}  # by kind of corpus
DATASETS = {  # by kind of corpus; only the module of the chosen one is imported
    "parallel": "data.parallel_dataset:ParallelDataset",
    "text": "data.text_dataset:TextDataset",
}
# Functions that few configs need.
OPEN_MIXTURE = "data.mixtures:open_mixture"  # of a `data.name` with + or :
MAKE_SEGMENTATIONS = "data.tokenizers.bpe_dropout:make_segmentations"


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
    if {"+", ":"} & set(cfg.name):
        corpus = pkgutil.resolve_name(OPEN_MIXTURE)(cfg, root)
    else:
        corpus = open_corpus(cfg.name, root, cfg.source_dir)
    return tokenize_corpus(corpus, cfg, tokenizers)


def tokenize_corpus(
    corpus: Corpus,
    cfg: ConfigDict,
    tokenizers: dict[str, Tokenizer] | None = None,
) -> "Dataset":
    """Tokenizes a corpus that is open, or opens its stored tokens.

    Args:
      corpus: a corpus, or a `Mixture` of several.
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
        make_segmentations = pkgutil.resolve_name(MAKE_SEGMENTATIONS)
        segmentations = tuple(
            open_segmentation(corpus, folder, pairs, dropout)
            for dropout in make_segmentations(cfg, corpus.kind, tokenizers)
        )
    dataset_class = pkgutil.resolve_name(DATASETS[corpus.kind])
    return dataset_class(cfg, corpus, tokenizers, tokenized, folder, segmentations)


@dataclasses.dataclass(frozen=True)
class Dataset(abc.ABC):
    """A tokenized corpus, which `open_dataset` returns.

    Subclasses make the batches of one kind of corpus.

    Attributes:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizer of each side, "source" and "target", or "text".
      tokenized: token ids, `[split][side]`.
      folder: folder of the token ids; batch plans are stored next to it.
      segmentations: the training split in each segmentation of BPE-dropout, `[side]`.
    """

    cfg: ConfigDict
    corpus: Corpus
    tokenizers: dict[str, Tokenizer]
    tokenized: dict[str, dict[str, TokenizedSplit]]
    folder: Path
    segmentations: tuple[dict[str, TokenizedSplit], ...] = ()

    @abc.abstractmethod
    def train_batches(self) -> TrainBatches:
        """Returns endless batches of the training split."""

    @abc.abstractmethod
    def evaluation_batches(
        self, split: str, *, batch_size: int, **options: int | None
    ) -> Sequence[Batch]:
        """Returns batches with every example, or every token, exactly once."""

    @property
    def dropped(self) -> dict[str, int]:
        """Number of examples left out of training, by reason."""
        return {}

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """Returns the examples of a split as text."""
        self._read_split(split)
        return list(self.corpus.read(split))

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
        side = SIDES[self.corpus.kind][-1]
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
