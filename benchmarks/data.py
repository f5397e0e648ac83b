"""Time to make batches, ours and PyTorch's DataLoader, measured in turn.

python -m benchmarks.data

Sentences of all lengths in buckets, and text in parallel streams, in one process
without prefetching, from token ids. A step makes `batches` batches. Compare
`tokens_per_second` with that of the training step.
"""

import argparse
import sys

from benchmarks.harness.comparison import (
    OURS,
    add_options,
    checked,
    choices,
    chosen,
    compare,
    peer,
)
from benchmarks.harness.workloads import CORPORA


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(CORPORA))
    add_options(parser)
    options = checked(parser, arguments)
    options.kinds = choices(parser, "kinds", options.kinds, list(CORPORA))
    return options


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    ending = 0
    for kind in options.kinds:
        corpus = CORPORA[kind].shrunk() if options.tiny else CORPORA[kind]
        flags = [f"--kind={kind}", *(["--tiny"] if options.tiny else [])]
        commands = {
            OURS: [sys.executable, "-m", "benchmarks.harness.our_batches", *flags],
            "torch_loader": peer(options.peers, "torch_loader", *flags),
        }
        about = {"benchmark": "data", "kind": kind, "batches": corpus.batches}
        found = chosen(commands, options)
        summary = compare(about, found, [], None, (), options)
        ending |= OURS in summary["missing"]
    return ending


if __name__ == "__main__":
    sys.exit(main())
