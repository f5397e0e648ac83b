"""Time of a training step, ours and other libraries, measured in turn.

python -m benchmarks.train_step --work=small,base,xl_small,rnn_small

A step is forward pass, backward pass and update, with dropout, on random data without
padding. Each system runs in a process of its own, other libraries in an environment of
their own (`make setup-bench`); a missing one is reported. It prints a JSON line per
system and a summary per workload: the speed relative to the fastest other system, and
whether the goal is reached.
"""

import argparse
import sys

from benchmarks.harness.comparison import (
    OURS,
    Commands,
    add_options,
    checked,
    choices,
    chosen,
    compare,
    ours,
    peer,
)
from benchmarks.harness.workloads import ORIGINAL, USUAL, WORKS, Work, training_products

PEERS = {  # by model: names and modules of benchmarks/peers
    "transformer": {
        "torch_sdpa": ("torch_encoder_decoder", "--variant=sdpa"),
        "torch_transformer": ("torch_encoder_decoder", "--variant=library"),
        "marian": ("marian", "train"),
        "opennmt": ("opennmt",),
    },
    "transformer_xl": {
        "x_transformers": ("x_transformers_xl",),
        ORIGINAL: ("transfo_xl",),
    },
    "rnn": {"torch_gru": ("torch_recurrent",)},
}


def commands(work: Work, options: argparse.Namespace) -> Commands:
    """Returns the command of every system, ours first."""
    flags = [f"--work={work.name}", *(["--tiny"] if options.tiny else [])]
    flags.append(f"--dtype={options.dtype}")
    found = ours("train", *flags)
    for name, (module, *more) in PEERS[work.model].items():
        found[name] = peer(options.peers, module, *more, *flags)
    return chosen(found, options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=",".join(USUAL), help=", ".join(WORKS))
    parser.add_argument("--dtype", default="float32", help="of what is computed")
    add_options(parser)
    options = checked(parser, arguments)
    options.work = choices(parser, "work", options.work, list(WORKS))
    return options


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    ending = 0
    for name in options.work:
        work = WORKS[name].shrunk() if options.tiny else WORKS[name]
        about = {"benchmark": "train_step", "work": name, "dtype": options.dtype}
        summary = compare(
            about,
            commands(work, options),
            training_products(work),
            work.tokens,
            work.goals,
            options,
        )
        ending |= OURS in summary["missing"]
    return ending


if __name__ == "__main__":
    sys.exit(main())
