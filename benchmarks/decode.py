"""How long a search takes, ours and that of other libraries, in turn.

python -m benchmarks.decode --beams=1,4

The small encoder-decoder of the harness, with random parameters, translates a
batch of full sources into exactly as many tokens, greedily and with a beam of 4, with
a cache. A JSON line a subject and a summary a beam, as benchmarks/train_step.py.

A last line a beam says how much of the work ours avoids where sentences differ in
length: `avoidable` is the share of tokens that a batch of full rows would compute for
nothing, `avoided` the share of its time that is saved.
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
    """Of all subjects, ours first."""
    flags = [f"--work={WORK}", f"--beam={beam}"]
    flags += ["--tiny"] if options.tiny else []
    found = ours("decode", *flags, f"--dtype={options.dtype}")
    found["marian"] = peer(options.peers, "marian", "decode", *flags)
    return chosen(found, options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; argparse refuses what is none with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beams", default="1,4", help="1 is greedy")
    parser.add_argument("--dtype", default="float32", help="of what ours computes")
    add_options(parser, steps=4)
    options = checked(parser, arguments)
    try:
        options.beams = [int(beam) for beam in options.beams.split(",")]
    except ValueError:
        parser.error(f"--beams={options.beams}: whole numbers are needed")
    if min(options.beams) < 1:
        parser.error(f"--beams={options.beams}: at least 1 is needed")
    return options


def main() -> int:
    """JSON lines; exit code 1 where ours could not be measured."""
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
    """Prints how long ours takes for sentences of many lengths, and what that saves.

    Args:
      full: seconds of a batch of full rows.
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
