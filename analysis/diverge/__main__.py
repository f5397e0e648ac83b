"""Finds the step at which two training runs part, and the reason.

python -m analysis.diverge runs/a runs/b
python -m analysis.diverge runs/a other_machine/fingerprints.jsonl

Compares configs, environments, logs, fingerprints (every.fingerprint) and checkpoints.
If records differ, both runs are replayed here, from the newest checkpoint at which
they are equal or from the first state, up to the step at which they differ. The
operations of that step are compared one by one.

Verdicts: equal, rounding, different data, different random numbers, different
parameters, different program. Exit code 0: equal; 1: different.
"""

import argparse
import sys

from utils import cli
from utils.allocator import tune_allocator
from utils.compilation_cache import enable_compilation_cache
from utils.paths import DATA_PLACES


def main() -> int:
    """Prints the report; returns exit code 1 unless the runs are equal."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.diverge", description=__doc__.partition("\n")[0]
    )
    runs = "run directory, or fingerprints.jsonl of one"
    parser.add_argument("a", metavar="A", help=runs)
    parser.add_argument("b", metavar="B", help=runs)
    parser.add_argument(
        "--max_replay_steps", type=int, default=1000, help="steps to replay at most"
    )
    for key in DATA_PLACES:
        parser.add_argument(f"--data.{key}", help="folder of the data, if it has moved")
    parser.error = cli.fail
    options = parser.parse_args()
    given = {key: getattr(options, f"data.{key}") for key in DATA_PLACES}
    places = {key: place for key, place in given.items() if place is not None}
    if "jax" not in sys.modules:  # otherwise another program called this one
        tune_allocator()
        enable_compilation_cache()
    from analysis.diverge.compare import compare_runs
    from analysis.diverge.report import format_report
    from analysis.diverge.verdict import EQUAL, judge

    names = options.a, options.b
    evidence, notes = compare_runs(*names, options.max_replay_steps, places)
    print(format_report(evidence, names, notes))
    return 0 if judge(evidence).kind == EQUAL else 1


if __name__ == "__main__":
    cli.exit_with(main)
