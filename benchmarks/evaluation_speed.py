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
import sys
from collections.abc import Iterator

import flax.linen as nn
import jax
import numpy as np

from benchmarks.harness import cli
from benchmarks.harness.protocol import seconds_of, spread
from benchmarks.harness.random_corpora import encoded
from benchmarks.harness.subjects import random_variables
from configs import base
from data.batching.stream import LMEvalBatches
from data.token_cache import TokenizedSplit
from data.tokenizers.symbols import ByteTokenizer
from experiment.build import Experiment, build_experiment
from tasks.base import likelihood_loss
from training.profiling.environment import environment_info
from training.profiling.flops import flops_of
from utils.allocator import tune_allocator
from utils.cli import exit_with

SIZES = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024}
TOKEN = dict.fromkeys(("tokens", "labels"), np.zeros((1, 1), np.int32))


def experiment(name: str, sizes: dict, **changes) -> Experiment:
    """Builds a byte-level language model."""
    cfg = base.get_config(name)
    cfg.task = "language_modeling"
    cfg.model.update({**sizes, **changes, "norm": "pre", "dropout": 0.0})
    return build_experiment(cfg, {"text": ByteTokenizer()})


def random_text(length: int) -> TokenizedSplit:
    """Returns a text of random bytes."""
    return encoded(np.asarray([length]), ByteTokenizer().vocab_size, seed=0)


class WithMemory:
    """Transformer-XL with memory, scored as by `eval.py`.

    Attributes:
      tokens: number of tokens predicted per call.
    """

    def __init__(self, length: int, options: argparse.Namespace):
        # Every query attends to the same number of keys: the attention length.
        changes = {"memory_length": length, "same_length": True}
        self.found = experiment("transformer_xl", options.sizes, **changes)
        self.variables = random_variables(self.found, TOKEN)
        self.tokens = options.segment * options.segments
        text = random_text(self.tokens)
        self.batches = LMEvalBatches(text, batch_size=1, length=options.segment)

    def __call__(self) -> float:
        found = self.found
        inputs = found.evaluation_model, self.variables, self.batches, found.cfg
        card = found.task.evaluate(*inputs)
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
        self.variables = random_variables(self.found, TOKEN)
        self.tokens, self.rows = rows * options.windows, rows
        text = random_text(length + self.tokens + 1).tokens  # without the end symbol
        places = np.arange(self.tokens)[:, None] + np.arange(length)
        self.windows, self.labels = text[places], text[places + 1]
        self.score = jax.jit(
            functools.partial(window_losses, self.found.model, last_only=last_only)
        )

    def __call__(self) -> np.ndarray:
        losses = [
            np.asarray(self.score(*self.inputs(first))[:, -1])
            for first in range(0, self.tokens, self.rows)
        ]
        return np.concatenate(losses)

    def inputs(self, first: int) -> tuple:
        """Returns the inputs of `score` for a batch of windows."""
        part = slice(first, first + self.rows)
        return self.variables, self.windows[part], self.labels[part]

    def flops(self) -> float:
        """Returns the FLOPs per token of a call."""
        return flops_of(self.score, *self.inputs(0)).forward / self.rows


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
            seconds[name].append(seconds_of(way) / way.tokens)
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
    parser = cli.make_parser(__doc__, **SIZES)
    add, lengths = parser.add_argument, "800,1800,2800,3800"
    add("--lengths", type=cli.positives, default=lengths, help="A, in tokens")
    add("--segment", type=cli.positive, default=128, help="tokens, with memory")
    add("--segments", type=cli.positive, default=8, help="a measurement")
    add("--windows", type=cli.positive, default=2, help="calls a measurement")
    add("--window_tokens", type=cli.positive, default=8192, help="side by side")
    add("--rounds", type=cli.at_least(2), default=5, help="measurements each")
    tiny = {"segment": 8, "segments": 2, "window_tokens": 64, "rounds": 2}
    tiny |= {"lengths": [16, 32], **cli.TINY}
    options = cli.parse_options(parser, arguments, **tiny)
    options.sizes = {name: getattr(options, name) for name in SIZES}
    return options


def lines(options: argparse.Namespace) -> Iterator[dict]:
    """Yields a line per attention length."""
    about = environment_info()
    about = {key: about[key] for key in ("devices", "threads", "versions", "commit")}
    for length in options.lengths:
        yield measure(length, options) | about


def main() -> int:
    """Prints a JSON line per attention length."""
    return cli.print_lines(lines(parse(sys.argv[1:])))


if __name__ == "__main__":
    tune_allocator()
    exit_with(main)
