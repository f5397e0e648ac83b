"""The training step of K trials with vmap, which differ in scalar settings only.

A setting that varies between trials is an input [K] of the step; the others stay
constants of the program, which is therefore as fast as that of one run. Inputs are
weakly typed, as Python scalars are, and so are rounded where a constant would be: the
losses of a trial are those of the same run alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree
from ml_collections import ConfigDict

from training.optim.on_validation import depends_on_validation, update_on_validation
from training.run_dir import flatten_config
from training.step import Step, tree_where
from utils.errors import UserError

# 0 leaves out a part of the optimizer, so it must be 0 for all trials or for none.
ON_OFF_KEYS = frozenset({"optim.clip_norm", "optim.momentum"})
VMAPPABLE_KEYS = frozenset(
    {
        "seed",
        "label_smoothing",
        "model.dropout",
        *(f"model.{place}_dropout" for place in ("attention", "feed_forward")),
        *(f"model.dropout_{place}" for place in ("input", "hidden", "embedding")),
        "model.weight_dropout",
        "head.dropout",
        *(f"optim.{key}" for key in ("lr", "warmup", "final_lr_ratio", "weight_decay")),
        *(f"optim.{key}" for key in ("plateau_factor", "plateau_patience")),
        *(f"optim.step_decay_{key}" for key in ("start", "interval", "factor")),
        *(f"optim.{key}" for key in ("b1", "b2", "eps", "rho")),
        *ON_OFF_KEYS,
    }
)

Values = dict[str, list[int] | list[float]]  # a value for each trial
StackedValues = dict[str, Array]  # [K] each


def shared_part(config: dict) -> dict[str, Any]:
    """Returns the settings that trials must share, of a whole or partial config."""
    flat = flatten_config(config)
    fixed = {k: v for k, v in flat.items() if k not in VMAPPABLE_KEYS or v is None}
    return fixed | {key: bool(flat[key]) for key in ON_OFF_KEYS if key in flat}


def varying_values(configs: Sequence[ConfigDict]) -> Values:
    """Returns the settings in which configs differ, with a value for each config.

    Raises:
      UserError: they differ in a setting that trials must share.
    """
    first, *others = [shared_part(cfg.to_dict()) for cfg in configs]
    for other in others:
        for key in {**first, **other}:
            one, another = (part.get(key, "a number") for part in (first, other))
            if one != another:
                is_switch = key in ON_OFF_KEYS
                rule = "0 for all or for none" if is_switch else "the same for all"
                raise UserError(
                    f"{key} is {one!r} and {another!r} in trials that train as one "
                    f"program: it must be {rule}"
                )
    flats = [flatten_config(cfg.to_dict()) for cfg in configs]
    keys = [key for key in flats[0] if key in VMAPPABLE_KEYS]
    values = {key: [flat[key] for flat in flats] for key in keys}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


def stack_values(values: Values) -> StackedValues:
    """Returns weakly typed arrays [K]."""
    return {
        key: jax.lax.concatenate([jax.lax.full((1,), value) for value in column], 0)
        for key, column in values.items()
    }


def with_values(cfg: ConfigDict, values: dict[str, Array]) -> ConfigDict:
    """Returns a copy of a config with a trial's values, which may be traced."""
    copy = cfg.copy_and_resolve_references()
    with copy.unlocked(), copy.ignore_type():
        copy.update_from_flattened_dict(values)
    return copy


def vmapped_step(make_step: Callable[[dict[str, Array]], Step]) -> Callable:
    """Returns (values, active, state, carry, batch) -> (state, carry, metrics).

    All but the batch have an axis [K]. A trial that is not active stays as it is,
    whatever its values; no trial affects another.

    Args:
      make_step: returns the step of a trial for its values.
    """

    def step(values, active, state, carry, batch):
        def trial_step(values, is_active, state, carry):
            *new, metrics = make_step(values)(state, carry, batch)
            return *tree_where(is_active, tuple(new), (state, carry)), metrics

        return jax.vmap(trial_step)(values, active, state, carry)

    return step


def update_trials_on_validation(
    opt_state: PyTree, losses: Float[Array, "K"], validated: Bool[Array, "K"]
) -> PyTree:
    """Passes validation losses to the optimizer states of the validated trials."""

    def update(opt_state, loss, is_validated):
        updated = update_on_validation(opt_state, loss)
        return tree_where(is_validated, updated, opt_state)

    return jax.vmap(update)(opt_state, losses, validated)


def needs_validation_loss(opt_state: PyTree) -> bool:
    """Whether a part of an optimizer's state depends on validation losses."""
    nodes = jax.tree.leaves(opt_state, is_leaf=depends_on_validation)
    return any(map(depends_on_validation, nodes))


def trial_mask(trials: Sequence[int], count: int) -> Bool[Array, "K"]:
    """Returns a mask of `count` trials, True for the given ones."""
    return jnp.zeros(count, bool).at[jnp.asarray(trials, int)].set(True)
