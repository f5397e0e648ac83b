"""Trains the experiment of a config file; the same command again resumes.

python train.py --config=configs/cldr.py:rnn --workdir=runs/rnn
python train.py --config=configs/cldr.py:rnn --plan
"""

from absl import flags
from ml_collections import config_flags

import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")
PLAN = flags.DEFINE_bool("plan", False, "Print the parameters; train nothing.")


def main() -> int:
    """Exit code 75 when a signal stopped the run."""
    import experiment

    if CONFIG.value is None:
        cli.fail("flag --config=configs/DATA.py:MODEL is missing")
    if PLAN.value:
        from analysis import plan

        print(plan.table(CONFIG.value))
        return 0
    if WORKDIR.value is None:
        cli.fail("flag --workdir=DIR is missing: where shall the run be kept?")
    return 0 if experiment.train(CONFIG.value, WORKDIR.value) else cli.STOPPED


if __name__ == "__main__":
    cli.start(main)
