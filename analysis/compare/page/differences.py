"""Differences between the architectures of a comparison, as rows of a table."""

import dataclasses
from collections.abc import Sequence

from analysis.compare.difference import Difference, compare_cards_of_systems
from analysis.compare.power import POWER, required_sizes
from analysis.compare.results import BudgetResults, ComparisonResults
from analysis.compare.verdict import UNITS, format_verdicts
from analysis.report.score_cards import ScoreCard
from analysis.report.tables import TableRow, title_and_decimals
from utils.errors import UserError

# Keys of a protocol that say how much context a language model has: a property of the
# architecture, which the comparison is about.
CONTEXT_KEYS = ("attention_window", "memory_length", "same_length", "clamp_length")

Differences = dict[tuple[str, str], Difference]


def find_differences(
    budget: BudgetResults, results: ComparisonResults
) -> tuple[Differences, str]:
    """Compares all pairs of architectures by the score on the split.

    Returns:
      The differences, and why there are none.
    """
    systems = {
        model.name: [without_context(card) for card in model.cards]
        for model in budget.models
    }
    try:
        return compare_cards_of_systems(systems, results.metric), ""
    except UserError as error:
        return {}, str(error)


def without_context(card: ScoreCard) -> ScoreCard:
    """Returns a card whose protocol lacks CONTEXT_KEYS."""
    protocol = card.content.get("protocol", {})
    kept = {key: value for key, value in protocol.items() if key not in CONTEXT_KEYS}
    return dataclasses.replace(card, content={**card.content, "protocol": kept})


def find_all(results: ComparisonResults) -> list[tuple[str, Differences, str]]:
    """Returns `find_differences` at each budget, after the text of the budget."""
    return [
        (results.format_budget(one.plan.target), *find_differences(one, results))
        for one in results.budgets
    ]


def difference_rows(
    found: Sequence[tuple[str, Differences, str]], metric: str
) -> list[TableRow]:
    """Formats a row for each pair: difference, interval, p values, seeds needed."""
    title, digits = title_and_decimals(metric)
    digits += 1

    def signed(value) -> str:
        return f"{float(value):+.{digits}f}"

    return [
        {
            "architectures": f"{first} minus {second}",
            **({"budget": budget} if len(found) > 1 else {}),
            f"difference in {title}": signed(one.value),
            "95% interval": f"{signed(one.low)} to {signed(one.high)}",
            "p": format_p(one.p),
            "corrected p": format_p(one.adjusted_p),
            f"seeds for a power of {POWER:.0%}": needed_seeds(one),
        }
        for budget, differences, _ in found
        for (first, second), one in differences.items()
    ]


def format_p(p: float) -> str:
    """Formats a p value with four decimals."""
    return "< 0.0001" if p < 1e-4 else f"{float(p):.4f}"


def needed_seeds(difference: Difference) -> str:
    """Formats the number of seeds that would show a difference of this size."""
    if not difference.knows_seeds:
        return "unknown: one seed each"
    sizes = required_sizes(
        float(difference.value), difference.parts, difference.num_comparisons
    )
    if sizes.seeds is not None:
        return str(sizes.seeds)
    if sizes.blocks is not None:
        return f"{sizes.seeds_for_blocks} with {sizes.blocks:,} test sentences"
    return "no number"


def verdict_sentences(
    found: Sequence[tuple[str, Differences, str]],
    corpus: str,
    metric: str,
    smallest: float | None = None,
) -> list[str]:
    """Returns a sentence for each pair of architectures at each budget.

    Args:
      smallest: smallest difference of interest; see `format_verdict`.
    """
    sentences = []
    for budget, differences, reason in found:
        context = f"On {corpus} at {budget}"
        if not differences:
            sentences.append(f"{context}, differences are not tested: {reason}.")
        elif metric not in UNITS:
            sentences.append(f"{context}, see the differences in {metric}.")
        else:
            options = {"context": context, "smallest": smallest}
            sentences += format_verdicts(differences, metric, **options)
    return sentences
