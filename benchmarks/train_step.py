"""How long a training step takes, ours and that of other libraries, in turn.

python -m benchmarks.train_step --work=small,base,xl_small,rnn_small

A step is forwards, backwards and update, dropout on, random data without padding.
Each subject is a process of its own, and peers have an environment of their own
(`make setup-bench`); one that is not installed is named. A JSON line a subject, and
a summary a work: how many times as fast as the fastest peer, and whether that is the
goal. Flax's own WMT example is no package, so it is not among the peers.
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

PEERS = {  # by the model of a work: names, and modules of benchmarks/peers
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
    """Of all subjects, ours first."""
    flags = [f"--work={work.name}", *(["--tiny"] if options.tiny else [])]
    flags.append(f"--dtype={options.dtype}")
    found = ours("train", *flags)
    for name, (module, *more) in PEERS[work.model].items():
        found[name] = peer(options.peers, module, *more, *flags)
    return chosen(found, options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; argparse refuses what is none with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=",".join(USUAL), help=", ".join(WORKS))
    parser.add_argument("--dtype", default="float32", help="of what is computed")
    add_options(parser)
    options = checked(parser, arguments)
    options.work = choices(parser, "work", options.work, list(WORKS))
    return options


def main() -> int:
    """JSON lines; exit code 1 where ours could not be measured."""
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
