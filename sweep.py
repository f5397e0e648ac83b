"""Many runs of one config: tries the points of a space; the same command goes on.

python sweep.py --config=configs/cldr.py:rnn --space=configs/sweeps/learning_rate.py \
    --workdir=runs/sweep --workers=2

Started several times, on one machine or on many that see the same --workdir, it is one
sweep. Where they do not see the same files, --storage=URL names a database.
"""

from absl import flags
from ml_collections import config_flags

from sweeps import launch
from utils import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
SPACE = flags.DEFINE_string("space", None, "What to try: configs/sweeps/NAME.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.")
TRIALS = flags.DEFINE_integer("trials", None, "How many; all points of the space.")
WORKERS = flags.DEFINE_integer("workers", 1, "Trials at once, which share the devices.")
POPULATION = flags.DEFINE_integer(
    "population", 1, "Trials that a worker trains together, if only numbers differ."
)
STORAGE = flags.DEFINE_string("storage", None, "SQLAlchemy URL instead of a file.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the trials; train nothing.")


def main() -> int:
    """Exit code 0 when all trials have ended, 75 when a signal stopped the sweep."""
    for name, flag in {"config": CONFIG, "space": SPACE}.items():
        if flag.value is None:
            cli.fail(f"flag --{name}=FILE is missing")
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    plan = launch.make_plan(file, cli.overrides(CONFIG), SPACE.value, TRIALS.value)
    if DRY_RUN.value:
        print(plan.table())
        return 0
    if WORKDIR.value is None:
        cli.fail("flag --workdir=DIR is missing: where shall the sweep be kept?")
    return launch.run(
        plan, WORKDIR.value, WORKERS.value, STORAGE.value, POPULATION.value
    )


if __name__ == "__main__":
    cli.run_main(main)
