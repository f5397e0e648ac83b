"""Our own measured systems: a training step and a search.

python -m benchmarks.harness.subjects train --work=small
"""

import argparse
import functools
from collections.abc import Callable
from importlib import metadata

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from benchmarks.harness.protocol import serve
from benchmarks.harness.random_corpora import (
    BATCHES,
    Sentences,
    Text,
    VariedSentences,
    words,
)
from benchmarks.harness.training import TrainingStep
from benchmarks.harness.workloads import (
    WORKS,
    Product,
    Work,
    decoding_products,
    select,
    training_products,
)
from configs import base
from decoding.config import DecodingConfig
from experiment.build import Experiment, build_experiment
from experiment.setup import TrainingSetup, num_parameters
from training.profiling.environment import commit, num_threads
from utils.allocator import return_unused_memory, trim_heap, tune_allocator
from utils.cli import exit_with

VERSIONS = ("jax", "jaxlib", "flax", "numpy")
SEARCHED = ("source", "source_mask", "reset", "ids")  # what a search reads of a batch


def config(work: Work, dtype: str = "float32") -> ConfigDict:
    """Returns the config of a workload."""
    cfg = base.get_config(work.model)
    cfg.model.update({"width": work.width, "layers": work.layers, "dtype": dtype})
    if work.model == "rnn":
        sizes = dict.fromkeys(("embedding_width", "attention_width"), work.width)
        cfg.model.update({**sizes, "tie_embeddings": False})
    else:
        cfg.model.update({"heads": work.heads, "feed_forward": work.feed_forward})
    if work.is_translation:
        cfg.label_smoothing = 0.1
    else:
        cfg.task = "language_modeling"
        cfg.model.memory_length = work.memory
    cfg.optim.update({"name": "adam", "lr": 1e-4, "schedule": "constant"})
    cfg.optim.update(
        {"b1": 0.9, "b2": 0.98, "clip_norm": 0.0 if work.is_translation else 0.25}
    )
    return cfg


def experiment(work: Work, dtype: str = "float32") -> Experiment:
    """Builds the experiment of a workload."""
    vocabulary = words(work.vocabulary)
    sides = ("source", "target") if work.is_translation else ("text",)
    return build_experiment(config(work, dtype), dict.fromkeys(sides, vocabulary))


class Ours:
    """Base class of our measured systems."""

    def multiplier(self, product: Product, times: int) -> Callable[[], None]:
        """Returns a call that computes a product; see `Subject.multiplier`."""
        batch, rows, inner, columns, _ = product
        left, right = (
            jnp.ones(shape, self.dtype)
            for shape in ((batch, rows, inner), (batch, inner, columns))
        )
        if batch == 1:
            left, right = left[0], right[0]
        compiled = jax.jit(jnp.matmul).lower(left, right).compile()

        def call():
            found = [compiled(left, right) for _ in range(times)]
            jax.block_until_ready(found)
            del found
            return_unused_memory()  # which is none of a step's

        return call

    def facts(self) -> dict:
        """Returns the facts; on an accelerator the peak is that of its memory."""
        device = jax.devices()[0]
        found = {
            "device": device.device_kind,
            "threads": num_threads(),
            "versions": {name: metadata.version(name) for name in VERSIONS},
            "commit": commit(),
            "compilations": self.compilations(),
            "compilation_cache": bool(jax.config.jax_compilation_cache_dir),
            "parameters": self.parameters,
        }
        if statistics := device.memory_stats():
            found["peak_bytes"] = statistics["peak_bytes_in_use"]
        return found


def random_variables(experiment: Experiment, batch: dict) -> PyTree:
    """Returns randomly initialised parameters."""
    init = jax.jit(functools.partial(experiment.task.init, experiment.model))
    return nn.meta.unbox(init(jax.random.key(0), batch))


class TrainStep(TrainingStep, Ours):
    """Training step of `TrainingSetup`, with batches on the device."""

    def __init__(self, work: Work, dtype: str = "float32"):
        self.dtype = dtype
        self.products = training_products(work)
        kind = Sentences if work.is_translation else Text
        dataset = kind(work.rows, work.length, work.vocabulary)
        training = TrainingSetup.from_experiment(experiment(work, dtype), dataset)
        super().__init__(training, BATCHES)
        self.parameters = num_parameters(self.state.params)

    def step(self) -> None:
        super().step()
        trim_heap(self.number)

    def compilations(self) -> int:
        """Returns the number of compilations of the step."""
        return self.compiled.cache_size()


class Decoding(Ours):
    """Translation of batches with random parameters, as by `eval.py`.

    With `beam` 1 it is greedy search. Targets have exactly as many tokens as sources.
    With `varied` sentences have many lengths, in the batches of an evaluation. The
    largest length of a translation then depends on its source, so rows finish at
    different steps.
    """

    def __init__(
        self, work: Work, beam: int, dtype: str = "float32", varied: bool = False
    ):
        self.dtype = dtype
        self.products = [] if varied else decoding_products(work, beam)
        self.found = found = experiment(work, dtype)
        self.model, decode = found.evaluation_model, found.cfg.decode
        method = "beam" if beam > 1 else "greedy"
        decode.update({"method": method, "beam_size": beam})
        # The end symbol is the last token of every hypothesis.
        decode.update({"max_length": work.length, "min_length": work.length - 1})
        self.search = DecodingConfig.from_config(decode).single_best
        if varied:
            dataset = VariedSentences(BATCHES * work.rows, work.length, work.vocabulary)
            decode.max_length_ratio = dataset.factor
            batches = dataset.make_batches(work.rows * work.length)
            self.counts = {
                "tokens": int(dataset.limits.sum()),
                "needed": int((dataset.lengths + dataset.limits).sum()),
                "places": 2 * dataset.rows * dataset.length,
            }
        else:
            dataset = Sentences(work.rows, work.length, work.vocabulary)
            batches, self.counts = [dataset.train_batches()[0]], {}
        self.batches = [
            {name: batches[k][name] for name in SEARCHED} for k in range(len(batches))
        ]
        self.variables = random_variables(found, batches[0])
        self.carry = found.task.initial_carry(self.model, 1, train=False)
        self.parameters = num_parameters(self.variables)

    def step(self) -> None:
        """Runs one search over every batch."""
        task, cfg = self.found.task, self.found.cfg
        for batch in self.batches:
            inputs = self.variables, self.carry, batch
            found, _ = task.search(self.model, *inputs, cfg, self.search)
            self.lengths = np.asarray(found.lengths)

    def compilations(self) -> int:
        """Returns the number of compilations of the search."""
        return self.found.task._search._cache_size()

    def facts(self) -> dict:
        """Returns the facts, generated lengths, and tokens with and without padding."""
        lengths = np.unique(self.lengths).tolist()
        return super().facts() | {"new_tokens": lengths} | self.counts


def main() -> None:
    """Serves one measured system until its input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("train", "decode"))
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--varied", action="store_true", help="lengths of sources")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    work = select(WORKS, options.work, options.tiny)
    if options.kind == "train":
        serve(lambda: TrainStep(work, options.dtype))
    else:
        serve(lambda: Decoding(work, options.beam, options.dtype, options.varied))


if __name__ == "__main__":
    tune_allocator()
    exit_with(main)
