"""Models of a config made equal in parameters, training FLOPs or training time."""

import json
import statistics
import time
from collections.abc import Callable, Sequence

from analysis.budget.equal_sizes import Solved, solve_steps, solve_width
from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError

TIMED = 5  # steps, after the one that compiles


def parameters(cfg) -> int:
    """Numbers that a config's model learns."""
    from analysis.plan import parameters
    from experiment import setup

    return setup.num_parameters(parameters.parameters(cfg))


def training_flops(cfg) -> int:
    """Of all steps, each on the longest batch."""
    from analysis.plan.step import PlannedStep

    return PlannedStep.of(cfg).flops() * cfg.steps


def training_seconds(cfg) -> float:
    """Of all steps on these devices, from the median of a few; clocks are noisy."""
    import jax
    import jax.numpy as jnp

    from analysis.plan.step import PlannedStep

    step = PlannedStep.of(cfg)
    inputs = step.inputs(step.rows)
    arrays = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), inputs)
    gradient = jax.jit(step.gradient)
    jax.block_until_ready(gradient(*arrays, 0))
    found = []
    for seed in range(TIMED):
        begin = time.perf_counter()
        jax.block_until_ready(gradient(*arrays, seed))
        found.append(time.perf_counter() - begin)
    return statistics.median(found) * cfg.steps


COSTS: dict[str, tuple[Callable, Callable[[float], str]]] = {
    "parameters": (parameters, "{:,.0f} parameters".format),
    "flops": (training_flops, "{:.4g} FLOPs of training".format),
    "seconds": (training_seconds, "{:,.1f} s of training".format),
}


def equal_models(
    config: str,
    models: Sequence[str],
    equal: str,
    target: float | None = None,
    vary: str = "width",
    overrides: dict | None = None,
) -> list[Solved]:
    """What makes each of some models of a config cost the same.

    Args:
      models: the first gives the budget, where `target` is None.
      equal: a key of COSTS.
      overrides: keys of the config that all models are given.

    Raises UserError for what is not known, and for a budget that is too small.
    """
    if equal not in COSTS:
        raise UserError(f"--equal={equal}: there are {', '.join(COSTS)}")
    if vary not in ("width", "steps") or (vary == "steps" and equal == "parameters"):
        raise UserError(
            f"--vary={vary} --equal={equal}: vary width, or steps of flops or seconds"
        )
    if ":" in config:
        raise UserError(f"--config={config}: without a model; those are in --models")
    cost, words = COSTS[equal]
    given = overrides or {}
    experiments = [
        TrialConfigs.from_flag(f"{config}:{model}", given) for model in models
    ]
    if equal != "parameters":
        for one in experiments:
            check_steps(one, equal)
    if target is None:
        target = cost(experiments[0].config({}))
    if vary == "steps":
        return [solve_steps(one, cost, target) for one in experiments]
    return [solve_width(one, cost, target, words) for one in experiments]


def check_steps(experiment: TrialConfigs, equal: str) -> None:
    """Raises UserError where only the corpus says how many steps a training has."""
    if epochs := experiment.config({}).epochs:
        raise UserError(
            f"--equal={equal}: {experiment.model} trains for epochs={epochs:g}, of as "
            "many steps as the corpus has batches: set --config.epochs=0 "
            "--config.steps=N, here and for sweep.py (make compare: CONFIGFLAGS=)"
        )


def told(solved: Solved, words: Callable[[float], str]) -> str:
    """How near it came, such as `12,034,112 of 12,000,000 parameters, +0.3%`."""
    number, _, unit = words(solved.cost).partition(" ")
    wanted = words(solved.target).partition(" ")[0]
    line = f"{number} of {wanted} {unit}, {solved.miss:+.1%}"
    return line if solved.is_near else f"{line}: the nearest that was found"


def table(found: Sequence[Solved], words: Callable[[float], str]) -> str:
    """Two lines a model: how near, and its keys for a command line."""
    lines = []
    for solved in found:
        flags_of = " ".join(f"--config.{k}={v}" for k, v in solved.point.items())
        lines += [f"{solved.model:15} {told(solved, words)}", f"{'':15} {flags_of}"]
    return "\n".join(lines)


def space_text(
    config: str, found: Sequence[Solved], words: Callable[[float], str], seeds: int
) -> str:
    """A file for sweep.py that trains each model so."""
    literals = [_literal({"model": one.model, **one.point}) for one in found]
    points = "".join(
        f"    # {told(one, words)}\n    {literal},\n"
        for one, literal in zip(found, literals, strict=True)
    )
    return f'''"""The architectures of {config}, each with {words(found[0].target)}.

    python sweep.py --config={config} --space=THIS_FILE --workdir=DIR

Made by analysis/budget/__main__.py.
"""

from sweeps.search_space import Space, listed, product, seeds

POINTS = [
{points}]


def get_space() -> Space:
    """{len(found)} x {seeds} trials; the seed changes fastest."""
    return Space(product(listed(POINTS), seeds({seeds})))
'''


def _literal(point: dict) -> str:
    rows = "".join(
        f"        {json.dumps(k)}: {json.dumps(v)},\n" for k, v in point.items()
    )
    return "{\n" + rows + "    }"


def parse_target(text: str | None) -> float | None:
    """Of --to. Raises UserError for what is no number above 0."""
    if text is None:
        return None
    try:
        target = float(text)
    except ValueError as error:
        raise UserError(f"--to={text}: a number, such as 3000000 or 1e15") from error
    if not 0 < target < float("inf"):
        raise UserError(f"--to={text}: more than 0 is needed")
    return target
