"""How fast batches are made, ours and by PyTorch's DataLoader, in turn.

python -m benchmarks.data

Sentences of all lengths in buckets, and text in parallel streams; one process and no
thread ahead, tokens already numbers, as both systems read a corpus that was encoded
before. A step is `batches`. Ours has to be faster than a device asks for them: see
the training step's tokens per second beside `tokens_per_second` here.
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
    """The options; argparse refuses what is none with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(CORPORA))
    add_options(parser)
    options = checked(parser, arguments)
    options.kinds = choices(parser, "kinds", options.kinds, list(CORPORA))
    return options


def main() -> int:
    """JSON lines; exit code 1 where ours could not be measured."""
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
