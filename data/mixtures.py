"""Mixtures of parallel corpora: `wmt14/en-de+multi30k/en-de:3`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data.corpus import TRAIN, Corpus, open_corpus
from data.tokenizers.normalization import language_tag
from utils.errors import UserError

PLUS, TIMES = "+", ":"


class Mixture:
    """Corpora whose training splits are concatenated; other splits are the first's.

    It has the interface of `Corpus`.

    Attributes:
      parts: each corpus, and how often its pairs occur in an epoch.
      tagged: whether sources begin with a tag of their target language.
      targets: languages that are translated into, sorted.
    """

    kind = "parallel"

    def __init__(self, parts: Sequence[tuple[Corpus, int]], tagged: bool = False):
        self.parts, self.tagged = tuple(parts), tagged
        corpora = [corpus for corpus, _ in parts]
        # In the syntax of `data.name`.
        self.name = PLUS.join(f"{corpus.name}{TIMES}{times}" for corpus, times in parts)
        self.version = PLUS.join(corpus.version for corpus in corpora)
        self.fields = tuple("-".join(corpus.fields) for corpus in corpora)
        self.languages = corpora[0].languages
        self.targets = tuple(sorted({corpus.languages[-1] for corpus in corpora}))
        train = sum(corpus.splits[TRAIN] * times for corpus, times in parts)
        self.splits = {**corpora[0].splits, TRAIN: train}

    def reversed(self) -> "Mixture":
        """Swaps source and target of each corpus."""
        parts = [(corpus.reversed(), times) for corpus, times in self.parts]
        return Mixture(parts, self.tagged)

    def column(self, split: str, name: str) -> None:
        """Returns None: corpora of a mixture may differ in their columns."""

    def documents(self, split: str) -> None:
        """Returns None: a mixture has no document order."""

    def read(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Yields pairs `start` to `stop`; see `Corpus.read`."""
        if split != TRAIN:
            yield from self._read_tagged(self.parts[0][0], split, start, stop)
            return
        stop = self.splits[split] if stop is None else stop
        begin = 0
        for corpus in (corpus for corpus, times in self.parts for _ in range(times)):
            end = begin + corpus.splits[split]
            if begin < stop and start < end:
                first, last = max(start - begin, 0), min(stop, end) - begin
                yield from self._read_tagged(corpus, split, first, last)
            begin = end

    def _read_tagged(self, corpus: Corpus, split: str, start: int, stop: int | None):
        tag = f"{language_tag(corpus.languages[-1])} " if self.tagged else ""
        for source, target in corpus.read(split, start, stop):
            yield tag + source, target


def open_mixture(cfg: ConfigDict, data_dir: Path) -> "Corpus | Mixture":
    """Opens the corpora of `cfg.name`: a single one of weight 1 as it is."""
    parts = [
        (open_corpus(name, data_dir, cfg.source_dir), times)
        for name, times in parse_mixture(cfg.name)
    ]
    is_mixed = len(parts) > 1 or parts[0][1] > 1
    return mix(parts, cfg) if is_mixed else parts[0][0]


def parse_mixture(name: str) -> list[tuple[str, int]]:
    """Returns the corpora in `data.name`, with their weights.

    Raises UserError if a weight is not an integer of at least 1.
    """
    parts = []
    for part in name.split(PLUS):
        corpus, colon, times = part.partition(TIMES)
        if colon and "." in times:  # a version of TFDS
            corpus, colon = part, ""
        if colon and not re.fullmatch("0*[1-9][0-9]{0,8}", times):
            raise UserError(
                f"data.name={name!r}: the weight {times!r} of {corpus} must be an "
                "integer of at least 1, its number of occurrences in an epoch"
            )
        parts.append((corpus, int(times) if colon else 1))
    return parts


def mix(parts: list[tuple[Corpus, int]], cfg: ConfigDict) -> Mixture:
    """Combines several corpora into one, by the experiment's `cfg.data`.

    Raises UserError if a corpus is a text, targets differ in language without tags, or
    a filter of pairs would undo the mixture.
    """
    for corpus, _ in parts:
        if corpus.kind != "parallel":
            raise UserError(
                f"data.name={cfg.name!r} mixes parallel corpora only, and "
                f"{corpus.name} is a text"
            )
    targets = sorted({corpus.languages[-1] for corpus, _ in parts})
    if len(targets) > 1 and not cfg.target_tag:
        raise UserError(
            f"data.name mixes the target languages {', '.join(targets)}: set "
            "data.target_tag=True, so that each source names its target language"
        )
    if cfg.drop_duplicates and any(times > 1 for _, times in parts):
        raise UserError(
            f"data.drop_duplicates undoes the weights in {cfg.name!r}, which repeat "
            "pairs: set it to False"
        )
    if cfg.drop_identical and cfg.target_tag:
        raise UserError(
            "data.drop_identical finds no pair in a mixture whose sources begin with a "
            "tag (data.target_tag): set one of the two to False"
        )
    return Mixture(parts, cfg.target_tag)
