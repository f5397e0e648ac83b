"""Losses and scores of a split with parts of a model switched off.

The forward pass is the one of the task's evaluation, and of an encoder so are the
scores: its `evaluate` reads the recorded outputs of the program. Of translations and
other texts the loss of the references is measured (teacher forcing), and, if asked,
the scores of texts that are generated anew with each knockout.

With one knockout at once the identity gives the losses of eval.py to the bit. With
more, matrix products have one more axis and may be rounded in another order.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from analysis.knockout.candidates import stack_knockouts
from analysis.knockout.interventions import (
    Knockout,
    Sites,
    find_sites,
    switched_off,
    switched_off_by_variables,
    with_knockout,
)
from experiment.restore import TrainedRun
from tasks.bootstrap import BLOCK_SIZE, BootstrapBlocks
from tasks.text_metrics.base import Texts
from utils.errors import UserError
from utils.memory import bounded_jit, unbounded

WIDTH = 16  # knockouts at once on an accelerator
FUSED = ("pallas", "cudnn")  # attention_impl without a batched form


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The evaluation of a model with one knockout.

    Attributes:
      blocks: losses of sentences, texts or blocks of tokens, without empty blocks.
      scores: scores of an encoder, or of generated texts, by name.
      samples: predictions of an encoder that has a text for each.
      position_losses: losses at some positions of a language model's text, in nats.
      texts: generated texts beside their references, if there are any.
    """

    blocks: BootstrapBlocks
    scores: dict[str, float]
    samples: list[dict]
    position_losses: Float[np.ndarray, "P"]
    texts: Texts | None = None


class Subject:
    """A trained run and the part of a split on which knockouts are measured.

    Attributes:
      batches: batches of the split, or the first of them.
      sites: the parts of the model that can be switched off.
    """

    def __init__(
        self,
        run: TrainedRun,
        split: str,
        batches,
        inputs: dict,
        num_examples: int = 0,
    ):
        """Reads the batches of a split.

        Args:
          batches, inputs: those of `Task.evaluate`.
          num_examples: number of sentences, texts or blocks of tokens that suffices;
            batches are read whole. 0: all.
        """
        self.run, self.split, self.task = run, split, run.experiment.task
        self.model = plain_model(run.experiment.evaluation_model)
        self.batches = FirstBatches(batches, num_examples)
        self.inputs = {
            name: _at(values, self.batches.ids) for name, values in inputs.items()
        }
        self.variables = run.variables
        self.carry = self._initial_carry()
        self.sites: Sites = find_sites(
            functools.partial(_forward, self.task, self.model),
            self.variables,
            self.carry,
            self._device_batch(self.batches.largest),
        )

    @classmethod
    def open(cls, run: TrainedRun, split: str, num_examples: int = 0) -> "Subject":
        """Opens the corpus of a run; see the constructor."""
        task, dataset = run.experiment.task, run.open_dataset()
        batches, inputs = task.evaluation_inputs(run.experiment, dataset, split)
        return cls(run, split, batches, inputs, num_examples)

    def _initial_carry(self) -> PyTree:
        size = getattr(self.batches, "batch_size", 1)
        if self.task.model_class != "LanguageModel":
            return self.task.initial_carry(self.model, size, train=False)
        carry = self.model.initial_eval_carry(size, self.batches.length)
        precomputed = self.task._precompute(self.model, self.variables, carry)
        self.variables = self.variables | precomputed
        return carry

    def _device_batch(self, k: int) -> dict:
        """Returns the arrays of a batch that its program reads."""
        has_carry = not hasattr(self.task, "_forward")
        unused = () if has_carry else ("ids", "reset")
        return {name: x for name, x in self.batches[k].items() if name not in unused}

    def outcomes(
        self, knockouts: Sequence[Knockout], width: int, positions: Sequence[int] = ()
    ) -> Iterator[Outcome]:
        """Yields the outcome of each knockout.

        Args:
          width: number of knockouts at once; fewer where memory is short.
          positions: positions in a language model's text, in ascending order, whose
            losses are kept.
        """
        width = self._fitting_width(min(width, len(knockouts)))
        identity = self.sites.identity()
        for first in range(0, len(knockouts), width):
            chunk = list(knockouts[first : first + width])
            padded = [*chunk, *[identity] * (width - len(chunk))]
            outputs = self._outputs(padded)
            for number in range(len(chunk)):
                own = [jax.tree.map(lambda x, i=number: x[i], x) for x in outputs]
                yield self._outcome(own, np.asarray(positions, np.int64))

    def generated_outcomes(self, knockouts: Sequence[Knockout]) -> Iterator[Outcome]:
        """Yields the outcome of each knockout, with the scores of generated texts.

        One program runs all knockouts, one after another. The search is that of
        `cfg.decode`.

        Raises:
          UserError: the model generates no texts that have references.
        """
        cfg = self.run.experiment.cfg
        if self.task.model_class != "Seq2Seq":
            raise UserError(
                f"--generate: {cfg.task} has no generated texts to score; leave it out"
            )
        for knockout in knockouts:
            variables = with_knockout(
                self.variables, jax.tree.map(jnp.asarray, knockout)
            )
            with switched_off_by_variables():
                card = self.task.evaluate(
                    self.model, variables, self.batches, cfg, **self.inputs
                )
            yield dataclasses.replace(_card_outcome(card), texts=self._texts(card))

    def _texts(self, card: dict) -> Texts:
        targets = [[target] for _, target in self.inputs["texts"]]
        references = self.inputs.get("references") or targets
        hypotheses = [sample["hypothesis"] for sample in card["samples"]]
        columns = self.inputs.get("columns") or {}
        return self.task.scorer.texts(hypotheses, references, columns)

    def _fitting_width(self, width: int) -> int:
        while width > 1:
            inputs = self._inputs([self.sites.identity()] * width)
            try:
                batch = self._device_batch(self.batches.largest)
                _apply.check(*inputs, batch)
                break
            except UserError:
                width //= 2
        return max(width, 1)

    def _inputs(self, knockouts: Sequence[Knockout]) -> tuple:
        count = len(knockouts)
        carries = jax.tree.map(
            lambda x: jnp.repeat(x[None], count, 0) if _differs(x) else jnp.copy(x),
            self.carry,
        )
        stacked = stack_knockouts(knockouts)
        return self.task, self.model, self.variables, stacked, carries

    def _outputs(self, knockouts: Sequence[Knockout]) -> list[PyTree]:
        """Returns the outputs of all batches, each with an axis of knockouts."""
        *inputs, carries = self._inputs(knockouts)
        outputs = []
        for k in range(len(self.batches)):
            found, carries = _apply(*inputs, carries, self._device_batch(k))
            outputs.append(jax.device_get(found))
        return outputs

    def _outcome(self, outputs: list[PyTree], positions: np.ndarray) -> Outcome:
        if self.task.model_class == "Encoder":
            return self._encoder_outcome(outputs)
        kept = np.zeros(len(positions))
        blocks = BootstrapBlocks.zeros(self.batches.num_examples)
        for k, losses in enumerate(outputs):
            batch = self.batches[k]
            if self.task.model_class == "Seq2Seq":
                indices = np.broadcast_to(batch["ids"][:, None], losses.shape)
            else:
                labels = self.batches.label_positions(k)
                indices = labels // BLOCK_SIZE
                is_kept = np.isin(labels, positions) & (batch["weights"] > 0)
                kept[np.searchsorted(positions, labels[is_kept])] = losses[is_kept]
            blocks.add(indices, losses, batch["weights"])
        return Outcome(_without_empty(blocks), {}, [], kept)

    def _encoder_outcome(self, outputs: list[PyTree]) -> Outcome:
        """Scores recorded outputs as the task's own evaluation does."""
        recorded, task = iter(outputs), copy.copy(self.task)
        if hasattr(task, "_forward"):
            task._forward = lambda *inputs: next(recorded)
        else:
            task._score = lambda *inputs: (next(recorded), ())
        cfg = self.run.experiment.cfg
        card = task.evaluate(self.model, {}, self.batches, cfg, **self.inputs)
        return _card_outcome(card)


class FirstBatches:
    """The first batches of a split, whose examples are numbered from 0.

    Attributes:
      ids: numbers of their examples in the split, ascending; of a language model none.
      num_examples: number of sentences, texts, or blocks of the whole text.
    """

    def __init__(self, batches, num_examples: int):
        """Reads batches until they have a number of examples; 0: all."""
        self._all, self._read, ids, tokens = batches, [], [], 0
        for k in range(len(batches)):
            if num_examples and (len(ids) or tokens / BLOCK_SIZE) >= num_examples:
                break
            batch = batches[k]
            if "ids" in batch:
                ids += batch["ids"][batch["ids"] >= 0].tolist()
            tokens += (batch["weights"] > 0).sum()
            self._read.append(batch)
        self.ids = np.unique(np.asarray(ids, np.int64))
        if not ids:
            self.num_examples = -(-len(batches.text.tokens) // BLOCK_SIZE)
            return
        self.num_examples = self.num_segments = len(self.ids)
        for k, batch in enumerate(self._read):
            numbers = np.searchsorted(self.ids, batch["ids"])
            numbers = np.where(batch["ids"] >= 0, numbers, -1).astype(np.int32)
            self._read[k] = batch | {"ids": numbers}

    @property
    def largest(self) -> int:
        """Number of the batch with the longest texts."""
        names = ("tokens", "source", "target_in")  # whichever the task has
        lengths = [
            sum(batch[name].shape[1] for name in names if name in batch)
            for batch in self._read
        ]
        return int(np.argmax(lengths))

    def __len__(self) -> int:
        return len(self._read)

    def __getitem__(self, k: int) -> dict:
        return self._read[k]

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._all, name)


def default_width() -> int:
    """Returns the number of knockouts at once; CPUs gain nothing by more than 1."""
    return 1 if jax.default_backend() == "cpu" else WIDTH


def plain_model(model):
    """Returns a model whose layers are unrolled, without fused kernels.

    Its parameters are the same; methods are intercepted by the name of their layer.
    """
    config, changes = model.config, {}
    for name in ("scan_layers", "remat"):
        if hasattr(config, name):
            changes[name] = False
    if getattr(config, "attention_impl", None) in FUSED:
        changes["attention_impl"] = "xla"
    return model.clone(config=dataclasses.replace(config, **changes))


def _forward(task, model, variables: PyTree, carry: PyTree, batch: dict):
    """Returns the outputs of a batch that the task evaluates, and the carry."""
    if hasattr(task, "_forward"):
        return unbounded(task._forward)(task, model, variables, batch), carry
    name = "_score" if task.model_class == "Encoder" else "_token_losses"
    return unbounded(getattr(task, name))(task, model, variables, carry, batch)


@functools.partial(bounded_jit, static_argnums=(0, 1), donate_argnums=4)
def _apply(task, model, variables, knockouts: Knockout, carries: PyTree, batch: dict):
    """Returns the outputs and the carry of each knockout."""
    axes = jax.tree.map(lambda x: 0 if _differs(x) else None, carries)

    def apply_one(knockout, carry):
        with switched_off(knockout):
            return _forward(task, model, variables, carry, batch)

    return jax.vmap(apply_one, in_axes=(0, axes), out_axes=(0, axes))(
        knockouts, carries
    )


def _card_outcome(card: dict) -> Outcome:
    scores = {name: score["value"] for name, score in card["scores"].items()}
    blocks = _without_empty(card["blocks"])
    return Outcome(blocks, scores, card.get("samples", []), np.zeros(0))


def _differs(leaf) -> bool:
    """Returns whether a leaf of a carry depends on the knockout; counts do not."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _at(values, ids: np.ndarray):
    """Returns the examples of some numbers, in each list of a nested dictionary."""
    if isinstance(values, dict):
        return {name: _at(items, ids) for name, items in values.items()}
    return [values[i] for i in ids] if values is not None and len(values) else values


def _without_empty(blocks: BootstrapBlocks) -> BootstrapBlocks:
    is_read = blocks.weight > 0
    return BootstrapBlocks(blocks.total[is_read], blocks.weight[is_read])
