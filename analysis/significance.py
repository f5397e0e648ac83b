"""Tests whether systems differ, and computes the deviation over their seeds.

python -m analysis.significance --cards=runs/a,runs/b --split=test
python -m analysis.significance --cards=runs/a1+runs/a2,runs/b1+runs/b2

A card is a file eval/<split>-<step>.json, or a run directory for its newest one. Commas
separate systems, + separates the seeds of one; a place that exists is one, whatever its
name. Each other system is tested against the first one.

Systems of one seed are tested by paired bootstrap and approximate randomisation of
BLEU, chrF, the loss, F1 and correlations; of accuracies by McNemar's exact test, in
place of randomisation. If a system has several seeds, the difference is that of means
over seeds, and its interval and p value include the variance of seeds, as in
`analysis.compare` (docs/comparing.md). p values of several comparisons are not
corrected.
"""

import sys
from collections.abc import Sequence

from absl import flags

from analysis.compare.difference import compare_systems
from analysis.report.score_cards import (
    ScoreCard,
    card_statistics,
    compare_cards,
    open_card,
    protocol_differences,
    seed_statistics,
)
from utils import cli, cli_inputs
from utils.errors import UserError

CARDS = flags.DEFINE_string(
    "cards", None, "Score cards or run directories.", required=True
)
SPLIT = flags.DEFINE_string("split", "test", "The split of run directories' cards.")
FORCE = flags.DEFINE_bool("force", False, "Compare even if protocols differ.")

SHOWN = 4  # differences of protocols that an error lists
Seeds = list[ScoreCard]  # the cards of one system


def main() -> None:
    """Prints the scores of the systems, then the tests of each but the first."""
    systems = open_systems(CARDS.value, SPLIT.value)
    for line in check_protocols(systems, force=FORCE.value):
        print(f"warning: protocols differ: {line}", file=sys.stderr)
    print("\n".join(seeds_table(systems)))
    first = systems[0]
    for other in systems[1:]:
        has_seeds = len(first) > 1 or len(other) > 1
        table = seeds_tests_table if has_seeds else tests_table
        print("\n".join(table(first, other)))


def open_systems(cards: str, split: str) -> list[Seeds]:
    """Reads the cards of each system.

    Raises UserError for fewer than two cards, or a location without a card.
    """
    systems: list[Seeds] = []
    for separator, location in cli_inputs.split_places(cards, ",+"):
        if separator != "+":
            systems.append([])
        systems[-1].append(open_card(location, split))
    if sum(map(len, systems)) < 2:
        raise UserError(
            "--cards names fewer than two cards: A,B compares systems, A+B are seeds"
        )
    for seeds in systems:
        paths = [card.path.resolve() for card in seeds]
        if repeated := [path for path in paths if paths.count(path) > 1]:
            raise UserError(
                f"--cards names {repeated[0]} twice as a seed of one system"
            )
    return systems


def check_protocols(systems: list[Seeds], *, force: bool) -> list[str]:
    """Lists protocol differences. Raises UserError if there are any, unless forced."""
    differences = protocol_differences([card for system in systems for card in system])
    if differences and not force:
        raise UserError(
            f"Cards with different protocols are not comparable: "
            f"{shorten(differences)}. Score both alike, or set --force"
        )
    return differences


def shorten(differences: Sequence[str]) -> str:
    """Joins the first differences, and the number of others."""
    others = len(differences) - SHOWN
    more = [f"and {others} more"] if others > 0 else []
    return "; ".join([*differences[:SHOWN], *more])


def seeds_table(systems: list[Seeds]) -> list[str]:
    """Formats a line for each system and score: mean, deviation, number of seeds."""
    lines = [f"{systems[0][0].content['split']} split"]
    for system in systems:
        lines.append(name_seeds(system))
        for name, (mean, deviation) in seed_statistics(system).items():
            spread = "" if deviation is None else f" ± {deviation:.4f}"
            count = f" over {len(system)} seeds" if len(system) > 1 else ""
            lines.append(f"  {name:21} {mean:10.4f}{spread}{count}")
    return lines


def seeds_tests_table(first: Seeds, second: Seeds) -> list[str]:
    """Formats a line for each score: difference of means, p value, 95% interval."""
    lines = [f"{name_seeds(second)} minus {name_seeds(first)}, means over seeds"]
    lines.append("  {:21} {:>10} {:>12}".format("score", "difference", "p"))
    statistics, untested = card_statistics([*second, *first])
    sizes = {"second": len(second), "first": len(first)}
    for name, scores in statistics.items():
        try:
            [found] = compare_systems(scores, sizes).values()
        except UserError as error:  # too few blocks
            untested = [*untested, f"{name}: {error}"]
            continue
        interval = f"[{found.low:+.4f}, {found.high:+.4f}]"
        lines.append(f"  {name:21} {found.value:+10.4f} {found.p:12.4f}  {interval}")
    return lines + [f"  not tested: {reason}" for reason in untested]


def name_seeds(system: Seeds) -> str:
    """Returns the cards of a system."""
    return " + ".join(str(card.path) for card in system)


def tests_table(first: Seeds, second: Seeds) -> list[str]:
    """Formats a line for each score: difference, p values, 95% interval."""
    lines = [f"{name_seeds(second)} minus {name_seeds(first)}"]
    title = ("score", "difference", "bootstrap p", "randomisation p")
    lines.append("  {:21} {:>10} {:>12} {:>16}".format(*title))
    tests, untested = compare_cards(first[0], second[0])
    for name, test in tests.items():
        p = "too few" if test.bootstrap is None else f"{test.bootstrap:.4f}"
        interval = (
            "  [{:+.4f}, {:+.4f}]".format(*test.interval) if test.interval else ""
        )
        line = (
            f"  {name:21} {test.difference:+10.4f} {p:>12} {test.randomisation:16.4f}"
        )
        lines.append(line + interval)
    return lines + [f"  not tested: {reason}" for reason in untested]


if __name__ == "__main__":
    cli.run_main(main)
