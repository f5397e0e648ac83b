"""Translates or continues lines of standard input with a run's model.

python predict.py --workdir=runs/rnn < source.txt > output.txt
"""

import sys

from absl import flags

import cli
from configs import base

WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
DECODE = cli.config_section("decode", base.get_config().decode)


def main() -> None:
    """One line in, one line out."""
    import trained_run

    changes = {"decode": cli.overrides(DECODE)}
    run = trained_run.open_run(WORKDIR.value, CHECKPOINT.value, changes)
    for text in trained_run.predict(run, cli.lines_of(sys.stdin.buffer)):
        print(text, flush=True)


if __name__ == "__main__":
    cli.start(main)
