"""Effects of knockouts on loss and score, with paired intervals, in order of size."""

import dataclasses
from collections.abc import Iterable

from analysis.knockout.candidates import Candidate
from analysis.knockout.evaluation import Outcome
from analysis.label_tests import STATISTICS, label_statistics
from analysis.paired_tests import PairedTest, loss_statistics, metric_statistics
from tasks.text_metrics.registry import METRICS

MAX_SCORES = 2  # beside the loss


@dataclasses.dataclass(frozen=True)
class Effect:
    """The effect of a knockout.

    Attributes:
      loss: mean loss with the knockout, in nats.
      change: that loss minus the loss of the whole model.
      scores: value of each score with the knockout, and its change.
    """

    candidate: Candidate
    loss: float
    change: PairedTest
    scores: dict[str, tuple[float, PairedTest | None]]

    @property
    def is_certain(self) -> bool:
        """Whether the interval of the loss does not contain 0."""
        return bool(self.change.interval) and (
            self.change.interval[0] > 0 or self.change.interval[1] < 0
        )


def rank_effects(
    candidates: Iterable[Candidate], outcomes: Iterable[Outcome], whole: Outcome
) -> list[Effect]:
    """Returns the effects of knockouts, those that raise the loss most first.

    Intervals are those of `analysis/paired_tests.py`: 95%, of the bootstrap over
    sentences, texts or blocks of tokens; each is for one knockout, so of many some
    exclude 0 by chance.

    Args:
      whole: the outcome without a knockout.
    """
    names = score_names(whole)
    effects = []
    for candidate, outcome in zip(candidates, outcomes, strict=True):
        totals = whole.blocks.total, outcome.blocks.total
        change = loss_statistics(totals, whole.blocks.weight).compare()
        statistics = {}
        if names and whole.texts:
            statistics = metric_statistics(names, (whole.texts, outcome.texts))
        elif names and whole.samples:
            statistics = label_statistics((whole.samples, outcome.samples), names)
        tests = {name: entry.compare() for name, entry in statistics.items()}
        scores = {name: (outcome.scores[name], tests.get(name)) for name in names}
        effects.append(Effect(candidate, outcome.blocks.mean, change, scores))
    return sorted(effects, key=lambda effect: -effect.change.difference)


def score_names(outcome: Outcome) -> list[str]:
    """Returns the scores that are shown beside the loss."""
    known = METRICS if outcome.texts else (*STATISTICS, "masked_accuracy")
    return [name for name in outcome.scores if name in known][:MAX_SCORES]


def effect_content(effect: Effect) -> dict:
    """Returns an effect as JSON values."""
    candidate = effect.candidate
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "site": candidate.site,
        "part": candidate.part,
        "loss": {"value": effect.loss, **_test_content(effect.change)},
        "scores": {
            name: {"value": value, **_test_content(test)}
            for name, (value, test) in effect.scores.items()
        },
    }


def _test_content(test: PairedTest | None) -> dict:
    if test is None:
        return {}
    content = {"change": test.difference, "p": test.randomisation}
    if test.interval:
        content |= {"low": test.interval[0], "high": test.interval[1]}
    return content
