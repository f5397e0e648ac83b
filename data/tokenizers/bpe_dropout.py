"""BPE-dropout (Provilkov et al. 2020): training pairs segmented anew, several times.

Each merge of byte-pair encoding is left out with some probability, so a sentence
falls into other pieces each time. Text is encoded once here, not batch by batch: the
training split is kept in `data.bpe_dropout_copies` segmentations, which epochs take in
turn. Evaluation sees the ordinary one.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from data.tokenizers.base import Tokenizer, led_by
from data.tokenizers.bpe import encode_dropped, merges_of
from data.tokenizers.sentencepiece_model import SentencePieceTokenizer
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dropout:
    """One segmentation of a corpus.

    Attributes:
      probability: of a merge to be left out.
      seed: of all copies.
      copy: which of them.
    """

    probability: float
    seed: int
    copy: int

    def sampler(self, tokenizer: Tokenizer, *place: int) -> "Sampler":
        """Encodes what stands at `place`, the same in any process."""
        random = np.random.default_rng([self.seed, self.copy, *place])
        return Sampler(tokenizer, self.probability, random)


@dataclasses.dataclass
class Sampler:
    """A tokenizer that encodes by chance."""

    tokenizer: SentencePieceTokenizer
    probability: float
    random: np.random.Generator

    @property
    def vocab_size(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.vocab_size

    def encode_all(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode_all`."""
        firsts, plain = zip(*map(self.tokenizer.parted, texts), strict=True)
        found = encode_dropped(self.tokenizer, plain, self.probability, self.random)
        return led_by(firsts, *found)

    def encode_long(self, text: str) -> Iterator[np.ndarray]:
        """See `Tokenizer.encode_long`."""
        yield self.encode_all([text])[0]


def dropouts(
    cfg: ConfigDict, kind: str, tokenizers: dict[str, Tokenizer]
) -> list[Dropout]:
    """The segmentations that an experiment trains on; none where it has no dropout.

    Args:
      cfg: the experiment's `cfg.data`.
      kind: of the corpus.

    Raises UserError for what has no merges to leave out, or is read in another way.
    """
    share, copies = cfg.bpe_dropout, cfg.bpe_dropout_copies
    if not share:
        return []
    asked = f"data.bpe_dropout={share}"
    if not 0 < share < 1:
        raise UserError(f"{asked}: a probability is at least 0 and less than 1")
    if copies < 1:
        raise UserError(f"data.bpe_dropout_copies={copies}: {asked} needs 1 or more")
    if kind != "parallel":
        raise UserError(f"{asked}: only sentence pairs are segmented anew, not a text")
    if cfg.document_order:
        raise UserError(f"{asked} does not go with data.document_order=True: unset one")
    for tokenizer in tokenizers.values():
        check_merges(tokenizer, asked, cfg)
    return [Dropout(share, cfg.seed, copy) for copy in range(copies)]


def check_merges(tokenizer: Tokenizer, asked: str, cfg: ConfigDict) -> None:
    """Raises UserError unless the tokenizer is byte-pair encoding."""
    if tokenizer.kind != SentencePieceTokenizer.kind:
        raise UserError(
            f"{asked} leaves out merges of byte-pair encoding, of which "
            f"data.tokenizer={cfg.tokenizer!r} has none: use 'sentencepiece'"
        )
    try:
        merges_of(tokenizer.model)
    except UserError as error:
        raise UserError(f"{asked}, data.vocabulary={cfg.vocabulary}: {error}") from None
