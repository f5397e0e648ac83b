"""Trials per hour: a population of K trials against the same trials one by one.

python -m benchmarks.population --members=16

Both train a language model on random tokens with the step of train.py. Trials differ in
learning rate, dropout, label smoothing and seed. Steps of the two are timed in turn and
medians are reported. In the JSON line `speedup` is that of a step and `with_compiling`
that of trials of `--steps` steps, compilation included. The goal on a GPU is 5 at K=16.
"""

import argparse
import functools
import statistics
import sys

import jax
from ml_collections import ConfigDict

from benchmarks.harness import cli
from benchmarks.harness.protocol import seconds_of
from benchmarks.harness.random_corpora import Text, words
from benchmarks.harness.training import TrainingStep
from configs import base
from experiment.build import build_experiment
from experiment.setup import TrainingSetup
from sweeps.population import Population
from training.profiling.environment import environment_info
from training.vmapped_trials.partitioner import VmappedPartitioner
from training.vmapped_trials.step import trial_mask, varying_values
from utils.allocator import tune_allocator
from utils.cli import exit_with

GOAL = 5.0  # times as many trials an hour, on a GPU


def configs(options: argparse.Namespace) -> list[ConfigDict]:
    """Returns the config of every trial."""
    found = []
    for k in range(options.members):
        cfg = base.get_config(options.model)
        cfg.task = "language_modeling"
        keys = (key for key in (*cli.TINY, "dtype") if key in cfg.model)
        cfg.model.update({key: getattr(options, key) for key in keys})
        cfg.model.dropout = 0.1 + 0.01 * k
        cfg.label_smoothing = 0.01 * k
        cfg.optim.lr = 1e-4 * (1 + k)
        cfg.seed = k
        found.append(cfg)
    return found


def training(cfg: ConfigDict, options: argparse.Namespace) -> TrainingSetup:
    """Returns the training set-up of one trial on the first device."""
    shared = build_experiment(cfg, {"text": words(options.vocabulary)})
    dataset = Text(options.rows, options.length, options.vocabulary)
    return TrainingSetup.from_experiment(shared, dataset, devices=jax.devices()[:1])


class Together(TrainingStep):
    """Vmapped training step of all trials."""

    def __init__(self, members: list[ConfigDict], options: argparse.Namespace):
        partitioner = VmappedPartitioner(len(members))
        shared = training(members[0], options)
        population = Population(shared, varying_values(members), partitioner)
        self.state, self.carry = population.init()
        active = partitioner.put(trial_mask(range(len(members)), len(members)))
        self.compiled = functools.partial(population.compiled_step(), active)
        self.batches, self.number = [population.batch(0)], 0
        self.devices = partitioner.mesh.size


def measured(options: argparse.Namespace) -> dict:
    """Measures both and returns the JSON line."""
    members = configs(options)
    alone = TrainingStep(training(members[0], options))
    together = Together(members, options)
    compiling = [seconds_of(subject.step) for subject in (alone, together)]
    laps = [
        (seconds_of(alone.step), seconds_of(together.step))
        for _ in range(options.repeats)
    ]
    one, all_of_them = (statistics.median(row) for row in zip(*laps, strict=True))
    count, steps = options.members, options.steps
    # As many trials at once as there are devices, each on one.
    whole = [
        count * (compiling[0] + steps * one) / together.devices,
        compiling[1] + steps * all_of_them,
    ]
    hourly = [3600 * count / each for each in whole]
    return {
        "step_seconds": {"alone": one, "together": all_of_them},
        "first_step_seconds": {"alone": compiling[0], "together": compiling[1]},
        "trials_an_hour": {"alone": hourly[0], "together": hourly[1]},
        "speedup": count * one / all_of_them / together.devices,
        "with_compiling": hourly[1] / hourly[0],
        "goal": GOAL if jax.devices()[0].platform == "gpu" else None,
        "devices_used": together.devices,
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    sizes = {"layers": 4, "width": 256, "heads": 4, "feed_forward": 1024}
    sizes |= {"rows": 16, "length": 128, "vocabulary": 4096}
    parser = cli.make_parser(__doc__, **sizes)
    parser.add_argument("--members", type=cli.positive, default=16, help="K")
    parser.add_argument("--model", default="transformer")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=cli.positive, default=10_000, help="of a trial")
    parser.add_argument("--repeats", type=cli.positive, default=20, help="timed steps")
    tiny = {**cli.TINY, "rows": 2, "length": 8, "vocabulary": 16}
    return cli.parse_options(parser, arguments, **tiny)


def main() -> int:
    """Prints one JSON line."""
    options = parse(sys.argv[1:])
    about = {"benchmark": "population", **vars(options)}
    return cli.print_lines([{**about, **measured(options), **environment_info()}])


if __name__ == "__main__":
    tune_allocator()
    exit_with(main)
