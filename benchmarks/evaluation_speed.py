"""Evaluation speed on long text (Dai et al. 2019, table 9).

python -m benchmarks.evaluation_speed --lengths=800,1800,2800,3800

Three ways to attend to A tokens before every prediction:
  memory   Transformer-XL with a memory of A tokens, as `eval.py` scores a text
  naive    a Transformer that reads a window of A tokens for each prediction, one
           window at a time and all of it through the output layer (Al-Rfou et al.
           2018, as the paper times it)
  batched  the same, several windows at once, and only the last position of each
           through the output layer
All models have the same size and random parameters. A JSON line per length; ratios are
relative to `memory`. Deviation from the paper: a smaller model, for CPUs; `--layers=12
--width=512 --feed_forward=2048` is its enwik8's.
"""

import argparse
import functools
import json
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from benchmarks.harness.protocol import spread
from configs import base
from data.batching.stream import LMEvalBatches
from data.token_cache import TokenizedSplit
from data.tokenizers.symbols import ByteTokenizer
from experiment.build import Experiment, build_experiment
from tasks.base import likelihood_loss
from training.profiling.environment import environment_info
from training.profiling.flops import flops_of
from utils.allocator import tune_allocator
from utils.errors import UserError

SIZES = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024}
TINY = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}


def experiment(name: str, sizes: dict, **changes) -> Experiment:
    """Builds a byte-level language model."""
    cfg = base.get_config(name)
    cfg.task = "language_modeling"
    cfg.model.update({**sizes, **changes, "norm": "pre", "dropout": 0.0})
    return build_experiment(cfg, {"text": ByteTokenizer()})


def random_variables(found: Experiment) -> PyTree:
    """Returns randomly initialised parameters."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    init = functools.partial(found.task.init, found.model)
    batch = {"tokens": tokens, "labels": tokens}
    return nn.meta.unbox(jax.jit(init)(jax.random.key(0), batch))


def random_text(length: int) -> TokenizedSplit:
    """Returns a text of random bytes."""
    size = ByteTokenizer().vocab_size
    tokens = np.random.default_rng(0).integers(4, size, length)
    counts = dict.fromkeys(("characters", "words", "size"), length)
    return TokenizedSplit(tokens.astype(np.int32), np.asarray([0, length]), **counts)


class WithMemory:
    """Transformer-XL with memory, scored as by `eval.py`.

    Attributes:
      tokens: number of tokens predicted per call.
    """

    def __init__(self, length: int, options: argparse.Namespace):
        # Every query attends to the same number of keys: the attention length.
        changes = {"memory_length": length, "same_length": True}
        self.found = experiment("transformer_xl", options.sizes, **changes)
        self.variables = random_variables(self.found)
        self.tokens = options.segment * options.segments
        text = random_text(self.tokens)
        self.batches = LMEvalBatches(text, batch_size=1, length=options.segment)

    def __call__(self) -> float:
        found = self.found
        card = found.task.evaluate(
            found.evaluation_model, self.variables, self.batches, found.cfg
        )
        return card["scores"]["loss"]["value"]

    def flops(self) -> float:
        """Returns the FLOPs per token of scoring a segment."""
        model = self.found.evaluation_model
        carry = model.initial_eval_carry(1, self.batches.length)
        prepared = model.apply(self.variables, carry, method="precompute")

        def score(variables, carry, batch):
            inputs = batch["tokens"], carry
            return likelihood_loss(
                model, variables, inputs, batch, None, smoothing=0.0, train=False
            )

        inputs = (self.variables | prepared, carry, self.batches[0])
        return flops_of(score, *inputs).forward / self.batches.length


class Windows:
    """Transformer that reads a full window for every predicted token.

    Attributes:
      tokens: number of tokens predicted per call.
      rows: number of windows per batch.
    """

    def __init__(self, length: int, options: argparse.Namespace, rows: int, last_only):
        self.found = experiment("transformer", options.sizes)
        self.variables = random_variables(self.found)
        self.tokens, self.rows = rows * options.windows, rows
        text = random_text(length + self.tokens).tokens
        places = np.arange(self.tokens)[:, None] + np.arange(length)
        self.windows, self.labels = text[places], text[places + 1]
        self.score = jax.jit(
            functools.partial(window_losses, self.found.model, last_only=last_only)
        )

    def __call__(self) -> np.ndarray:
        found = []
        for first in range(0, self.tokens, self.rows):
            part = slice(first, first + self.rows)
            losses = self.score(self.variables, self.windows[part], self.labels[part])
            found.append(np.asarray(losses[:, -1]))
        return np.concatenate(found)

    def flops(self) -> float:
        """Returns the FLOPs per token of a call."""
        part = slice(0, self.rows)
        inputs = (self.variables, self.windows[part], self.labels[part])
        return flops_of(self.score, *inputs).forward / self.rows


def window_losses(model, variables, tokens, labels, *, last_only: bool):
    """Returns the loss of every token, [B, T], or of the last ones, [B, 1]."""

    def losses(model):
        hidden, _ = model(tokens, (), train=False)
        scored = slice(-1, None) if last_only else slice(None)
        return -model.log_prob(hidden[:, scored], labels[:, scored])

    return nn.apply(losses, model)(variables)


def measure(length: int, options: argparse.Namespace) -> dict:
    """Measures one attention length and returns its JSON line."""
    rows = max(1, options.window_tokens // length)
    ways = {
        "memory": WithMemory(length, options),
        "naive": Windows(length, options, 1, last_only=False),
        "batched": Windows(length, options, rows, last_only=True),
    }
    flops = {name: way.flops() for name, way in ways.items()}
    for way in ways.values():
        way()  # compiles, and is not counted
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):  # in turn, so that load affects all alike
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append((time.perf_counter() - begin) / way.tokens)
    spreads = {name: spread(values) for name, values in seconds.items()}
    medians = {name: found["median"] for name, found in spreads.items()}
    return {
        "length": length,
        "seconds_per_token": spreads,
        "tokens_per_second": {name: 1 / median for name, median in medians.items()},
        "ratio": ratios(medians),
        "flops_per_token": flops,
        "flop_ratio": ratios(flops),
        "flops_are": "of products, 2 a multiplication, by training/profiling/flops.py",
        "model": options.sizes,
        "segment": options.segment,
        "windows_at_once": rows,
        "rounds": options.rounds,
    }


def ratios(values: dict[str, float]) -> dict[str, float]:
    """Returns values relative to those with a memory."""
    names = ("naive", "batched")
    return {name: values[name] / values["memory"] for name in names}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="", help="attention lengths A, in tokens")
    parser.add_argument("--tiny", action="store_true", help="a tiny run, for tests")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--segment", type=int, default=128, help="tokens, with memory")
    parser.add_argument("--segments", type=int, default=8, help="a measurement")
    parser.add_argument("--windows", type=int, default=2, help="calls a measurement")
    parser.add_argument("--window_tokens", type=int, default=8192, help="side by side")
    parser.add_argument("--rounds", type=int, default=5, help="measurements each")
    options = parser.parse_args(arguments)
    lengths = options.lengths or ("16,32" if options.tiny else "800,1800,2800,3800")
    try:
        options.lengths = [int(length) for length in lengths.split(",")]
    except ValueError:
        parser.error(f"--lengths={lengths}: must be integers")
    for name in ("segment", "segments", "windows", "window_tokens"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)} must be at least 1")
    if min(options.lengths) < 1:
        parser.error(f"--lengths={lengths} must be at least 1")
    if options.rounds < 2:
        parser.error(f"--rounds={options.rounds}: at least 2 are needed for quartiles")
    options.sizes = {name: getattr(options, name) for name in SIZES}
    if options.tiny:
        small = {"segment": 8, "segments": 2, "window_tokens": 64, "rounds": 2}
        vars(options).update(small, sizes=TINY)
    return options


def main() -> int:
    """A JSON object a line."""
    options = parse(sys.argv[1:])
    about = environment_info()
    keys = ("devices", "threads", "versions", "commit")
    try:
        for length in options.lengths:
            line = measure(length, options) | {key: about[key] for key in keys}
            print(json.dumps(line), flush=True)
    except UserError as error:  # such as a width that heads do not divide
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    tune_allocator()
    sys.exit(main())
