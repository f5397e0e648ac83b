"""Shapes, tokens and FLOPs of a config's training step, before any data is prepared."""

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.tokenizers.base import Tokenizer
from data.tokenizers.symbols import ByteTokenizer
from data.understanding.labels import Labels
from data.understanding.markers import MARKERS
from experiment import build
from experiment.build import get_task_class
from experiment.setup import TrainingSetup
from experiment.validate import check_kept_metric, check_values
from training.gradients import gradients
from training.optim.optimizers import make_optimizer
from training.profiling.flops import flops_of_step
from training.step import make_state

LABELS = ("O", "B-LABEL")  # two classes, or the tags of one kind of entity

Batch = dict[str, jax.ShapeDtypeStruct]


class DummyTokenizer(Tokenizer):
    """Stands in for a vocabulary of which only the size is known."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def shares_vocabulary(self, other: Tokenizer) -> bool:
        return self is other


def dummy_tokenizers(cfg: ConfigDict) -> dict[str, Tokenizer]:
    """Returns tokenizers of the size `data.vocab_size`, by side.

    Labels and tags are as few as a corpus may have.
    """
    is_byte, size = cfg.data.tokenizer == "byte", cfg.data.vocab_size
    tokenizer = ByteTokenizer() if is_byte else DummyTokenizer(size)
    is_joint = cfg.data.joint_vocab
    target = tokenizer if is_joint else DummyTokenizer(tokenizer.vocab_size)
    if get_task_class(cfg.task).model_class != "Encoder":
        return {"text": tokenizer, "source": tokenizer, "target": target}
    is_set = {
        "label": cfg.data.label_column and not cfg.head.regression,
        "tag": cfg.data.tag_column,
    }
    dummies = {"label": Labels((), ())} if cfg.head.regression else {}
    dummies |= {side: Labels(LABELS, (1, 1)) for side in is_set if is_set[side]}
    return {"text": tokenizer.with_tags(MARKERS), **dummies}


Tokenizers = dict[str, Tokenizer]  # by side


def parameter_shapes(cfg: ConfigDict, tokenizers: Tokenizers | None = None) -> PyTree:
    """Returns the shapes of a model's parameters.

    Args:
      tokenizers: those of the corpus; None: of the size `data.vocab_size`.

    Raises:
      UserError: the config is invalid.
    """
    check_values(cfg)
    return build.build_experiment(cfg, tokenizers or dummy_tokenizers(cfg)).parameters()


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A training step and the largest batch it would be trained on."""

    setup: TrainingSetup  # of the training, without partitioner and batches
    params: PyTree  # shapes, with the names of their axes
    batch_size: int
    length: int  # of the text, or of the target and of the source
    num_programs: int  # the largest number of batch shapes, each compiled once

    @classmethod
    def from_config(
        cls, cfg: ConfigDict, tokenizers: Tokenizers | None = None
    ) -> "StepSpec":
        """Builds the model's shapes; arguments and errors are `parameter_shapes`'s."""
        check_values(cfg)
        check_kept_metric(cfg)
        tokenizers = tokenizers or dummy_tokenizers(cfg)
        experiment, data = build.build_experiment(cfg, tokenizers), cfg.data
        optimizer, schedule = make_optimizer(
            cfg.optim, cfg.steps, width=cfg.model.width
        )
        setup = TrainingSetup(experiment, None, None, optimizer, schedule, cfg.steps)
        model, batch_size = (setup, experiment.parameters()), data.batch_size
        if build.is_language_modeling(cfg):
            return cls(*model, batch_size, data.segment_length, 1)
        if get_task_class(cfg.task).model_class == "Encoder":
            is_masked = cfg.task == "masked_language_modeling"
            shapes = 1 if is_masked else data.buckets
            return cls(*model, batch_size, data.max_length, shapes)
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
    def unit(self) -> str:
        """Unit that a step predicts: tokens, words or examples."""
        return self.setup.experiment.task.unit

    @property
    def num_predicted(self) -> int:
        """Number of these without padding, with a token in each word."""
        batch = batch_shapes(self.cfg, self.batch_size, self.length)
        return self.batch_size if self.unit == "examples" else batch["weights"].size

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
        """Returns the shapes of parameters, carry and the longest batch of a size."""
        return self.inputs_with(batch_shapes(self.cfg, batch_size, self.length))

    def inputs_with(self, batch: Batch) -> tuple[PyTree, PyTree, Batch]:
        """Returns the shapes of parameters, carry and batch, given the batch's."""
        rows = batch["weights"].shape[0]
        carry = jax.eval_shape(lambda: self.carry(rows))
        return nn.meta.unbox(self.params), carry, batch

    @property
    def longest_batch(self) -> Batch:
        """Shapes of the largest batch."""
        return batch_shapes(self.cfg, self.batch_size, self.length)

    def flops(self, batch: Batch | None = None) -> int:
        """Counts the FLOPs of a step on all devices (training/profiling/flops.py).

        Args:
          batch: shapes of its arrays; None: of the longest batch.
        """
        inputs = self.inputs_with(batch or self.longest_batch)
        return flops_of_step(self.setup.loss, *inputs).total

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
    array = jax.ShapeDtypeStruct
    examples = get_task_class(cfg.task).example_batch(cfg, length).items()
    return {
        "weights": array((batch_size, length), "float32"),
        **{name: array((batch_size, *x.shape[1:]), x.dtype) for name, x in examples},
        "reset": array((batch_size,), "bool"),
    }
