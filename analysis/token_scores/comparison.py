"""Comparison of two runs on one text, token by token or word by word."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from analysis.token_scores.scoring import ScoredLine, ScoredRun
from analysis.token_scores.tokens import END, Spans, align_words
from experiment.restore import TrainedRun
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Spans of each line that both runs have tokens for.

    Attributes:
      unit: "token" for runs of one vocabulary, or else "word".
      spans: of each line, the ends of its spans in tokens of either run.
    """

    runs: tuple[ScoredRun, ScoredRun]
    unit: str
    spans: list[Spans]

    @property
    def differences(self) -> list[Float[np.ndarray, "N"]]:
        """Log probability of each span under the first run less the second's."""
        first, second = self.runs
        return [
            span_sums(one, [a for a, _ in spans])
            - span_sums(two, [b for _, b in spans])
            for one, two, spans in zip(
                first.lines, second.lines, self.spans, strict=True
            )
        ]


def span_sums(line: ScoredLine, ends: Sequence[int]) -> Float[np.ndarray, "N"]:
    """Sums log probabilities over spans of tokens that end at `ends`."""
    starts = [0, *ends[:-1]]
    return np.add.reduceat(line.scores.log_probs.astype(float), starts)


def check_tasks(first: TrainedRun, second: TrainedRun) -> None:
    """Raises UserError for runs of different tasks."""
    tasks = first.experiment.cfg.task, second.experiment.cfg.task
    if tasks[0] != tasks[1]:
        raise UserError(
            f"--workdir={first.directory.path} has task {tasks[0]} and "
            f"--against={second.directory.path} has task {tasks[1]}: compare runs of "
            "one task"
        )


def compare(first: ScoredRun, second: ScoredRun) -> Comparison:
    """Aligns the tokens of two runs, or their words.

    Raises:
      UserError: their tokenizers normalize or cut the text in different ways.
    """
    if len(first.lines) != len(second.lines):
        raise UserError(
            f"{first.name} has tokens for {len(first.lines)} lines and {second.name} "
            f"for {len(second.lines)}, so their words cannot be aligned"
        )
    pairs = list(zip(first.lines, second.lines, strict=True))
    shares = first.tokenizer.shares_vocabulary(second.tokenizer)
    if shares and all(one.ids == two.ids for one, two in pairs):
        spans = [[(i, i) for i in range(1, len(one.ids) + 1)] for one, _ in pairs]
        return Comparison((first, second), "token", spans)
    spans = [_align(first, second, one, two) for one, two in pairs]
    return Comparison((first, second), "word", spans)


def _align(first, second, one: ScoredLine, two: ScoredLine) -> Spans:
    texts = [
        run.tokenizer.normalizer.apply(line.text) + (f" {END}" if line.has_end else "")
        for run, line in ((first, one), (second, two))
    ]
    spans = align_words(one.pieces, two.pieces, texts)
    if spans is None:
        raise UserError(
            f"the tokenizers of {first.name} and {second.name} normalize or cut "
            f"{one.text[:40]!r} in different ways, so their words cannot be aligned"
        )
    return spans
