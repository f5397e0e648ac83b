"""Everything that training needs except its state: step, batches, devices, log."""

import dataclasses
import functools
import math
import pkgutil
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.batching.base import SkippingBatches
from data.dataset import Dataset
from experiment.build import Experiment
from tasks.base import Task
from training.checkpoint import Checkpoints
from training.loop import LoopSettings, RunRecord
from training.metric_writers import open_writers
from training.metrics import TrainProgress
from training.optim.optimizers import make_optimizer
from training.optim.schedules import Schedule
from training.parallel.distributed import is_primary
from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner, make_partitioner
from training.profiling.flops import StepFlops
from training.profiling.peak_flops import peak_flops_per_second
from training.run_dir import RunDirectory
from training.step import Step, TrainState, make_state, make_step
from utils.errors import UserError
from utils.ranges import check_range

MONITOR_SPIKES = "experiment.spikes:monitor_spikes"  # imported with cfg.on_spike


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """Step, batches, optimizer and devices of an experiment.

    Attributes:
      batches: training batches, indexed by step; spikes may leave some out.
      steps: the last step.
    """

    experiment: Experiment
    partitioner: JitPartitioner
    batches: SkippingBatches
    optimizer: optax.GradientTransformationExtraArgs
    schedule: Schedule
    steps: int

    @classmethod
    def from_experiment(
        cls, experiment: Experiment, dataset: Dataset, devices: Devices = None
    ) -> "TrainingSetup":
        """Sets up training on the given devices, or on all."""
        cfg = experiment.cfg
        batches, steps = SkippingBatches(dataset.train_batches()), cfg.steps
        if cfg.epochs:
            steps = math.ceil(cfg.epochs * batches.epoch_length)
            check_range(f"epochs={cfg.epochs:g}: steps", steps)
        selection_metric(cfg, experiment.task)  # refuses one that labels lack
        optimizer, schedule = make_optimizer(cfg.optim, steps, width=cfg.model.width)
        partitioner = make_partitioner(
            cfg.parallel, num_microbatches=cfg.grad_accum_steps, devices=devices
        )
        return cls(experiment, partitioner, batches, optimizer, schedule, steps)

    def loss(self, variables: PyTree, carry: PyTree, batch: PyTree, rng):
        """Returns the loss and other metrics as (sum, weight), and the next carry."""
        task, model = self.experiment.task, self.experiment.model
        return task.loss(model, variables, carry, batch, rng, train=True)

    def make_state(self) -> TrainState:
        """Returns the first state; its parameters have the names of their axes."""
        cfg, task = self.experiment.cfg, self.experiment.task
        batch = jax.tree.map(jnp.asarray, self.batches[0])
        variables = task.init(self.experiment.model, jax.random.key(cfg.seed), batch)
        return make_state(
            variables["params"], self.optimizer, ema_decay=cfg.optim.ema_decay
        )

    @property
    def carry_batch_size(self) -> int:
        """Batch size of the carry; 1 where batches do not continue each other."""
        return getattr(self.batches, "batch_size", 1)

    def initial_carry(self, batch_size: int) -> PyTree:
        """Returns the carry before the first batch, on the host."""
        task, model = self.experiment.task, self.experiment.model
        return task.initial_carry(model, batch_size, train=True)

    def make_carry(self) -> PyTree:
        """Returns the carry before the first batch, on the devices."""
        return self.partitioner.init_carry(self.initial_carry, self.carry_batch_size)

    @property
    def step(self) -> Step:
        """The training step, not compiled."""
        cfg = self.experiment.cfg
        return make_step(
            self.loss,
            self.optimizer,
            self.schedule,
            cfg.seed,
            grad_accum_steps=cfg.grad_accum_steps,
            ema_decay=cfg.optim.ema_decay,
            axis_name=self.partitioner.axis_name,
        )

    def compiled_step(self, state: TrainState, carry: PyTree) -> Step:
        """Returns the compiled step, for the shardings of `state` and `carry`."""
        shapes = len(self.batches.shapes)
        return self.partitioner.compile(self.step, state, carry, shapes=shapes)

    def batch(self, k: int) -> PyTree:
        """Returns batch k on the devices."""
        part = functools.partial(self.batches.partial_batch, k)
        return self.partitioner.make_global_batch(part, self.batches.num_examples(k))

    def flops(self, state: TrainState) -> Callable[[int, PyTree], int]:
        """Returns (number of a batch, batch) -> FLOPs of its step."""
        count = StepFlops(self.loss, state.params, self.initial_carry)
        return lambda k, batch: count(batch, self.batches.num_examples(k))

    def checkpoint_state(self, state: TrainState, carry: PyTree) -> dict:
        """Returns the content of a checkpoint, which does not depend on devices."""
        carry = self.partitioner.carry_to_checkpoint(carry, self.carry_batch_size)
        return {"state": state, "carry": carry}

    def from_checkpoint(
        self, content: dict, fresh_carry: PyTree
    ) -> tuple[TrainState, PyTree]:
        """Returns state and carry of a checkpoint, given that of `make_carry`."""
        stored, partitioner = content["carry"], self.partitioner
        return content["state"], partitioner.carry_from_checkpoint(stored, fresh_carry)

    @property
    def loop_settings(self) -> LoopSettings:
        """When to log, validate, save and stop."""
        cfg, task = self.experiment.cfg, self.experiment.task
        metric = selection_metric(cfg, task)
        return LoopSettings(
            steps=self.steps,
            log_every=cfg.every.log,
            eval_every=cfg.every.eval,
            save_every=cfg.every.checkpoint,
            save_minutes=cfg.every.checkpoint_minutes,
            patience=cfg.keep.patience,
            # A run without any finite step ends as one with too many.
            max_nonfinite_steps=min(cfg.max_nonfinite_steps, self.steps),
            metric=metric,
            direction=task.directions(cfg)[metric],
            unit=task.unit,
        )

    def open_checkpoints(self, directory: RunDirectory) -> Checkpoints:
        """Opens the checkpoints of a run directory for training."""
        options = {"last": self.experiment.cfg.keep.last}
        options["best"] = self.experiment.cfg.keep.best
        return Checkpoints(directory.checkpoints, directory.run_id, **options)

    def open_record(
        self,
        directory: RunDirectory,
        progress: TrainProgress,
        checkpoints: Checkpoints,
        *,
        step: int,
    ) -> RunRecord:
        """Opens the log, which the first process writes, to continue from a step."""
        last = {"train": progress.last_logged, "validation": progress.last_validated}
        last |= {"watch": step, "spike": step}
        options = {"step": step, "steps": self.steps, "run_id": directory.run_id}
        options["unit"] = self.experiment.task.unit
        writers = []
        if is_primary():
            writers = open_writers(directory.path, last, **options)
        cfg, check_loss = self.experiment.cfg, None
        if cfg.on_spike != "off":
            check_loss = pkgutil.resolve_name(MONITOR_SPIKES)(self, directory).check
        peak_flops = peak_flops_per_second(cfg.model.dtype)
        options = {"peak_flops": peak_flops, "check_loss": check_loss}
        return RunRecord(self.loop_settings, progress, writers, checkpoints, **options)


def selection_metric(cfg: ConfigDict, task: Task) -> str:
    """Returns the validation metric that selects checkpoints.

    Raises UserError if the labels of the data have no such score.
    """
    missing = task.missing_metrics()
    metric = cfg.keep.metric or task.default_metric(cfg)
    if metric in missing:
        known = [name for name in task.directions(cfg) if name not in missing]
        raise UserError(
            f"the labels of {cfg.data.name} have no {metric}, by which checkpoints are "
            f"selected: set keep.metric to one of {', '.join(known)}"
        )
    return metric


def num_parameters(params: PyTree) -> int:
    """Returns the number of scalar parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
