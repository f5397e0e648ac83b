"""Verdicts on architectures, each one sentence of plain English."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from analysis.compare.difference import LEVEL, Difference
from analysis.compare.power import RequiredSizes, required_sizes


@dataclasses.dataclass(frozen=True)
class Unit:
    """Unit of the differences of a score, and the direction of better scores."""

    name: str
    direction: Literal["max", "min"] = "max"
    decimals: int = 1

    def format(self, value: float) -> str:
        """Formats a number without its unit; -0.0 as 0.0."""
        return f"{round(float(value), self.decimals) + 0.0:.{self.decimals}f}"


POINTS = Unit("points")
F1 = Unit("F1")
NATS = Unit("nats per token", "min", 3)
# Units of the scores that have statistics of blocks.
UNITS: dict[str, Unit] = {
    "loss": NATS,
    **dict.fromkeys(("bleu", "bleu_moses_lowercase"), Unit("BLEU")),
    "bleu_compound_split": Unit("BLEU"),
    "chrf": Unit("chrF"),
    "ter": Unit("TER", "min"),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), Unit("ROUGE")),
    **dict.fromkeys(("exact_match", "answer_accuracy", "dialogue_accuracy"), POINTS),
    **dict.fromkeys(("accuracy", "intent_accuracy", "sentence_accuracy"), POINTS),
    "token_accuracy": POINTS,
    **dict.fromkeys(("token_f1", "entity_f1", "macro_f1", "official_f1"), F1),
    **dict.fromkeys(("micro_f1", "f1", "strict_f1"), F1),
    "pearson": Unit("points of correlation"),
}


def format_verdicts(
    differences: Mapping[tuple[str, str], Difference],
    metric: str,
    *,
    context: str = "",
    smallest: float | None = None,
) -> list[str]:
    """Returns a sentence for each comparison; see `format_verdict`."""
    return [
        format_verdict(names, entry, metric, context=context, smallest=smallest)
        for names, entry in differences.items()
    ]


def format_verdict(
    names: tuple[str, str],
    difference: Difference,
    metric: str,
    *,
    context: str = "",
    smallest: float | None = None,
) -> str:
    """Returns one sentence on whether two systems can be told apart.

    Args:
      names: those of the systems, in the order of the difference.
      metric: one of UNITS.
      context: beginning of the sentence, such as "On multi30k/en-de at 3e14 FLOPs".
      smallest: smallest difference of interest, for the number of seeds that an
        undecided comparison would need; None: the observed difference.
    """
    unit = UNITS[metric]
    sign = 1 if unit.direction == "max" else -1
    lead = sign * float(difference.value)
    low, high = sorted((sign * float(difference.low), sign * float(difference.high)))
    if lead < 0:
        names, lead, low, high = names[::-1], -lead, -high, -low
    interval = f"95% interval {unit.format(low)} to {unit.format(high)}"
    amount = f"{unit.format(lead)} {unit.name}"
    start = f"{context}, " if context else ""
    ahead, behind = names
    if not difference.knows_seeds:
        interval += " over test sentences"
    if difference.is_decided:
        text = f"{ahead} is ahead of {behind} by {amount} ({interval})"
        if metric == "loss":
            text += f", a perplexity {100 * -math.expm1(-lead):.1f}% lower"
        return f"{start}{text}{_unknown_seeds(difference)}."
    if difference.p <= LEVEL:
        interval += (
            f" before the correction for {difference.num_comparisons} comparisons"
        )
    text = (
        f"{ahead} and {behind} cannot be told apart with "
        f"{_format_counts(difference.parts.counts)}: the difference is {amount} "
        f"({interval})"
    )
    text += _unknown_seeds(difference) or _format_required(difference, unit, smallest)
    return f"{start}{text}."


def _format_counts(counts: tuple[int, int]) -> str:
    if counts[0] == counts[1]:
        return f"{counts[0]} seed{'s' * (counts[0] > 1)}" + " each" * (counts[0] == 1)
    return f"{counts[0]} and {counts[1]} seeds"


def _unknown_seeds(difference: Difference) -> str:
    """Warns where each system has one seed."""
    if difference.knows_seeds:
        return ""
    return "; with one seed each the spread of seeds is unknown"


def _format_required(difference: Difference, unit: Unit, smallest: float | None) -> str:
    """Tells the sizes of a comparison that finds a difference with power 0.8."""
    wanted = abs(float(difference.value)) if smallest is None else smallest
    sizes: RequiredSizes = required_sizes(
        wanted, difference.parts, difference.num_comparisons
    )
    # Fewer decimals could turn a small observed difference into 0.
    amount = f"{unit.format(wanted) if smallest is None else f'{wanted:g}'} {unit.name}"
    if sizes.seeds is not None:
        if sizes.seeds <= min(difference.parts.counts):
            return f"; a difference of {amount} would probably have been found"
        return f"; about {sizes.seeds} seeds each would be needed to tell {amount}"
    if sizes.blocks is None:
        return f"; no number of seeds and test sentences would tell {amount}"
    return (
        f"; on this test split no number of seeds would tell {amount}: that takes "
        f"about {float(f'{sizes.blocks:.2g}'):,.0f} test sentences and "
        f"{sizes.seeds_for_blocks} seeds each"
    )
