"""Training steps that are timed, on random batches."""

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from analysis.plan.step import StepSpec, dummy_tokenizers
from data.batching.base import Batch, TrainBatches
from data.tokenizers.base import SPECIAL
from experiment.setup import TrainingSetup
from training.parallel.mesh import Devices
from training.parallel.partitioner import make_partitioner


class RandomBatches(TrainBatches):
    """Random tokens without padding in the shapes of a `StepSpec`, in every batch."""

    def __init__(self, step: StepSpec):
        self.batch_size, self.shapes = step.batch_size, [(step.batch_size, step.length)]
        _, _, shapes = step.input_shapes(step.batch_size)
        size = min(one.vocab_size for one in dummy_tokenizers(step.cfg).values())
        random = np.random.default_rng(0)
        self.batch = {
            name: random.integers(len(SPECIAL), size, leaf.shape, np.int32)
            if leaf.dtype == np.int32
            else np.full(leaf.shape, name != "reset", leaf.dtype)
            for name, leaf in shapes.items()
        }

    def partial_batch(self, k: int, rows: slice) -> Batch:
        """Returns some rows of the batch."""
        del k
        return {name: leaf[rows] for name, leaf in self.batch.items()}


def random_training(
    cfg: ConfigDict, devices: Devices = None
) -> tuple[StepSpec, TrainingSetup]:
    """Sets up training on random batches of the largest shape of a config."""
    step = StepSpec.from_config(cfg)
    partitioner = make_partitioner(cfg.parallel, devices=devices)
    batches = RandomBatches(step)
    return step, dataclasses.replace(
        step.setup, partitioner=partitioner, batches=batches
    )


class TrainingStep:
    """Compiled training step with its state, and batches on the device.

    Attributes:
      metrics: metrics of the last step, as pairs (sum, weight).
    """

    def __init__(self, training: TrainingSetup, num_batches: int = 1):
        self.state = training.partitioner.init(training.make_state)
        self.carry = training.make_carry()
        self.compiled = training.compiled_step(self.state, self.carry)
        self.batches = [training.batch(k) for k in range(num_batches)]
        self.number = 0

    def step(self) -> None:
        """Runs forward pass, backward pass and update."""
        batch = self.batches[self.number % len(self.batches)]
        results = self.compiled(self.state, self.carry, batch)
        self.state, self.carry, self.metrics = jax.block_until_ready(results)
        self.number += 1
