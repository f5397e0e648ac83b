"""Whether systems differ, and how far their seeds do.

python -m analysis.significance --cards=runs/a,runs/b --split=test
python -m analysis.significance --cards=runs/a1+runs/a2,runs/b1+runs/b2

A card is a file eval/<split>-<step>.json, or a run directory for its newest one. Commas
stand between systems, + between seeds of one. The first system is what others are
tested against, each by the first of its seeds: paired bootstrap and approximate
randomisation of BLEU, chrF and the loss. Over seeds stand mean and deviation.
"""

import statistics
import sys
from collections.abc import Sequence

from absl import flags

from analysis.paired_tests import Paired, compare_losses, compare_texts
from analysis.report.cards import Card, open_card, unlike
from utils import cli
from utils.errors import UserError

CARDS = flags.DEFINE_list(
    "cards", None, "Score cards or run directories.", required=True
)
SPLIT = flags.DEFINE_string("split", "test", "Of run directories, the split.")
FORCE = flags.DEFINE_bool("force", False, "Compare although protocols differ.")

System = list[Card]  # one run with several seeds


def main() -> None:
    """Prints the table of systems, then one of tests for each but the first."""
    systems = open_systems(CARDS.value, SPLIT.value)
    for line in differences(systems, force=FORCE.value):
        print(f"compared although {line}", file=sys.stderr)
    for line in seeds_table(systems):
        print(line)
    for other in systems[1:]:
        for line in pairs_table(systems[0][0], other[0]):
            print(line)


def open_systems(places: Sequence[str], split: str) -> list[System]:
    """The cards of each system.

    Raises UserError for fewer than two cards, or what is no card.
    """
    parts = [place.split("+") for place in places]
    systems = [[open_card(one, split) for one in part if one] for part in parts]
    systems = [system for system in systems if system]
    if sum(map(len, systems)) < 2:
        raise UserError(
            "--cards names fewer than two cards: A,B compares, A+B is seeds"
        )
    return systems


def differences(systems: list[System], *, force: bool) -> list[str]:
    """How the cards' protocols differ.

    Raises UserError if they do, unless forced.
    """
    found = unlike([card for system in systems for card in system])
    if found and not force:
        raise UserError(
            f"cards of unlike protocols do not compare: {'; '.join(found)}. "
            "Score both alike, or give --force"
        )
    return found


def seeds_table(systems: list[System]) -> list[str]:
    """A line a system and score: mean, deviation and number of seeds."""
    lines = [f"{systems[0][0].content['split']} split"]
    for system in systems:
        lines.append(" + ".join(str(card.path) for card in system))
        for name, (mean, deviation) in over_seeds(system).items():
            spread = "" if deviation is None else f" ± {deviation:.4f}"
            count = f" over {len(system)} seeds" if len(system) > 1 else ""
            lines.append(f"  {name:21} {mean:10.4f}{spread}{count}")
    return lines


def over_seeds(system: System) -> dict[str, tuple[float, float | None]]:
    """Mean and standard deviation (of a sample) of each score that all seeds have."""
    found = {}
    for name in system[0].values:
        values = [card.values[name] for card in system if name in card.values]
        if len(values) == len(system):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[name] = statistics.fmean(values), deviation
    return found


def pairs_table(first: Card, second: Card) -> list[str]:
    """A line a score: difference, p values, and an interval of the difference."""
    lines = [f"{second.path} less {first.path}"]
    title = ("score", "difference", "bootstrap p", "randomisation p")
    lines.append("  {:21} {:>10} {:>12} {:>16}".format(*title))
    tested, left_out = pairs_of(first, second)
    for name, found in tested.items():
        p = "too few" if found.bootstrap is None else f"{found.bootstrap:.4f}"
        line = f"  {name:21} {found.difference:+10.4f} {p:>12}"
        line += f" {found.randomisation:16.4f}"
        if found.interval:
            line += "  [{:+.4f}, {:+.4f}]".format(*found.interval)
        lines.append(line)
    return lines + [f"  not tested: {reason}" for reason in left_out]


def pairs_of(first: Card, second: Card) -> tuple[dict[str, Paired], list[str]]:
    """What can be paired, tested; and why the rest is not."""
    found, left_out = {}, []
    if first.hypotheses or second.hypotheses:
        if first.references and first.references == second.references:
            found |= compare_texts(
                first.hypotheses,
                second.hypotheses,
                first.references,
                tokenize=bleu_tokenizer(first),
            )
        else:
            left_out.append("bleu and chrf, for the cards have not the same references")
    if first.blocks is None or second.blocks is None:
        left_out.append("the loss, for a card has no sums beside it: run eval.py again")
    elif not same_tokens(first, second):
        left_out.append("the loss, for the cards are not of the same tokens")
    else:
        (one, weight), (other, _) = first.blocks, second.blocks
        found["loss"] = compare_losses(one, other, weight)
    return found, left_out


def same_tokens(first: Card, second: Card) -> bool:
    """Whether blocks pair: of one text, by one vocabulary, so many tokens in each."""
    hashes = [
        [card.settings.get(key) for key in ("split", "data", "vocabulary")]
        for card in (first, second)
    ]
    weights = [card.blocks[1].tolist() for card in (first, second)]
    return hashes[0] == hashes[1] and weights[0] == weights[1]


def bleu_tokenizer(card: Card) -> str:
    """sacrebleu's, from the signature on a card."""
    parts = card.content["protocol"]["bleu_signature"].split("|")
    return dict(part.split(":", 1) for part in parts)["tok"]


if __name__ == "__main__":
    cli.run_main(main)
