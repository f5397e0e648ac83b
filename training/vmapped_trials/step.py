"""Many runs that differ in numbers alone, trained as one: K members along an axis.

What differs between members is an input of the step, [K] of each number; what they
share stays a constant of the program, so that it is as fast as that of one run. A
number is typed weakly, as Python's own are: it is rounded where and as a constant
would be, so a member's losses are those of the same run alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree
from ml_collections import ConfigDict

from training.metrics import WeightedMetrics
from training.optim.nt_asgd import VALIDATION_HOOKS, update_on_validation
from training.run_dir import flatten_config
from training.step import Step, tree_where
from utils.errors import UserError

VMAPPABLE_KEYS = frozenset(
    {
        "seed",
        "label_smoothing",
        "model.dropout",
        *(f"model.{place}_dropout" for place in ("attention", "feed_forward")),
        *(f"model.dropout_{place}" for place in ("input", "hidden", "embedding")),
        "model.weight_dropout",
        *(f"optim.{key}" for key in ("lr", "warmup", "final_lr_ratio", "weight_decay")),
        *(f"optim.{key}" for key in ("plateau_factor", "plateau_patience")),
        *(
            f"optim.{key}"
            for key in ("b1", "b2", "eps", "rho", "clip_norm", "momentum")
        ),
    }
)
# 0 leaves a part of the optimiser out: it is 0 for all members or for none.
ON_OFF_KEYS = frozenset({"optim.clip_norm", "optim.momentum"})

Numbers = dict[str, list[int] | list[float]]
StackedNumbers = dict[str, Array]  # [K] each


def shared_part(config: dict) -> dict[str, Any]:
    """What members of a population have in common, of a config's keys or some."""
    flat = flatten_config(config)
    fixed = {k: v for k, v in flat.items() if k not in VMAPPABLE_KEYS or v is None}
    switched = {key: bool(flat[key]) for key in ON_OFF_KEYS if key in flat}
    return fixed | switched


def varying_values(configs: Sequence[ConfigDict]) -> Numbers:
    """The numbers in which configs differ, of each config in order.

    Raises UserError for a key that may not differ.
    """
    first, *others = [shared_part(cfg.to_dict()) for cfg in configs]
    for other in others:
        for key in {**first, **other}:
            one, another = (part.get(key, "a number") for part in (first, other))
            if one != another:
                why = (
                    "0 for all or for none"
                    if key in ON_OFF_KEYS
                    else "the same for all"
                )
                raise UserError(
                    f"{key} is {one!r} and {another!r} in one population: it must "
                    f"be {why}"
                )
    found = [flatten_config(cfg.to_dict()) for cfg in configs]
    values = {
        key: [flat[key] for flat in found] for key in found[0] if key in VMAPPABLE_KEYS
    }
    return {key: row for key, row in values.items() if len(set(row)) > 1}


def stack_values(numbers: Numbers) -> StackedNumbers:
    """[K] of each, typed weakly."""

    def stack(row):
        return jax.lax.concatenate([jax.lax.full((1,), value) for value in row], 0)

    return {key: stack(row) for key, row in numbers.items()}


def with_values(cfg: ConfigDict, numbers: dict[str, Array]) -> ConfigDict:
    """A config with a member's numbers, which may be traced."""
    found = cfg.copy_and_resolve_references()
    with found.unlocked(), found.ignore_type():
        found.update_from_flattened_dict(numbers)
    return found


def vmapped_step(make: Callable[[dict[str, Array]], Step]) -> Callable:
    """(numbers, active, state, carry, batch) -> (state, carry, pairs), each but the
    batch of all members.

    A member that is not active stays as it is, whatever its numbers do; none sees
    another.

    Args:
      make: from the numbers of a member to its step.
    """

    def step(numbers, active, state, carry, batch):
        def one(numbers, is_active, state, carry):
            new, after, pairs = make(numbers)(state, carry, batch)
            return *tree_where(is_active, (new, after), (state, carry)), pairs

        return jax.vmap(one)(numbers, active, state, carry)

    return step


def update_trials_on_validation(
    opt_state: PyTree, losses: Float[Array, "K"], heard: Bool[Array, "K"]
) -> PyTree:
    """Optimisers' states after a validation of those members that had one."""

    def one(opt_state, loss, heard):
        return tree_where(heard, update_on_validation(opt_state, loss), opt_state)

    return jax.vmap(one)(opt_state, losses, heard)


def listens(opt_state: PyTree) -> bool:
    """Whether validations matter to an optimiser."""

    def is_listener(node):
        return type(node) in VALIDATION_HOOKS

    return any(map(is_listener, jax.tree.leaves(opt_state, is_leaf=is_listener)))


def select_trial_metrics(pairs: WeightedMetrics, member: int) -> WeightedMetrics:
    """One member's, of those of all that were brought to the host."""
    return {
        name: (value[member], weight[member]) for name, (value, weight) in pairs.items()
    }


def mask(members: Sequence[int], count: int) -> Bool[Array, "K"]:
    """True for some of `count` members."""
    return jnp.zeros(count, bool).at[jnp.asarray(members, int)].set(True)
