"""The contract of a task, the registry of tasks, and their common losses."""

import abc
import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float, Num, PyTree
from ml_collections import ConfigDict

from data.dataset import open_dataset
from decoding.config import DecodingConfig
from utils.errors import UserError
from utils.memory import bounded_jit

# From `cfg.task` to a module with a class `Task`; only the chosen one is imported.
TASKS = {
    "language_modeling": "tasks.language_modeling",
    "translation": "tasks.translation",
    "text_to_text": "tasks.text_to_text",
    "masked_language_modeling": "tasks.understanding.masked_language_modeling",
    "classification": "tasks.understanding.classification",
    "tagging": "tasks.understanding.tagging",
    "relation_extraction": "tasks.understanding.relation_extraction",
}

# Keys of a model's config that a score card's protocol records.
MEMORY_KEYS = ("memory_length", "same_length", "clamp_length")

WeightedMetrics = dict[str, tuple[jax.Array, jax.Array]]  # name: (sum, weight)
ScoredText = tuple[str, float]  # an output and the score that the search ranked it by


class Task(abc.ABC):
    """Contract of a task: how to train, evaluate and use a model.

    A task holds no parameters: each method takes the model, its variables and its
    carry (state between consecutive batches) as arguments.

    Concrete methods suit every model of token likelihoods.

    Attributes:
      model_class: name of the class that an architecture defines for it.
      output_tokenizer: name of the attribute with the tokenizer of its outputs.
      generates_text: whether outputs are texts, found by the search of `cfg.decode`.
      unit: what the weights of its loss count, for speeds.
      corpus_kind: kind of corpus that it reads; None: any with the named columns.
      sides: sides of an example that have a vocabulary of text.
      metric_directions: "min" or "max" for each metric of an evaluation.
      selection_metric: validation metric that selects checkpoints by default. It is
        known from the config alone, so that a sweep ranks its trials by it.
    """

    model_class: ClassVar[Literal["LanguageModel", "Seq2Seq", "Encoder"]]
    output_tokenizer: ClassVar[Literal["tokenizer", "target"]]
    generates_text: ClassVar[bool] = True
    unit: ClassVar[Literal["tokens", "words", "examples"]] = "tokens"
    corpus_kind: ClassVar[Literal["text", "parallel"] | None]
    sides: ClassVar[tuple[str, ...]]
    metric_directions: ClassVar[dict[str, Literal["min", "max"]]]
    selection_metric: ClassVar[str]

    def __init__(self, label_smoothing: float, z_loss: float):
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss

    @classmethod
    @abc.abstractmethod
    def from_config(
        cls, cfg: ConfigDict, tokenizers: dict, languages: tuple[str, ...] = ()
    ) -> "Task":
        """Creates the task of an experiment's config.

        Args:
          tokenizers: tokenizers and label vocabularies by side.
          languages: languages of a parallel corpus, source first.
        """

    @classmethod
    def check_config(cls, cfg: ConfigDict) -> None:
        """Raises UserError for keys that do not fit the task or each other."""
        del cfg

    @classmethod
    def directions(cls, cfg: Mapping) -> Mapping[str, Literal["min", "max"]]:
        """Returns "min" or "max" for each metric of an evaluation with a config."""
        del cfg
        return cls.metric_directions

    @classmethod
    def default_metric(cls, cfg: Mapping) -> str:
        """Returns the validation metric that selects checkpoints by default."""
        del cfg
        return cls.selection_metric

    def missing_metrics(self) -> frozenset[str]:
        """Returns the metrics that evaluations lack, given the labels of the data."""
        return frozenset()

    @classmethod
    def open_dataset(cls, cfg: ConfigDict, tokenizers: dict | None = None):
        """Opens the corpus `cfg.data.name` with its tokenizers, or those of a run."""
        return open_dataset(cfg.data, tokenizers)

    @classmethod
    @abc.abstractmethod
    def example_batch(
        cls, cfg: ConfigDict, length: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a small batch, from which parameters are made.

        Args:
          length: number of tokens of a text; None: few.
        """

    @abc.abstractmethod
    def evaluation_inputs(self, experiment, dataset, split: str) -> tuple[Any, dict]:
        """Returns the batches of a split, and the other inputs of `evaluate`.

        Args:
          experiment: the `experiment.build.Experiment` that is evaluated.

        Raises:
          UserError: a key of `cfg.eval` does not fit the model or the split.
        """

    def baselines(self, dataset, split: str, **inputs) -> dict[str, dict]:
        """Returns scores of trivial systems on a split, by the system's name."""
        return {"unigram": {"loss": dataset.unigram_loss(split)}}

    def truncated(self, dataset, split: str, cfg: ConfigDict) -> dict:
        """Returns the number of texts of a split that are cut, and their limit."""
        return {}

    def hashes(self, dataset, split: str) -> dict[str, str]:
        """Returns hashes of what a score card of a split depends on."""
        return dataset.hashes

    def with_token_ids(self) -> "Task":
        """Returns this task with token ids in place of the text of its outputs."""
        task = copy.copy(self)
        tokenizer = getattr(self, self.output_tokenizer)
        setattr(task, self.output_tokenizer, tokenizer.with_token_ids())
        return task

    @abc.abstractmethod
    def make_model(self, config) -> nn.Module:
        """Creates the model of a Config for the vocabularies of the task."""

    @abc.abstractmethod
    def model_inputs(self, batch: dict) -> tuple:
        """Returns the arguments of the model before the carry."""

    def initial_carry(
        self, model, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns the carry before the first batch; empty for a model without one."""
        return model.initial_carry(batch_size, train=train, memory_length=memory_length)

    def reset(self, model, carry: PyTree, reset, *, train: bool) -> PyTree:
        """Resets the carry of the examples that start a new text."""
        initial = self.initial_carry(model, reset.shape[0], train=train)
        return reset_carry(carry, initial, reset)

    def init(self, model, rng: jax.Array, batch: dict) -> PyTree:
        """Initialises the variables, boxed with the names of their logical axes."""

        def call_all(model, batch, carry):
            hidden, _ = model(*self.model_inputs(batch), carry, train=False)
            return model.log_prob(hidden, batch["labels"])

        carry = self.initial_carry(model, len(batch["labels"]), train=True)
        return nn.init(call_all, model)(rng, batch, carry)

    def loss(
        self, model, variables: PyTree, carry: PyTree, batch: dict, rng, train: bool
    ) -> tuple[WeightedMetrics, PyTree]:
        """Returns metrics as (sum, weight), and the carry for the next batch.

        The training objective is the sum of the means of "loss" and "auxiliary/...".
        """
        carry = self.reset(model, carry, batch["reset"], train=train)
        return likelihood_loss(
            model,
            variables,
            (*self.model_inputs(batch), carry),
            batch,
            rng,
            smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            train=train,
        )

    @abc.abstractmethod
    def evaluate(
        self, model, variables: PyTree, batches, options: ConfigDict, **inputs
    ) -> dict:
        """Returns the score card of a split, and details that are saved beside it.

        Its "scores" map each metric to its "value" and, with `intervals`, the ends
        "low" and "high" of its 95% interval; its "protocol" records all settings that
        scores depend on; its "blocks" are the losses as `BootstrapBlocks`. A task
        that generates adds "samples" and "references".

        Args:
          options: the config, of which `decode` is used.
          inputs: `intervals`, and those of `evaluation_inputs`.
        """

    @abc.abstractmethod
    def generate(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        decoding: DecodingConfig,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[list[ScoredText]]:
        """Yields scored outputs for each line, in order; none for a blank line.

        Args:
          options: the whole config, of which `decode` matters most.
          prefix: whether a tab and a prefix of the output follow the input.
          document_order: whether the carry passes from line to line, up to a blank one.
          chunk_size: number of lines to read ahead.
        """

    def predict(self, model, variables, lines, options, **keywords) -> Iterator[str]:
        """Yields the best output of each line; see `generate`. A blank stays blank."""
        decoding = DecodingConfig.from_config(options.decode).single_best
        outputs = self.generate(model, variables, lines, options, decoding, **keywords)
        return (texts[0][0] if texts else "" for texts in outputs)

    def predict_n_best(
        self, model, variables, lines, options, **keywords
    ) -> Iterator[list[ScoredText]]:
        """Yields `decode.n_best` outputs of each line; a beam's come best first."""
        decoding = DecodingConfig.from_config(options.decode).with_scores
        return self.generate(model, variables, lines, options, decoding, **keywords)

    @abc.abstractmethod
    def score_targets(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        *,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[tuple[float, int] | None]:
        """Yields log probability (nats) and number of tokens of given targets.

        The end symbol counts. None stands for a blank line.
        """

    @functools.partial(bounded_jit, static_argnums=(0, 1))
    def target_losses(
        self, model, variables: PyTree, carry: PyTree, batch: dict
    ) -> tuple[Float[Array, "B"], PyTree]:
        """Returns the loss of each example, summed over its tokens, and the carry."""
        if "reset" in batch:
            carry = self.reset(model, carry, batch["reset"], train=False)
        inputs = (*self.model_inputs(batch), carry)
        losses, carry = token_losses(model, variables, inputs, batch)
        return losses.sum(axis=1), carry


def reset_carry(carry: PyTree, initial: PyTree, reset: Bool[Array, "B"]) -> PyTree:
    """Replaces the carry of the examples that start a new text by the initial one."""

    def choose(old, new):
        if not old.ndim:
            return old
        return jnp.where(reset.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, carry, initial)


def cast_params(model, variables: PyTree) -> PyTree:
    """Casts matrices to the model's compute dtype, once before a decoding loop.

    Results do not change, for the model casts matrices where it uses them. Vectors
    (gains and biases) keep their dtype, since some are used in float32.
    """
    dtype = model.config.compute_dtype

    def cast(leaf):
        is_matrix = leaf.ndim > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if is_matrix else leaf

    return jax.tree.map(cast, variables)


def check_windows(model, batches) -> None:
    """Raises UserError for sliding windows and a model with a carry."""
    if not getattr(batches, "stride", None):
        return
    carry = jax.eval_shape(
        lambda: model.initial_eval_carry(batches.batch_size, batches.length)
    )
    if jax.tree.leaves(carry):
        raise UserError(
            f"eval.window={batches.length} needs a model without a carry; leave out "
            "eval.window, or set eval.memory_length=0 where the model has a memory"
        )


def likelihood_loss(
    model: nn.Module,
    variables: PyTree,
    inputs: tuple,
    batch: dict,
    rng: jax.Array | None,
    *,
    smoothing: float,
    z_loss: float = 0.0,
    train: bool,
) -> tuple[WeightedMetrics, PyTree]:
    """Returns metrics as (sum, weight), and the next carry.

    "loss" is the negative log likelihood of the labels in nats, with a probability
    mass `smoothing` of label smoothing. Losses that the model sows in "losses" while it
    trains follow as "auxiliary/<name>". "auxiliary/z_loss" is z log^2 Z of each token
    (Chowdhery et al. 2022, section 5), which keeps the normaliser Z of the softmax
    near 1; `z_loss` is the coefficient z.
    """

    def predict(model):
        hidden, carry = model(*inputs, train=train)
        log_prob = model.log_prob_and_log_z if z_loss else model.log_prob
        return log_prob(hidden, batch["labels"], smoothing=smoothing), carry

    rngs = {"dropout": rng} if train else {}
    apply = nn.apply(predict, model, mutable=["losses"] if train else False)
    outputs = apply(variables, rngs=rngs)
    (log_prob, carry), sown = outputs if train else (outputs, {})
    log_prob, log_z = log_prob if z_loss else (log_prob, None)
    weights = batch["weights"]
    metrics = {"loss": (-(log_prob * weights).sum(), weights.sum())}
    if z_loss:
        total = z_loss * (jnp.square(log_z) * weights).sum()
        metrics["auxiliary/z_loss"] = (total, weights.sum())
    return metrics | auxiliary_losses(sown.get("losses", {}), weights), carry


def token_losses(
    model: nn.Module, variables: PyTree, inputs: tuple, batch: dict
) -> tuple[Float[Array, "B T"], PyTree]:
    """Returns the negative log likelihood of each label (0: padding), and the carry."""

    def predict(model):
        hidden, carry = model(*inputs, train=False)
        return model.log_prob(hidden, batch["labels"]), carry

    log_prob, carry = nn.apply(predict, model)(variables)
    # Not a product with the weights: losses of padding may be infinite.
    return jnp.where(batch["weights"] > 0, -log_prob, 0.0), carry


def auxiliary_losses(sown: PyTree, weights: Num[Array, "B T"]) -> WeightedMetrics:
    """Returns the losses that a model has sown, each a (sum [B], weight [B]).

    Examples whose weights are all 0 are padding and do not count.
    """
    is_valid = weights.any(axis=1)
    metrics: WeightedMetrics = {}
    for path, losses in flatten_dict(sown).items():
        name = f"auxiliary/{path[-1]}"
        for parts in losses:
            total, weight = (jnp.where(is_valid, part, 0).sum() for part in parts)
            previous = metrics.get(name, (0, 0))
            metrics[name] = (previous[0] + total, previous[1] + weight)
    return metrics
