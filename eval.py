"""Scores a run on a split and writes the score card eval/<split>-<step>.json.

python eval.py --workdir=runs/rnn --split=test
python eval.py --workdir=runs/rnn --split=validation --follow

The data is taken from where the run read it last, or from --data.dir, --data.source_dir
and --data.cache_dir. --data.unseen_labels=count scores labels that training lacks;
--data.reference_columns="('COLUMN',)" adds references.
"""

import contextlib
from pathlib import Path

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.paths import DATA_PLACES

DEFAULTS = base.get_config()
CHANGEABLE = (*DATA_PLACES, "unseen_labels", "reference_columns")
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
SPLIT = flags.DEFINE_string("split", "test", "Split to score.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "best, last, a step, or average:N."
)
FOLLOW = flags.DEFINE_bool(
    "follow", False, "Score each checkpoint while the run trains, until it ends."
)
DATA = cli_inputs.config_section("data", DEFAULTS.data, CHANGEABLE)
DECODE = cli_inputs.config_section("decode", DEFAULTS.decode)
EVAL = cli_inputs.config_section("eval", DEFAULTS.eval)


def main() -> None:
    """Scores the run and prints each score card as a table."""
    from experiment import follow, inference, restore

    sections = {"data": DATA, "decode": DECODE, "eval": EVAL}
    changes = {name: cli.overrides(section) for name, section in sections.items()}
    if not FOLLOW.value:
        run = restore.open_run(WORKDIR.value, CHECKPOINT.value, changes)
        show(run, *inference.evaluate(run, SPLIT.value))
        return
    if flags.FLAGS["checkpoint"].present:
        cli.fail(
            f"--checkpoint={CHECKPOINT.value} and --follow exclude each other: "
            "--follow scores each checkpoint"
        )
    with contextlib.suppress(KeyboardInterrupt):
        for result in follow.follow(WORKDIR.value, SPLIT.value, changes):
            show(*result)


def show(run, card: dict, path: Path | None) -> None:
    """Prints a score card as a table, and draws the attention of a sample."""
    from analysis.attention import render

    print(f"{card['split']} at step {card['step']}")
    for name, score in card["scores"].items():
        interval = ""
        if "low" in score:
            interval = f"  [{score['low']:.4f}, {score['high']:.4f}]"
        print(f"  {name:22} {score['value']:10.4f}{interval}")
    for baseline, scores in card["baselines"].items():
        named = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"  baseline: {baseline:18} {named}")
    if path is None:  # a run directory that cannot be written
        return
    if picture := render.write_sample_map(run, card["split"]):
        print(picture)
    print(path, flush=True)


if __name__ == "__main__":
    cli.run_main(main)
