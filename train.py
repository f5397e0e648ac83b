r"""Trains the experiment of a config file; the same command again resumes.

python train.py --config=configs/cldr.py:rnn --workdir=runs/rnn
python train.py --config=configs/cldr.py:rnn --print_config
python train.py --config=configs/cldr.py:rnn --plan --target=v5e:2x2
python train.py --config=configs/classification/labeled_text.py:rnn \
    --workdir=runs/reviews --config.data.source_dir=reviews --pretrained=runs/books

Several processes train one run on all their devices. They find each other on TPU pods,
under Slurm and Kubernetes; elsewhere each one needs --coordinator, --num_processes and
its own --process_id.
"""

from absl import flags
from ml_collections import config_flags

from utils.cli import fail, overrides, run_main

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")
PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "Run whose encoder, sizes and vocabulary to start from."
)
PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "Print every key, what differs, its meaning; train nothing."
)
PLAN = flags.DEFINE_bool(
    "plan", False, "Print the memory that a run needs; train nothing."
)
TARGET = flags.DEFINE_string(
    "target", None, "With --plan: devices to compile for (v5e:4x4, h100:8, cpu)."
)
DEVICES = flags.DEFINE_integer("devices", None, "With --plan: number of devices.")
DEVICE_MEMORY = flags.DEFINE_float(
    "device_memory", None, "With --plan: GB of each device."
)
PROFILE = flags.DEFINE_string("profile", None, "FROM:TO, steps to trace.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
PROCESS = flags.DEFINE_integer("process_id", None, "Index of this process.")


def main() -> int:
    """Returns the exit code: 0 finished, 75 by a signal, 3 not finite, 4 a spike."""
    if CONFIG.value is None:
        fail("flag --config=configs/DATA.py:MODEL is missing")
    if PRETRAINED.value is not None:
        from experiment.pretrained import adopt_settings

        given = overrides(CONFIG)
        adopt_settings(CONFIG.value, PRETRAINED.value, WORKDIR.value, given)
    if PRINT_CONFIG.value:
        from analysis import config_keys

        print(config_keys.format_config(CONFIG.value))
        return 0
    if PLAN.value:
        from analysis.plan import report

        options = DEVICES.value, DEVICE_MEMORY.value, TARGET.value
        print(report.report(CONFIG.value, *options))
        return 0
    from experiment.train import DistributedConfig, train

    config = DistributedConfig(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    return train(CONFIG.value, workdir(), config, PROFILE.value)


def workdir() -> str:
    """Returns the run directory, a flag that training needs."""
    if WORKDIR.value is None:
        fail("flag --workdir=DIR is missing: name the run directory")
    return WORKDIR.value


if __name__ == "__main__":
    run_main(main)
