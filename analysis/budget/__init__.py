"""Model sizes at equal parameters, training FLOPs or training time.

A size is found by bisection over the width; the other sizes keep their ratio to it.
"""

import dataclasses
import functools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence

from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError
from utils.ranges import check_range

TIMED_STEPS = 5  # after the one that compiles
NEAR = 0.01  # largest relative difference from the budget that counts as equal

# Sizes that keep their ratio to the width; those that are 0 follow it by themselves.
SCALED_SIZES = (
    *("feed_forward", "embedding_width", "head_dim"),
    *("attention_width", "maxout_width"),
)

Cost = Callable[[object], float]  # the cost of a config's training
FormatCost = Callable[[float], str]  # a cost with its unit


def num_parameters(cfg) -> int:
    """Counts the parameters of a config's model."""
    from analysis.plan.step import parameter_shapes
    from experiment import setup

    return setup.num_parameters(parameter_shapes(cfg))


def training_flops(cfg) -> int:
    """Counts the FLOPs of all training steps, each on the longest batch."""
    from analysis.plan.step import StepSpec

    return StepSpec.from_config(cfg).flops() * cfg.steps


def training_seconds(cfg) -> float:
    """Times a few steps on these devices; returns their median times `cfg.steps`."""
    import jax
    import jax.numpy as jnp

    from analysis.plan.step import StepSpec

    step = StepSpec.from_config(cfg)
    inputs = step.input_shapes(step.batch_size)
    arrays = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), inputs)
    gradient = jax.jit(step.gradient)
    jax.block_until_ready(gradient(*arrays, 0))
    seconds = []
    for seed in range(TIMED_STEPS):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(*arrays, seed))
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) * cfg.steps


COSTS: dict[str, tuple[Cost, FormatCost]] = {
    "parameters": (num_parameters, "{:,.0f} parameters".format),
    "flops": (training_flops, "{:.4g} FLOPs of training".format),
    "seconds": (training_seconds, "{:,.1f} s of training".format),
}


@dataclasses.dataclass(frozen=True)
class MatchedModel:
    """A model with the settings at which its cost is nearest to the budget."""

    model: str  # the argument of the config file, after the colon of --config
    settings: dict[str, int]  # values of config keys, as in a search space
    cost: float
    target: float

    @property
    def relative_error(self) -> float:
        return self.cost / self.target - 1  # negative: cheaper

    @property
    def is_near(self) -> bool:
        return abs(self.relative_error) <= NEAR


def match_models(
    config: str,
    models: Sequence[str],
    equal: str,
    target: float | None = None,
    vary: str = "width",
    overrides: dict | None = None,
) -> list[MatchedModel]:
    """Finds the settings at which several models of a config have the same cost.

    Args:
      equal: a key of COSTS.
      target: None: the cost of the first model.
      vary: "width" or "steps".

    Raises UserError for an unknown argument, and for a budget that is too small.
    """
    if equal not in COSTS:
        raise UserError(f"Unknown --equal={equal}; choose one of {', '.join(COSTS)}")
    if vary not in ("width", "steps") or (vary == "steps" and equal == "parameters"):
        raise UserError(
            f"--vary={vary} --equal={equal}: choose --vary=width, or --vary=steps with "
            "--equal=flops or seconds"
        )
    if ":" in config:
        raise UserError(f"--config={config}: name the models in --models instead")
    cost, format_cost = COSTS[equal]
    experiments = [
        TrialConfigs.from_flag(f"{config}:{model}", overrides or {}) for model in models
    ]
    for experiment in experiments:
        epochs = experiment.config({}).epochs
        if epochs and equal != "parameters":
            raise UserError(
                f"--equal={equal}: {experiment.model} trains for epochs={epochs:g}, so "
                "its number of steps depends on the corpus: set --config.epochs=0 "
                "--config.steps=N, here and for sweep.py (make compare: CONFIGFLAGS=)"
            )
    if target is None:
        target = cost(experiments[0].config({}))
    if vary == "steps":
        return [match_steps(one, cost, target) for one in experiments]
    return [match_width(one, cost, target, format_cost) for one in experiments]


def match_steps(experiment: TrialConfigs, cost: Cost, target: float) -> MatchedModel:
    """Finds the number of steps at which a model of unchanged sizes costs `target`."""
    cfg = experiment.config({})
    step_cost = cost(cfg) / cfg.steps
    steps = max(1, round(target / step_cost))
    check_range(f"--to={target:g}: steps", steps)
    return MatchedModel(experiment.model, {"steps": steps}, steps * step_cost, target)


def match_width(
    experiment: TrialConfigs, cost: Cost, target: float, format_cost: FormatCost
) -> MatchedModel:
    """Finds the width of cost nearest to `target`. Raises UserError if that is 0."""
    model = experiment.config({}).model
    unit = width_multiple(model)

    @functools.cache
    def cost_at(multiple: int) -> float:
        return cost(experiment.config(scaled_sizes(model, unit * multiple)))

    multiple = bisect_int(cost_at, target, start=max(1, model.width // unit))
    if multiple == 0:
        raise UserError(
            f"A budget of {format_cost(target)} is too small for {experiment.model}: "
            f"its smallest width, model.width={unit}, takes {format_cost(cost_at(1))}"
        )
    sizes = scaled_sizes(model, unit * multiple)
    return MatchedModel(experiment.model, sizes, cost_at(multiple), target)


def bisect_int(function: Callable[[int], float], target: float, *, start: int) -> int:
    """Finds the integer >= 1 at which a rising function is nearest to `target`.

    Returns 0 where the function exceeds the target at 1 already.
    """

    def growth(number: int) -> float:  # matrices grow with the square of the width
        return max(0.25, min(4.0, math.sqrt(target / function(number))))

    low = high = start
    while function(high) < target:  # ends: costs rise at least linearly with the width
        low = high
        high = max(high + 1, round(high * growth(high)))
    while low > 1 and function(low) > target:
        high = low
        low = max(1, min(low - 1, round(low * growth(low))))
    if function(low) > target:
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if function(middle) <= target else (low, middle)
    return min((low, high), key=lambda number: abs(function(number) - target))


def width_multiple(model) -> int:
    """Returns the number that every width of a model must be a multiple of."""
    heads = 1 if model.get("head_dim") else model.get("heads", 1)
    encoding = model.get("position_encoding")
    if encoding == "rotary":  # rotates pairs of numbers within a head
        return 2 * heads
    return math.lcm(heads, 2) if encoding in ("sinusoidal", "relative") else heads


def scaled_sizes(model, width: int) -> dict[str, int]:
    """Returns the sizes of a model scaled to a width, as keys of its config."""
    sizes = {"model.width": width}
    unused = {"maxout_width"} if model.get("readout") != "maxout" else set()
    for key in SCALED_SIZES:
        if (size := model.get(key, 0)) and key not in unused:
            scaled = max(1, round(size * width / model.width))
            sizes[f"model.{key}"] = scaled + (key == "head_dim" and scaled % 2)
    return sizes


def format_match(match: MatchedModel, format_cost: FormatCost) -> str:
    """Formats the match, such as `12,034,112 of 12,000,000 parameters, +0.3%`."""
    number, _, unit = format_cost(match.cost).partition(" ")
    target = format_cost(match.target).partition(" ")[0]
    line = f"{number} of {target} {unit}, {match.relative_error:+.1%}"
    return line if match.is_near else f"{line}: the nearest possible size"


def format_table(matches: Sequence[MatchedModel], format_cost: FormatCost) -> str:
    """Formats two lines per model: how near it is, and its command-line flags."""
    lines = []
    for match in matches:
        flags = " ".join(f"--config.{k}={v}" for k, v in match.settings.items())
        lines.append(f"{match.model:15} {format_match(match, format_cost)}")
        lines.append(f"{'':15} {flags}")
    return "\n".join(lines)


def space_source(
    config: str, matches: Sequence[MatchedModel], format_cost: FormatCost, seeds: int
) -> str:
    """Returns the source of a search space for sweep.py with the matched models."""
    points = ""
    for match in matches:
        settings = {"model": match.model, **match.settings}.items()
        rows = "".join(
            f"        {json.dumps(k)}: {json.dumps(v)},\n" for k, v in settings
        )
        points += f"    # {format_match(match, format_cost)}\n    {{\n{rows}    }},\n"
    target = format_cost(matches[0].target)
    return f'''"""The architectures of {config}, each with {target}.

    python sweep.py --config={config} --space=THIS_FILE --workdir=DIR

Generated by analysis/budget.
"""

from sweeps.search_space import Space, listed, product, seeds

POINTS = [
{points}]


def get_space() -> Space:
    """{len(matches)} x {seeds} trials; the seed changes fastest."""
    return Space(product(listed(POINTS), seeds({seeds})))
'''


def parse_target(text: str | None) -> float | None:
    """Parses --to. Raises UserError for anything but a finite number above 0."""
    try:
        target = None if text is None else float(text)
    except ValueError as error:
        raise UserError(f"--to={text} must be a number, such as 3e6 or 1e15") from error
    if target is not None and not 0 < target < math.inf:
        raise UserError(f"--to={text} must be finite and greater than 0")
    return target
