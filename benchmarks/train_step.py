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

from benchmarks.harness import cli, comparison
from benchmarks.harness.comparison import FASTEST, OURS, compare
from benchmarks.harness.workloads import WORKS, Work, select, training_products
from utils.cli import exit_with

ORIGINAL = "original"  # the authors' Transformer-XL
PEERS = {  # by model: names, modules of benchmarks/peers and their flags
    "transformer": {
        "torch_sdpa": ("torch_encoder_decoder",),
        "marian": ("marian", "train"),
        "opennmt": ("opennmt",),
    },
    "transformer_xl": {
        "x_transformers": ("x_transformers_xl",),
        ORIGINAL: ("transfo_xl",),
    },
    "rnn": {"torch_gru": ("torch_recurrent",)},
}
GOALS = {
    "small": {FASTEST: 1.25},
    "base": {FASTEST: 1.05},
    "xl_small": {FASTEST: 1.15, ORIGINAL: 3.5},
    "rnn_small": {FASTEST: 1.4},
    "rnnsearch": {FASTEST: 5.0},  # on accelerators
}


def commands(work: Work, options: argparse.Namespace) -> comparison.Commands:
    """Returns the command of every system, ours first."""
    flags = (f"--work={work.name}", f"--dtype={options.dtype}")
    peers = {name: (*peer, *flags) for name, peer in PEERS[work.model].items()}
    return comparison.select_commands(options, ("subjects", "train", *flags), peers)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = comparison.make_parser(__doc__)
    parser.add_argument(
        "--work",
        type=cli.names_in(WORKS),
        default="small,base,xl_small,rnn_small",
        help=", ".join(WORKS),
    )
    parser.add_argument("--dtype", default="float32", help="of what is computed")
    return comparison.parse_options(parser, arguments)


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    exit_code = 0
    for name in options.work:
        work = select(WORKS, name, options.tiny)
        about = {"benchmark": "train_step", "work": name, "dtype": options.dtype}
        products = training_products(work)
        systems = commands(work, options)
        summary = compare(about, systems, products, work.tokens, GOALS[name], options)
        exit_code |= OURS in summary["missing"]
    return exit_code


if __name__ == "__main__":
    exit_with(main)
