"""Several parallel corpora as one: `wmt14/en-de+multi30k/en-de:3`."""

import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict

from data.corpus import Corpus
from data.tokenizers.normalization import language_tag
from utils.errors import UserError

PLUS, TIMES = "+", ":"


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A corpus to read whose training split is that of several.

    Validation and the other splits are the first corpus's.

    Attributes:
      parts: each corpus, and how many times its pairs come in an epoch.
      tagged: whether sources begin with a word for their target's language.
    """

    parts: tuple[tuple[Corpus, int], ...]
    tagged: bool = False

    kind = "parallel"
    has_documents = False

    @property
    def name(self) -> str:
        """As it is written in `data.name`."""
        return PLUS.join(f"{corpus.name}{TIMES}{times}" for corpus, times in self.parts)

    @property
    def version(self) -> str:
        """Those of all."""
        return PLUS.join(corpus.version for corpus, _ in self.parts)

    @property
    def languages(self) -> tuple[str, ...]:
        """The first corpus's."""
        return self.parts[0][0].languages

    @property
    def targets(self) -> tuple[str, ...]:
        """The languages that are translated into, sorted."""
        return tuple(sorted({corpus.languages[-1] for corpus, _ in self.parts}))

    @property
    def fields(self) -> tuple[str, ...]:
        """What the numbers of a mixture depend on, beside names and versions."""
        return tuple("-".join(corpus.fields) for corpus, _ in self.parts)

    @property
    def splits(self) -> dict[str, int]:
        """Pairs of each split."""
        train = sum(corpus.splits["train"] * times for corpus, times in self.parts)
        return {**self.parts[0][0].splits, "train": train}

    def reversed(self) -> "Mixture":
        """Each corpus the other way."""
        turned = tuple((corpus.reversed(), times) for corpus, times in self.parts)
        return dataclasses.replace(self, parts=turned)

    def documents(self, split: str) -> None:
        """None: pairs of several corpora are in no order."""

    def read(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Pairs `start` to `stop`; see `Corpus.read`."""
        if split != "train":
            yield from self._tagged(self.parts[0][0], split, start, stop)
            return
        stop = self.splits[split] if stop is None else stop
        begin = 0
        for corpus in (corpus for corpus, times in self.parts for _ in range(times)):
            end = begin + corpus.splits[split]
            if begin < stop and start < end:
                first, last = max(start - begin, 0), min(stop, end) - begin
                yield from self._tagged(corpus, split, first, last)
            begin = end

    def _tagged(self, corpus, split, start, stop):
        tag = f"{language_tag(corpus.languages[-1])} " if self.tagged else ""
        for source, target in corpus.read(split, start, stop):
            yield tag + source, target


def parts_of(name: str) -> list[tuple[str, int]]:
    """The names in a mixture's name, and how often each comes.

    Raises UserError for a weight that is no whole number of 1 or more.
    """
    found = []
    for part in name.split(PLUS):
        corpus, colon, times = part.partition(TIMES)
        # TFDS writes versions behind a colon too: those have dots.
        if colon and "." in times:
            corpus, colon = part, ""
        if colon and (not times.isdigit() or int(times) < 1):
            raise UserError(
                f"data.name={name!r}: {times!r} behind {corpus} is no weight; write "
                "how many times it comes in an epoch, 1 or more"
            )
        found.append((corpus, int(times) if colon else 1))
    return found


def check_filters(cfg: ConfigDict, parts: list[tuple[Corpus, int]]) -> None:
    """Raises UserError for filters of pairs that a mixture would have undone.

    Args:
      cfg: the experiment's `cfg.data`.
    """
    if cfg.drop_duplicates and any(times > 1 for _, times in parts):
        raise UserError(
            f"data.drop_duplicates leaves nothing of the weights in {cfg.name!r}: a "
            "pair that comes several times is seen before; set it to False"
        )
    if cfg.drop_identical and cfg.target_tag:
        raise UserError(
            "data.drop_identical finds none in a mixture whose sources begin with a "
            "tag (data.target_tag): set one of the two to False"
        )


def mix(parts: list[tuple[Corpus, int]], *, tagged: bool) -> Mixture:
    """One corpus of several.

    Raises UserError for texts, and for targets in several languages without tags.
    """
    for corpus, _ in parts:
        if corpus.kind != "parallel":
            raise UserError(f"{corpus.name} is a text: only parallel corpora mix")
    targets = {corpus.languages[-1] for corpus, _ in parts}
    if len(targets) > 1 and not tagged:
        raise UserError(
            f"data.name mixes the target languages {', '.join(sorted(targets))}: set "
            "data.target_tag=True, so that a source says which is wanted"
        )
    return Mixture(tuple(parts), tagged)
