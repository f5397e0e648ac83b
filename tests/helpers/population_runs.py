"""Trials of a population and the same runs alone: a program of its own for float64.

    python tests/helpers/population_runs.py fast|all

It prints one JSON object of largest relative differences.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)
sys.path.append(str(ROOT / "tests"))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from analysis.plan.step import dummy_tokenizers  # noqa: E402
from experiment import build  # noqa: E402
from experiment.setup import TrainingSetup  # noqa: E402
from helpers import (  # noqa: E402
    parallel_runs,  # sets float64 and 8 virtual devices, before the first is used
)
from sweeps.population import Population  # noqa: E402
from training.optim.optimizers import make_optimizer  # noqa: E402
from training.parallel.partitioner import make_partitioner  # noqa: E402
from training.vmapped_trials.partitioner import VmappedPartitioner  # noqa: E402
from training.vmapped_trials.step import trial_mask, varying_values  # noqa: E402

STEPS = 40
CHANGES = {
    "seed": [0, 1, 2, 2],
    "label_smoothing": [0.0, 0.1, 0.2, 0.1],
    "model.dropout": [0.1, 0.0, 0.3, 0.1],
    "optim.lr": [3e-3, 1e-3, 3e-3, 5e-3],
    "optim.weight_decay": [0.0, 0.1, 0.0, 0.01],
    "optim.warmup": [0, 4, 2, 4],
    "optim.final_lr_ratio": [0.0, 0.1, 0.5, 0.0],
}
OF_MODELS = {
    "rnn": {"model.dropout_input": [0.2, 0.1, 0.0, 0.1]},
    "transformer": {
        "model.attention_dropout": [0.1, 0.1, 0.0, 0.2],
        "model.feed_forward_dropout": [0.0, 0.1, 0.0, 0.3],
    },
    "transformer_xl": {"model.attention_dropout": [0.1, 0.1, 0.0, 0.2]},
}


def configs(task, model, dtype, count):
    base = parallel_runs.config(task, model, "adamw", dtype)
    found = []
    for k in range(count):
        cfg = base.copy_and_resolve_references()
        rows = CHANGES | OF_MODELS[model]
        cfg.update_from_flattened_dict({key: row[k] for key, row in rows.items()})
        cfg.optim.schedule = "linear"
        found.append(cfg)
    return found


def training(cfg):
    """Alone, on the first device."""
    experiment = build.build_experiment(cfg, dummy_tokenizers(cfg))
    devices = jax.devices()[:1]
    partitioner = make_partitioner(cfg.parallel, devices=devices)
    batches = parallel_runs.Batches(cfg.task)
    made = experiment, partitioner, batches, *make_optimizer(cfg.optim, STEPS, width=16)
    return TrainingSetup(*made, STEPS)


def alone(cfg, steps):
    """Losses and the parameters after them."""
    one = training(cfg)
    state, carry = one.partitioner.init(one.make_state), one.make_carry()
    step, told = one.compiled_step(state, carry), []
    for k in range(steps):
        state, carry, pairs = step(state, carry, one.batch(k))
        told.append(float(pairs["loss"][0]) / float(pairs["loss"][1]))
    return told, jax.device_get(state.params)


class Together:
    """A population; its step is compiled once."""

    def __init__(self, trials, devices):
        self.count = len(trials)
        partitioner = VmappedPartitioner(self.count, jax.devices()[:devices])
        numbers = varying_values(trials)
        self.population = Population(training(trials[0]), numbers, partitioner)
        self.step = self.population.compiled_step()
        first = self.population.init()
        self.first = jax.device_get(first)  # a step donates what it is given
        self.shardings = jax.tree.map(lambda leaf: leaf.sharding, first)

    def run(self, steps, active=None, broken=()):
        """Losses [steps, K] and the state.

        Args:
          active: trials that train; None: all.
          broken: trials whose parameters are no numbers.
        """
        state, carry = jax.device_put(self.first, self.shardings)
        active = range(self.count) if active is None else active
        flags = self.population.partitioner.put(trial_mask(list(active), self.count))
        for k in broken:
            params = jax.tree.map(lambda x, k=k: x.at[k].set(jnp.nan), state.params)
            state = state.replace(params=self.population.partitioner.put(params))
        told, skipped = [], []
        for k in range(steps):
            batch = self.population.batch(k)
            state, carry, pairs = self.step(flags, state, carry, batch)
            value, weight = jax.device_get(pairs["loss"])
            told.append(value / np.maximum(weight, 1e-9))
            skipped.append(np.asarray(pairs["nonfinite_steps"][0]))
        assert self.step.func._cache_size() == 1
        return np.stack(told), np.stack(skipped), state


def compared(together, trials, steps, numbers):
    """The largest relative difference of a loss, and of a parameter.

    Args:
      numbers: the trials that are compared with their runs alone.
    """
    losses, _, state = together.run(steps)
    assert len({row[-1] for row in losses.T}) == len(trials)  # no two are alike
    found = {"loss": 0.0, "parameters": 0.0}
    for k in numbers:
        alone_losses, params = alone(trials[k], steps)
        relative = np.abs(losses[:, k] - alone_losses) / np.abs(alone_losses)
        found["loss"] = max(found["loss"], float(relative.max()))
        mine = jax.device_get(together.population.partitioner.trial(state.params, k))
        gap = parallel_runs.difference(mine, params)
        found["parameters"] = max(found["parameters"], float(gap))
    return found


def undisturbed(together):
    """What a trial has beside one that diverges and one that has ended."""
    losses, skipped, state = together.run(6)
    others, broken, after = together.run(6, active=(0, 2, 3), broken=(2,))
    same = jax.tree.map(
        lambda a, b: bool((a[0] == b[0]).all() and (a[3] == b[3]).all()), state, after
    )
    first = together.first[0]
    still = jax.tree.map(lambda a, b: bool((a[1] == b[1]).all()), first, after)
    return {
        "losses": bool((losses[:, [0, 3]] == others[:, [0, 3]]).all()),
        "states": all(jax.tree.leaves(same)),
        "ended": all(jax.tree.leaves(still)),
        "skipped": [int(skipped.sum()), int(broken[:, 2].sum())],
        "steps": np.asarray(after.step).tolist(),
    }


def main(which):
    found = {}
    trials = configs("language_modeling", "transformer_xl", "float64", 4)
    xl = Together(trials, 2)
    numbers = (3,) if which == "fast" else range(4)  # 3 has a number that is zero
    found["float64"] = compared(xl, trials, 20, numbers)
    found["undisturbed"] = undisturbed(xl)
    if which == "all":
        with jax.enable_x64(False):
            trials = configs("translation", "rnn", "float32", 2)
            found["float32"] = compared(Together(trials, 1), trials, 5, (1,))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
