"""Shapes, tokens and FLOPs of a config's training step, before any data is prepared."""

import dataclasses
import functools

import flax.linen as nn
import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.tokenizers.base import Tokenizer
from data.tokenizers.symbols import ByteTokenizer
from experiment import build
from experiment.validate import check_values
from training.gradients import gradients
from training.profiling.flops import flops_of_step

Batch = dict[str, jax.ShapeDtypeStruct]


class DummyTokenizer(Tokenizer):
    """Stands in for a vocabulary of which only the size is known."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def shares_vocabulary(self, other: Tokenizer) -> bool:
        """Treats two vocabularies as different unless they are one object."""
        return self is other


def dummy_tokenizers(cfg: ConfigDict) -> dict[str, Tokenizer]:
    """Returns tokenizers of the size `data.vocab_size`, by side."""
    tokenizer = ByteTokenizer()
    if cfg.data.tokenizer != "byte":
        tokenizer = DummyTokenizer(cfg.data.vocab_size)
    target = tokenizer
    if not cfg.data.joint_vocab:
        target = DummyTokenizer(tokenizer.vocab_size)
    return {"text": tokenizer, "source": tokenizer, "target": target}


def parameter_shapes(cfg: ConfigDict) -> PyTree:
    """Returns the shapes of all parameters of a config's model.

    Raises UserError for a config that cannot be built.
    """
    return build.build_experiment(cfg, dummy_tokenizers(cfg)).parameters()


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A model and the largest batch it would be trained on.

    Attributes:
      params: shapes, with the names of their axes.
      batch_size, length: of the largest batch; a source is as long as its target.
      num_programs: the largest number of batch shapes, each compiled once.
    """

    cfg: ConfigDict
    experiment: build.Experiment
    params: PyTree
    batch_size: int
    length: int
    num_programs: int

    @classmethod
    def from_config(cls, cfg: ConfigDict) -> "StepSpec":
        """Builds the model's shapes. Raises UserError for an invalid config."""
        check_values(cfg)
        experiment = build.build_experiment(cfg, dummy_tokenizers(cfg))
        model, data = (cfg, experiment, experiment.parameters()), cfg.data
        if build.is_language_modeling(cfg):
            return cls(*model, data.batch_size, data.segment_length, 1)
        batch_size = data.batch_size
        if not data.document_order:
            batch_size = max(1, data.tokens_per_batch // data.max_length)
        return cls(*model, batch_size, data.max_length, data.buckets)

    @property
    def has_carry(self) -> bool:
        """Whether the carry of one batch is the input of the next."""
        return build.is_language_modeling(self.cfg) or self.cfg.data.document_order

    @property
    def tokens(self) -> int:
        """Number of tokens predicted in a step without padding."""
        return self.batch_size * self.length

    def carry(self, batch_size: int) -> PyTree:
        """Returns the initial carry of a batch size."""
        task, model = self.experiment.task, self.experiment.model
        return task.initial_carry(model, batch_size, train=True)

    def loss(self, variables: PyTree, carry: PyTree, batch: PyTree, rng):
        """Returns the metrics as pairs (sum, weight), and the next carry."""
        task, model = self.experiment.task, self.experiment.model
        return task.loss(model, variables, carry, batch, rng, train=True)

    def input_shapes(self, batch_size: int) -> tuple[PyTree, PyTree, Batch]:
        """Returns the shapes of parameters, carry and batch."""
        carry = jax.eval_shape(lambda: self.carry(batch_size))
        batch = batch_shapes(self.cfg, batch_size, self.length)
        return nn.meta.unbox(self.params), carry, batch

    def flops(self) -> int:
        """Counts the FLOPs of a step on all devices (training/profiling/flops.py)."""
        return flops_of_step(self.loss, *self.input_shapes(self.batch_size)).total

    def gradient(self, params: PyTree, carry: PyTree, batch: PyTree, seed):
        """Computes the gradient of a step, with the config's gradient accumulation."""
        rng, microbatches = jax.random.key(seed), self.cfg.grad_accum_steps
        return gradients(
            self.loss, params, carry, batch, rng, num_microbatches=microbatches
        )


def batch_shapes(cfg: ConfigDict, batch_size: int, length: int) -> Batch:
    """Returns the shapes of a batch's arrays."""

    def array(*shape, dtype="int32"):
        return jax.ShapeDtypeStruct(shape, dtype)

    tokens = functools.partial(array, batch_size, length)
    shapes = {
        "labels": tokens(),
        "weights": tokens(dtype="float32"),
        "reset": array(batch_size, dtype="bool"),
    }
    if build.is_language_modeling(cfg):
        return shapes | {"tokens": tokens()}
    masks = dict.fromkeys(("source_mask", "target_mask"), tokens(dtype="bool"))
    return shapes | masks | dict.fromkeys(("source", "target_in"), tokens())
