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

from benchmarks.harness.comparison import (
    OURS,
    Commands,
    add_options,
    checked,
    chosen,
    compare,
    ours,
    peer,
)
from benchmarks.harness.random_corpora import BATCHES
from benchmarks.harness.workloads import FASTEST, WORKS, decoding_products

GOALS = {1: ((FASTEST, 1.7),), 4: ((FASTEST, 2.2),)}
WORK = "small"


def commands(beam: int, options: argparse.Namespace) -> Commands:
    """Returns the command of every system, ours first."""
    flags = [f"--work={WORK}", f"--beam={beam}"]
    flags += ["--tiny"] if options.tiny else []
    found = ours("decode", *flags, f"--dtype={options.dtype}")
    found["marian"] = peer(options.peers, "marian", "decode", *flags)
    return chosen(found, options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beams", default="1,4", help="1 is greedy")
    parser.add_argument("--dtype", default="float32", help="of what ours computes")
    add_options(parser, steps=4)
    options = checked(parser, arguments)
    try:
        options.beams = [int(beam) for beam in options.beams.split(",")]
    except ValueError:
        parser.error(f"--beams={options.beams}: must be integers")
    if min(options.beams) < 1:
        parser.error(f"--beams={options.beams} must be at least 1")
    return options


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    work = WORKS[WORK].shrunk() if options.tiny else WORKS[WORK]
    ending = 0
    for beam in options.beams:
        about = {"benchmark": "decode", "work": WORK, "beam": beam}
        summary = compare(
            about,
            commands(beam, options),
            decoding_products(work, beam),
            work.tokens,
            GOALS.get(beam, ()),
            options,
        )
        ending |= OURS in summary["missing"]
        if OURS in summary["lines"]:
            avoid(beam, summary["lines"][OURS]["seconds"]["median"], options)
    return ending


def avoid(beam: int, full: float, options: argparse.Namespace) -> None:
    """Prints the time of our search over sentences of many lengths.

    Args:
      beam: beam size.
      full: seconds of a batch of full rows.
      options: command-line options.
    """
    found = {OURS: [*commands(beam, options)[OURS], "--varied"]}
    about = {"benchmark": "decode", "work": WORK, "beam": beam, "lengths": "varied"}
    summary = compare(about, found, [], None, (), options)
    if OURS not in summary["lines"]:
        return
    line = summary["lines"][OURS]
    saved = {
        "avoidable": 1 - line["needed"] / line["places"],
        "avoided": 1 - line["seconds"]["median"] / (BATCHES * full),
    }
    print(json.dumps(about | saved), flush=True)


if __name__ == "__main__":
    sys.exit(main())
