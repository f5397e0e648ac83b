"""Time to make batches, ours and PyTorch's DataLoader, measured in turn.

python -m benchmarks.data

Sentences of all lengths in buckets, and text in parallel streams, in one process
without prefetching, from token ids. A step makes `batches` batches. Compare
`tokens_per_second` with that of the training step.
"""

import argparse
import sys

from benchmarks.harness import cli, comparison
from benchmarks.harness.comparison import OURS, compare
from benchmarks.harness.workloads import CORPORA, select
from utils.cli import exit_with


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = comparison.make_parser(__doc__)
    parser.add_argument(
        "--kinds", type=cli.names_in(CORPORA), default=",".join(CORPORA)
    )
    return comparison.parse_options(parser, arguments)


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    exit_code = 0
    for kind in options.kinds:
        batches = select(CORPORA, kind, options.tiny).batches
        about = {"benchmark": "data", "kind": kind, "batches": batches}
        flag = f"--kind={kind}"
        peers = {"torch_loader": ("torch_loader", flag)}
        commands = comparison.select_commands(options, ("our_batches", flag), peers)
        summary = compare(about, commands, [], None, {}, options)
        exit_code |= OURS in summary["missing"]
    return exit_code


if __name__ == "__main__":
    exit_with(main)
