"""Runs a sweep: one training run for each point of a search space.

python sweep.py --config=configs/cldr.py:rnn --space=configs/sweeps/learning_rate.py \
    --workdir=runs/sweep --workers=2

The same command resumes an interrupted sweep. Started several times, on one machine or
on several that share --workdir, a folder on a disk or in a bucket, it is one sweep.
--status --workdir=DIR prints its trials.
"""

from absl import flags
from ml_collections import config_flags

from sweeps import launch
from utils import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "Run whose encoder, sizes and vocabulary trials start from."
)
SPACE = flags.DEFINE_string("space", None, "Search space: configs/sweeps/NAME.py.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the sweep, on a disk or in a bucket (gs://...)."
)
TRIALS = flags.DEFINE_integer("trials", None, "Number of trials; default: the space's.")
WORKERS = flags.DEFINE_integer(
    "workers", 1, "Number of trials at once, on equal parts of the devices."
)
POPULATION = flags.DEFINE_integer(
    "population", 1, "Number of trials that a worker trains as one program."
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the trials; train nothing.")
PLACEMENT = flags.DEFINE_enum(
    "placement",
    "chip",
    ["chip", "slice"],
    "Give each worker an equal share of this machine's chips, or each trial all hosts "
    "of a TPU slice, or all of --num_processes.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "With --placement=slice: HOST:PORT of process 0."
)
PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --placement=slice: number of processes."
)
PROCESS = flags.DEFINE_integer(
    "process_id", None, "With --placement=slice: index of this process."
)
STATUS = flags.DEFINE_bool(
    "status", False, "Print the trials of the sweep in --workdir, and what they cost."
)


def main() -> int:
    """Returns exit code 0 when all trials have ended, 75 after a signal."""
    if STATUS.value:
        launch.print_status(workdir())
        return 0
    for name, flag in {"config": CONFIG, "space": SPACE}.items():
        if flag.value is None:
            cli.fail(f"flag --{name}=FILE is missing")
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    given = cli.overrides(CONFIG)
    if PRETRAINED.value is not None:
        from experiment.pretrained import pretrained_settings

        given = pretrained_settings(CONFIG.value, PRETRAINED.value, None, given)
    plan = launch.make_plan(file, given, SPACE.value, TRIALS.value)
    group = None
    if PLACEMENT.value == "slice":
        address = COORDINATOR.value, PROCESSES.value, PROCESS.value
        group = launch.Slice.from_environment(*address)
    placement = launch.Placement(WORKERS.value, POPULATION.value, group)
    if DRY_RUN.value:
        launch.check_plan(plan)
        print(plan.table(str(placement)))
        return 0
    return launch.run(plan, workdir(), placement)


def workdir() -> str:
    """Returns the folder of the sweep, a flag that only --dry_run does not need."""
    if WORKDIR.value is None:
        cli.fail("flag --workdir=DIR is missing: the folder of the sweep")
    return WORKDIR.value


if __name__ == "__main__":
    cli.run_main(main)
