"""Shapes, tokens and FLOPs of a config's training step, before any data is prepared."""

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.tokenizers.base import Tokenizer
from data.tokenizers.symbols import ByteTokenizer
from experiment import build
from experiment.setup import TrainingSetup
from experiment.validate import check_values
from training.gradients import gradients
from training.optim.optimizers import make_optimizer
from training.profiling.flops import flops_of_step
from training.step import make_state

Batch = dict[str, jax.ShapeDtypeStruct]


class DummyTokenizer(Tokenizer):
    """Stands in for a vocabulary of which only the size is known."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def shares_vocabulary(self, other: Tokenizer) -> bool:
        return self is other


def dummy_tokenizers(cfg: ConfigDict) -> dict[str, Tokenizer]:
    """Returns tokenizers of the size `data.vocab_size`, by side."""
    is_byte, size = cfg.data.tokenizer == "byte", cfg.data.vocab_size
    tokenizer = ByteTokenizer() if is_byte else DummyTokenizer(size)
    is_joint = cfg.data.joint_vocab
    target = tokenizer if is_joint else DummyTokenizer(tokenizer.vocab_size)
    return {"text": tokenizer, "source": tokenizer, "target": target}


def parameter_shapes(cfg: ConfigDict) -> PyTree:
    """Returns the shapes of a model's parameters. Raises UserError for a bad config."""
    check_values(cfg)
    return build.build_experiment(cfg, dummy_tokenizers(cfg)).parameters()


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A training step and the largest batch it would be trained on."""

    setup: TrainingSetup  # of the training, without partitioner and batches
    params: PyTree  # shapes, with the names of their axes
    batch_size: int
    length: int  # of the target, and of the source
    num_programs: int  # the largest number of batch shapes, each compiled once

    @classmethod
    def from_config(cls, cfg: ConfigDict) -> "StepSpec":
        """Builds the model's shapes. Raises UserError for an invalid config."""
        check_values(cfg)
        experiment, data = build.build_experiment(cfg, dummy_tokenizers(cfg)), cfg.data
        optimizer, schedule = make_optimizer(
            cfg.optim, cfg.steps, width=cfg.model.width
        )
        setup = TrainingSetup(experiment, None, None, optimizer, schedule, cfg.steps)
        model, batch_size = (setup, experiment.parameters()), data.batch_size
        if build.is_language_modeling(cfg):
            return cls(*model, batch_size, data.segment_length, 1)
        if not data.document_order:
            batch_size = max(1, data.tokens_per_batch // data.max_length)
        return cls(*model, batch_size, data.max_length, data.buckets)

    @property
    def cfg(self) -> ConfigDict:
        return self.setup.experiment.cfg

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
        return self.setup.initial_carry(batch_size)

    def state_shapes(self) -> PyTree:
        """Returns the shapes of the training state, with the names of their axes."""
        decay = self.cfg.optim.ema_decay
        return jax.eval_shape(
            lambda params: make_state(params, self.setup.optimizer, ema_decay=decay),
            self.params,
        )

    def input_shapes(self, batch_size: int) -> tuple[PyTree, PyTree, Batch]:
        """Returns the shapes of parameters, carry and batch."""
        carry = jax.eval_shape(lambda: self.carry(batch_size))
        batch = batch_shapes(self.cfg, batch_size, self.length)
        return nn.meta.unbox(self.params), carry, batch

    def flops(self) -> int:
        """Counts the FLOPs of a step on all devices (training/profiling/flops.py)."""
        return flops_of_step(self.setup.loss, *self.input_shapes(self.batch_size)).total

    def gradient(self, params: PyTree, carry: PyTree, batch: PyTree, seed):
        """Computes the gradient of a step, with the config's gradient accumulation."""
        return gradients(
            self.setup.loss,
            params,
            carry,
            batch,
            jax.random.key(seed),
            num_microbatches=self.cfg.grad_accum_steps,
        )


def batch_shapes(cfg: ConfigDict, batch_size: int, length: int) -> Batch:
    """Returns the shapes of a batch's arrays."""
    whole, array = (batch_size, length), jax.ShapeDtypeStruct
    tokens = build.get_task_class(cfg.task).example_batch(cfg).items()
    return {
        **{name: array(whole, example.dtype) for name, example in tokens},
        "weights": array(whole, "float32"),
        "reset": array((batch_size,), "bool"),
    }
