"""Which sentence pairs train, in which shapes, and how many are left out."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data.batching.bucketed import CopiesInTurn, SentenceBatches
from data.batching.buckets import Plan, make_plans, open_plan
from data.filters import kept_pairs
from data.storage import short_hash
from data.token_cache.reader import Encoded
from utils.errors import UserError

PLANNING = (  # what the shapes of training's batches depend on, beside the tokens
    *("buckets", "tokens_per_batch", "max_length", "min_length", "max_ratio"),
    *("drop_identical", "drop_duplicates"),
)


@dataclasses.dataclass(frozen=True)
class TrainingPairs:
    """The training split of a parallel corpus.

    Attributes:
      cfg: the experiment's `cfg.data`.
      name: of the corpus.
      folder: the split is mapped from; plans are kept beside it.
      sides: source and target.
      copies: the same, segmented anew by BPE-dropout; none without it.
    """

    cfg: ConfigDict
    name: str
    folder: Path
    sides: tuple[Encoded, Encoded]
    copies: tuple[tuple[Encoded, Encoded], ...] = ()

    @functools.cached_property
    def kept(self) -> tuple[np.ndarray, dict[str, int]]:
        """The numbers of the pairs that train, and how many do not, by reason.

        The same in all copies. Raises UserError where none is left.
        """
        numbers, dropped = kept_pairs(*self.sides, self.cfg, self.copies)
        if not len(numbers):
            reasons = ", ".join(dropped)
            raise UserError(f"no pair of {self.name} is left to train on: {reasons}")
        return numbers, dropped

    @property
    def dropped(self) -> dict[str, int]:
        """How many pairs are left out, by reason."""
        return self.kept[1] if self.cfg.document_order else self.plans[0].dropped

    @functools.cached_property
    def plans(self) -> list[Plan]:
        """One a copy, from disk after the first call."""
        keys = {name: self.cfg[name] for name in PLANNING}
        if self.copies:
            keys["dropout"] = [side.digest for sides in self.copies for side in sides]
        key = short_hash(keys)

        @functools.cache
        def made():
            numbers, dropped = self.kept
            return make_plans(
                list(self.copies or (self.sides,)),
                count=self.cfg.buckets,
                tokens_per_batch=self.cfg.tokens_per_batch,
                kept=numbers,
                dropped=dropped,
            )

        stem = f"{self.folder.name}-plan-{key}"
        names = [f"{stem}-{i}" for i in range(len(self.copies))] or [stem]
        return [
            open_plan(self.folder.with_name(name), lambda i=i: made()[i])
            for i, name in enumerate(names)
        ]

    def batches(self) -> SentenceBatches | CopiesInTurn:
        """Endless, in an order of its own each epoch."""
        seed = self.cfg.seed
        if not self.copies:
            return SentenceBatches(*self.sides, self.plans[0], seed)
        both = zip(self.copies, self.plans, strict=True)
        return CopiesInTurn([SentenceBatches(*c, plan, seed) for c, plan in both])
