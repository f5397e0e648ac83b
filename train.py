"""Trains the experiment of a config file; the same command again resumes.

python train.py --config=configs/cldr.py:rnn --workdir=runs/rnn
python train.py --config=configs/cldr.py:rnn --plan --target=v5e:2x2

Several processes are one run on all their devices: on TPU pods, under Slurm and
Kubernetes they find each other; elsewhere each is given --coordinator,
--num_processes and its own --process_id.
"""

from absl import flags
from ml_collections import config_flags

from utils import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")
PLAN = flags.DEFINE_bool("plan", False, "Print what a run takes; train nothing.")
TARGET = flags.DEFINE_string(
    "target", None, "With --plan: compile for such devices (v5e:4x4, h100:8, cpu)."
)
DEVICES = flags.DEFINE_integer("devices", None, "With --plan: on how many.")
DEVICE_MEMORY = flags.DEFINE_float("device_memory", None, "With --plan: GB of each.")
REPLAY = flags.DEFINE_string(
    "replay", None, "Look at batches that a run kept because they were not finite."
)
PROFILE = flags.DEFINE_string("profile", None, "FROM:TO, steps to write a trace of.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
PROCESS = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")


def main() -> int:
    """Exit code 75 when a signal stopped the run, 3 when its own guard did."""
    if REPLAY.value:
        from analysis import replay

        print(replay.table(workdir(), REPLAY.value))
        return 0
    if CONFIG.value is None:
        cli.fail("flag --config=configs/DATA.py:MODEL is missing")
    if PLAN.value:
        from analysis.plan import report

        asked = DEVICES.value, DEVICE_MEMORY.value, TARGET.value
        print(report.report(CONFIG.value, *asked))
        return 0
    from experiment import train

    config = train.DistributedConfig(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    return train.train(CONFIG.value, workdir(), config, PROFILE.value)


def workdir() -> str:
    """The run directory, which must be given."""
    if WORKDIR.value is None:
        cli.fail("flag --workdir=DIR is missing: where shall the run be kept?")
    return WORKDIR.value


if __name__ == "__main__":
    cli.run_main(main)
