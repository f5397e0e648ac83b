"""Time of greedy and beam search, ours and other libraries, measured in turn.

python -m benchmarks.decode --beams=1,4

The small encoder-decoder of the harness, with random parameters, translates a batch of
full sources into exactly as many tokens, with a key/value cache. It prints a JSON line
per system and a summary per beam size, as benchmarks/train_step.py.

A last line per beam size is for sentences of different lengths: `avoidable` is the
fraction of tokens that are padding in a batch of full rows, `avoided` the fraction of
the time that our search saves.
"""

import argparse
import json
import sys

from benchmarks.harness import cli, comparison
from benchmarks.harness.comparison import FASTEST, OURS, compare
from benchmarks.harness.random_corpora import BATCHES
from benchmarks.harness.workloads import WORKS, decoding_products, select
from utils.cli import exit_with

GOALS = {1: {FASTEST: 1.7}, 4: {FASTEST: 2.2}}
WORK = "small"


def commands(beam: int, options: argparse.Namespace) -> comparison.Commands:
    """Returns the command of every system, ours first."""
    flags = ("decode", f"--work={WORK}", f"--beam={beam}")
    ours = ("subjects", *flags, f"--dtype={options.dtype}")
    return comparison.select_commands(options, ours, {"marian": ("marian", *flags)})


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = comparison.make_parser(__doc__, steps=4)
    parser.add_argument(
        "--beams", type=cli.positives, default="1,4", help="1 is greedy"
    )
    parser.add_argument("--dtype", default="float32", help="of what ours computes")
    return comparison.parse_options(parser, arguments)


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    work = select(WORKS, WORK, options.tiny)
    exit_code = 0
    for beam in options.beams:
        about = {"benchmark": "decode", "work": WORK, "beam": beam}
        systems, products = commands(beam, options), decoding_products(work, beam)
        goals = GOALS.get(beam, {})
        summary = compare(about, systems, products, work.tokens, goals, options)
        exit_code |= OURS in summary["missing"]
        if OURS in summary["lines"]:
            full = summary["lines"][OURS]["seconds"]["median"]
            compare_lengths(about | {"lengths": "varied"}, systems[OURS], full, options)
    return exit_code


def compare_lengths(
    about: dict, command: list[str], full: float, options: argparse.Namespace
) -> None:
    """Prints the time of our search over sentences of many lengths.

    Args:
      about: fields of every line.
      command: command of our search over full rows.
      full: seconds of a batch of full rows.
    """
    commands = {OURS: [*command, "--varied"]}
    lines = compare(about, commands, [], None, {}, options)["lines"]
    if OURS in lines:
        line = lines[OURS]
        saved = {
            "avoidable": 1 - line["needed"] / line["places"],
            "avoided": 1 - line["seconds"]["median"] / (BATCHES * full),
        }
        print(json.dumps(about | saved), flush=True)


if __name__ == "__main__":
    exit_with(main)
