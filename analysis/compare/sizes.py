"""Sizes and numbers of steps at which architectures have one budget of training.

The budget is one of QUANTITIES. The width is found by bisection, and the other sizes
keep their ratio to it. Where no width is near enough, one other size is adapted.
"""

import dataclasses
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from analysis.compare.corpus import BatchShape, Corpus
from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError
from utils.ranges import check_range

TIMED_STEPS = 5  # after the one that compiles

# Sizes that keep their ratio to the width; those that are 0 follow it by themselves.
SCALED_SIZES = (
    *("feed_forward", "embedding_width", "head_dim"),
    *("attention_width", "maxout_width"),
)
# Sizes of which the first that a model has is adapted, since widths are multiples.
ADAPTED_SIZES = ("model.feed_forward", "model.attention_width", "model.embedding_width")

Sizes = dict[str, int]  # by config key


def num_parameters(cfg, corpus: Corpus | None = None) -> int:
    """Counts the parameters of a config's model."""
    from analysis.plan.step import parameter_shapes
    from experiment import setup

    tokenizers = corpus and corpus.tokenizers
    return setup.num_parameters(parameter_shapes(cfg, tokenizers))


def training_flops(cfg, corpus: Corpus | None = None) -> float:
    """Counts the FLOPs of all training steps."""
    step, shapes = step_and_shapes(cfg, corpus)
    return cfg.steps * sum(one.share * step.flops(one.batch) for one in shapes)


def training_tokens(cfg, corpus: Corpus | None = None) -> float:
    """Counts the tokens of all training steps, with padding."""
    _, shapes = step_and_shapes(cfg, corpus)
    return cfg.steps * sum(one.share * one.tokens.size for one in shapes)


def training_seconds(cfg, corpus: Corpus | None = None) -> float:
    """Times a few steps of each shape on these devices; returns that of all steps."""
    import jax
    import jax.numpy as jnp

    step, shapes = step_and_shapes(cfg, corpus)
    gradient, mean = jax.jit(step.gradient), 0.0
    for one in shapes:
        inputs = step.inputs_with(one.batch)
        arrays = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), inputs)
        jax.block_until_ready(gradient(*arrays, 0))
        seconds = []
        for seed in range(TIMED_STEPS):
            begin = time.perf_counter()
            jax.block_until_ready(gradient(*arrays, seed))
            seconds.append(time.perf_counter() - begin)
        mean += one.share * statistics.median(seconds)
    return cfg.steps * mean


def step_and_shapes(cfg, corpus: Corpus | None):
    """Returns the training step of a config, and the shapes of its batches.

    Without a corpus every batch is the longest one.
    """
    from analysis.plan.step import StepSpec

    step = StepSpec.from_config(cfg, corpus and corpus.tokenizers)
    if corpus is None:
        return step, [BatchShape(step.longest_batch, 1.0)]
    return step, corpus.batch_shapes(cfg)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Quantity of which each architecture gets the same.

    Attributes:
      cost: returns how much of it a config's training takes, given the corpus, or with
        vocabularies of the size `data.vocab_size` and the longest batches.
      format_cost: formats a cost with its unit.
      tolerance: largest relative difference from the budget that counts as equal.
    """

    cost: Callable[..., float]
    format_cost: Callable[[float], str]
    tolerance: float = 0.01

    def of_corpus(self, corpus: Corpus | None) -> "Quantity":
        """Returns the quantity of trainings on a corpus."""
        cost = functools.partial(self.cost, corpus=corpus)
        return dataclasses.replace(self, cost=cost)


QUANTITIES = {
    "parameters": Quantity(num_parameters, "{:,.0f} parameters".format),
    "flops": Quantity(training_flops, "{:.4g} FLOPs of training".format),
    # Medians of repeated measurements differ by some per cent.
    "seconds": Quantity(training_seconds, "{:,.1f} s of training".format, 0.1),
    "tokens": Quantity(training_tokens, "{:,.0f} tokens of training".format),
}


@dataclasses.dataclass(frozen=True)
class Match:
    """Settings at which a model's cost is nearest to the budget."""

    settings: Sizes
    cost: float
    target: float

    @property
    def relative_error(self) -> float:
        return self.cost / self.target - 1  # negative: cheaper

    def format(self, quantity: Quantity) -> str:
        """Formats the match, such as `12,034,112 of 12,000,000 parameters, +0.3%`."""
        number, _, unit = quantity.format_cost(self.cost).partition(" ")
        target = quantity.format_cost(self.target).partition(" ")[0]
        return f"{number} of {target} {unit}, {self.relative_error:+.1%}"


def match_steps(
    configs: TrialConfigs, point: Mapping[str, Any], quantity: Quantity, target: float
) -> Match:
    """Finds the number of steps at which a model of unchanged sizes costs `target`.

    Args:
      point: values of config keys.

    Raises:
      UserError: no number of steps is near enough.
    """
    cfg = configs.config(point)
    step_cost = quantity.cost(cfg) / cfg.steps
    steps = max(1, round(target / step_cost))
    check_range(f"a budget of {quantity.format_cost(target)}: steps", steps)
    match = Match({"steps": steps}, steps * step_cost, target)
    return check_match(match, quantity, configs.model)


def match_width(
    configs: TrialConfigs, point: Mapping[str, Any], quantity: Quantity, target: float
) -> Match:
    """Finds the sizes of cost nearest to `target`.

    Args:
      point: values of config keys.

    Raises:
      UserError: the smallest width costs more, or no sizes are near enough.
    """
    model = configs.config(point).model
    unit = width_multiple(model)

    @functools.cache
    def cost_at(multiple: int) -> float:
        sizes = scaled_sizes(model, unit * multiple)
        return quantity.cost(configs.config({**point, **sizes}))

    multiple = bisect_int(cost_at, target, start=max(1, model.width // unit))
    if multiple == 0:
        raise UserError(
            f"A budget of {quantity.format_cost(target)} is too small for "
            f"{configs.model}: its smallest width, model.width={unit}, takes "
            f"{quantity.format_cost(cost_at(1))}"
        )
    match = Match(scaled_sizes(model, unit * multiple), cost_at(multiple), target)
    if abs(match.relative_error) > quantity.tolerance:
        match = adapt_one_size(match, configs, point, quantity)
    return check_match(match, quantity, configs.model)


def adapt_one_size(
    match: Match, configs: TrialConfigs, point: Mapping[str, Any], quantity: Quantity
) -> Match:
    """Changes the first of ADAPTED_SIZES that has a cost, to be nearer to the budget.

    A transformer's width is a multiple of its heads, its feed-forward width is not.
    """

    @functools.cache
    def cost_at(key: str, size: int) -> float:
        sizes = {**match.settings, key: size}
        return quantity.cost(configs.config({**point, **sizes}))

    for key in filter(match.settings.get, ADAPTED_SIZES):
        start = match.settings[key]
        if cost_at(key, 2 * start) <= match.cost:
            continue
        cost_of_key = functools.partial(cost_at, key)
        if size := bisect_int(cost_of_key, match.target, start=start):
            return Match(
                {**match.settings, key: size}, cost_at(key, size), match.target
            )
        return match
    return match


def check_match(match: Match, quantity: Quantity, model: str | None) -> Match:
    """Returns the match. Raises UserError if its cost is not near the budget."""
    if abs(match.relative_error) > quantity.tolerance:
        settings = " ".join(f"{key}={size}" for key, size in match.settings.items())
        raise UserError(
            f"{model} cannot have a budget of {quantity.format_cost(match.target)}: "
            f"the nearest is {quantity.format_cost(match.cost)}, with {settings}"
        )
    return match


def bisect_int(function: Callable[[int], float], target: float, *, start: int) -> int:
    """Finds the integer >= 1 at which a rising function is nearest to `target`.

    It interpolates and bisects in turn, since a cost can take a second to evaluate.
    Returns 0 where the function exceeds the target at 1 already.
    """

    def growth(number: int) -> float:  # matrices grow with the square of the width
        return max(0.25, min(4.0, math.sqrt(target / function(number))))

    def interpolated(low: int, high: int) -> int:
        first, last = math.sqrt(function(low)), math.sqrt(function(high))
        share = (math.sqrt(target) - first) / (last - first) if last > first else 0.5
        return min(max(low + round((high - low) * share), low + 1), high - 1)

    low = high = start
    while function(high) < target:  # ends: costs rise at least linearly with the width
        low = high
        high = max(high + 1, round(high * growth(high)))
    while low > 1 and function(low) > target:
        high = low
        low = max(1, min(low - 1, round(low * growth(low))))
    if function(low) > target:
        return 0
    guesses = itertools.cycle((interpolated, lambda low, high: (low + high) // 2))
    while high - low > 1:
        middle = next(guesses)(low, high)
        low, high = (middle, high) if function(middle) <= target else (low, middle)
    return min((low, high), key=lambda number: abs(function(number) - target))


def width_multiple(model) -> int:
    """Returns the number that every width of a model must be a multiple of."""
    heads = 1 if model.get("head_dim") else model.get("heads", 1)
    encoding = model.get("position_encoding")
    if encoding == "rotary":  # rotates pairs of numbers within a head
        return 2 * heads
    return math.lcm(heads, 2) if encoding in ("sinusoidal", "relative") else heads


def scaled_sizes(model, width: int) -> Sizes:
    """Returns the sizes of a model scaled to a width, as keys of its config."""
    sizes = {"model.width": width}
    unused = {"maxout_width"} if model.get("readout") != "maxout" else set()
    for key in SCALED_SIZES:
        if (size := model.get(key, 0)) and key not in unused:
            scaled = max(1, round(size * width / model.width))
            sizes[f"model.{key}"] = scaled + (key == "head_dim" and scaled % 2)
    return sizes
