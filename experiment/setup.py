"""All that an experiment needs to make steps: what train.py and sweeps run."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from data.dataset import Dataset
from experiment.build import Experiment
from training.optim.optimizers import make_optimizer
from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner
from training.parallel.partitioning import make_partitioner
from training.profiling.flops import StepFlops
from training.step import Step, TrainState, make_state, make_step


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """All that is needed to make steps, but for the state.

    Attributes:
      batches: numbered; of no use to the step itself.
      steps: the one that is the last.
    """

    experiment: Experiment
    partitioner: JitPartitioner
    batches: Any
    optimizer: Any
    schedule: Any
    steps: int

    @classmethod
    def from_experiment(
        cls, experiment: Experiment, dataset: Dataset, devices: Devices = None
    ) -> "TrainingSetup":
        """The training that a config describes, on all devices or these."""
        cfg = experiment.cfg
        batches = dataset.train_batches()
        steps = cfg.steps
        if cfg.epochs:
            steps = math.ceil(cfg.epochs * batches.epoch_length)
        width = cfg.model.width
        optimizer, schedule = make_optimizer(cfg.optim, steps, width=width)
        partitioner = make_partitioner(
            cfg.parallel, num_microbatches=cfg.grad_accum_steps, devices=devices
        )
        return cls(experiment, partitioner, batches, optimizer, schedule, steps)

    def loss(self, variables: PyTree, carry: PyTree, batch: PyTree, rng):
        """Pairs (sum, weight) and the next carry."""
        task, model = self.experiment.task, self.experiment.model
        return task.loss(model, variables, carry, batch, rng, train=True)

    def make_state(self) -> TrainState:
        """The first state, parameters with the names of their axes."""
        cfg, task = self.experiment.cfg, self.experiment.task
        batch = jax.tree.map(jnp.asarray, self.batches[0])
        variables = task.init(self.experiment.model, jax.random.key(cfg.seed), batch)
        return make_state(
            variables["params"], self.optimizer, ema_decay=cfg.optim.ema_decay
        )

    @property
    def rows(self) -> int:
        """Of a carry; what has none lasts for one batch alone."""
        return getattr(self.batches, "batch_size", 1)

    def initial_carry(self, rows: int) -> PyTree:
        """What the first batch of so many rows finds."""
        task, model = self.experiment.task, self.experiment.model
        return task.initial_carry(model, rows, train=True)

    def make_carry(self) -> PyTree:
        """The same of the rows of all batches, on the devices."""
        return self.partitioner.init_carry(self.initial_carry, self.rows)

    def checkpoint_state(self, state: TrainState, carry: PyTree) -> dict:
        """What a checkpoint holds, the same for all devices and modes."""
        return {
            "state": state,
            "carry": self.partitioner.carry_to_checkpoint(carry, self.rows),
        }

    def from_checkpoint(
        self, content: dict, carry: PyTree
    ) -> tuple[TrainState, PyTree]:
        """State and carry of a checkpoint on these devices.

        Args:
          carry: what `make_carry` gives.
        """
        stored = content["carry"]
        return content["state"], self.partitioner.carry_from_checkpoint(stored, carry)

    @property
    def step(self) -> Step:
        """The step as a function, not compiled."""
        cfg = self.experiment.cfg
        options = {
            "grad_accum_steps": cfg.grad_accum_steps,
            "ema_decay": cfg.optim.ema_decay,
            "axis_name": self.partitioner.axis_name,
        }
        return make_step(self.loss, self.optimizer, self.schedule, cfg.seed, **options)

    def compiled_step(self, state: TrainState, carry: PyTree):
        """The step on the partitioner's devices, for what lies as these do."""
        shapes = len(self.batches.shapes)
        return self.partitioner.compile(self.step, state, carry, shapes=shapes)

    def flops(self, state: TrainState):
        """From a batch's number and the batch to the operations of its step."""
        count = StepFlops(self.loss, state.params, self.initial_carry)
        return lambda k, batch: count(batch, self.batches.num_examples(k))

    def batch(self, k: int) -> PyTree:
        """Batch k on the devices."""
        part = functools.partial(self.batches.partial_batch, k)
        return self.partitioner.make_global_batch(part, self.batches.num_examples(k))


def num_parameters(params: PyTree) -> int:
    """How many numbers a model learns."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
