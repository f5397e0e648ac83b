"""What a step of a config takes, before anything is prepared: tokens and work."""

import dataclasses
import functools

import flax.linen as nn
import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from analysis.plan import parameters
from experiment import build
from experiment.validate import check_values
from training.gradients import gradients
from training.profiling.flops import flops_of_step

Batch = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """A model and the largest batch it would train on.

    Attributes:
      params: shapes, with the names of their axes.
      rows, length: of that batch; a source is as long as its target.
      programs: how many shapes of batches there are at most, each compiled once.
    """

    cfg: ConfigDict
    built: build.Experiment
    params: PyTree
    rows: int
    length: int
    programs: int

    @classmethod
    def of(cls, cfg: ConfigDict) -> "PlannedStep":
        """Raises UserError for a config that cannot be."""
        check_values(cfg)
        built = build.build_experiment(cfg, parameters.vocabularies(cfg))
        data, params = cfg.data, built.parameters()
        if build.is_language_modeling(cfg):
            return cls(cfg, built, params, data.batch_size, data.segment_length, 1)
        rows = data.batch_size
        if not data.document_order:
            rows = max(1, data.tokens_per_batch // data.max_length)
        return cls(cfg, built, params, rows, data.max_length, data.buckets)

    @property
    def has_streams(self) -> bool:
        """Whether a carry's rows go on from batch to batch."""
        return build.is_language_modeling(self.cfg) or self.cfg.data.document_order

    @property
    def tokens(self) -> int:
        """That a step predicts, where none is padding."""
        return self.rows * self.length

    def carry(self, rows: int) -> PyTree:
        """What the first batch of so many rows finds."""
        return self.built.task.initial_carry(self.built.model, rows, train=True)

    def loss(self, variables: PyTree, carry: PyTree, batch: PyTree, rng):
        """Pairs (sum, weight) and the next carry."""
        task, model = self.built.task, self.built.model
        return task.loss(model, variables, carry, batch, rng, train=True)

    def inputs(self, rows: int) -> tuple[PyTree, PyTree, Batch]:
        """Shapes of parameters, carry and batch."""
        carry = jax.eval_shape(lambda: self.carry(rows))
        return nn.meta.unbox(self.params), carry, batch_of(self.cfg, rows, self.length)

    def flops(self) -> int:
        """Of a step, all devices together; see training/profiling/flops.py."""
        return flops_of_step(self.loss, *self.inputs(self.rows)).total

    def gradient(self, params: PyTree, carry: PyTree, batch: PyTree, seed):
        """What a device computes of a step before it changes its parameters."""
        rng, parts = jax.random.key(seed), self.cfg.grad_accum_steps
        return gradients(self.loss, params, carry, batch, rng, num_microbatches=parts)


def batch_of(cfg: ConfigDict, rows: int, length: int) -> Batch:
    """A batch's arrays without their numbers."""

    def array(*shape, dtype="int32"):
        return jax.ShapeDtypeStruct(shape, dtype)

    whole = functools.partial(array, rows, length)
    found = {
        "labels": whole(),
        "weights": whole(dtype="float32"),
        "reset": array(rows, dtype="bool"),
    }
    if build.is_language_modeling(cfg):
        return found | {"tokens": whole()}
    masks = dict.fromkeys(("source_mask", "target_mask"), whole(dtype="bool"))
    return found | masks | dict.fromkeys(("source", "target_in"), whole())
