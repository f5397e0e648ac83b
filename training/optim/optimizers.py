"""Optimisers by name: gradient transformations and the learning rate."""

import math
import pkgutil
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from training.optim.on_validation import lr_scale
from training.optim.param_groups import (
    check_pattern_syntax,
    freeze,
    lr_factor,
    map_named,
    name_mask,
)
from training.optim.schedules import Schedule, make_schedule
from utils.errors import UserError
from utils.ranges import BELOW_ONE, check_range

# Imported where `optim.name` or `optim.schedule` needs them.
MATRIX_OPTIMIZERS = "training.optim.matrix_optimizers"
WITH_AVERAGING = "training.optim.nt_asgd:with_averaging"
PLATEAU = "training.optim.plateau:Plateau"

DECAYS = ("b1", "b2", "rho", "momentum", "muon_momentum", "ema_decay")
RANGES = {  # of the numbers in `cfg.optim`
    **dict.fromkeys(("lr", "eps", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(("warmup", "clip_norm"), (0, math.inf)),
    **dict.fromkeys(("plateau_patience", "non_monotone_interval"), (1, 2**20)),
    "step_decay_start": (0, math.inf),
    "step_decay_interval": (1, math.inf),
    **dict.fromkeys(("final_lr_ratio", "wsd_decay_fraction"), (0, 1)),
    **dict.fromkeys((*DECAYS, "plateau_factor"), (0, BELOW_ONE)),
    "step_decay_factor": (0, 1),
}


def make_optimizer(
    cfg: ConfigDict, steps: int, *, width: int = 512
) -> tuple[optax.GradientTransformationExtraArgs, Schedule]:
    """Returns the optimiser `cfg.name` and its schedule.

    Gradients are clipped, transformed, and scaled by the learning rate of the step. The
    step is an argument, `update(grads, state, params, step=step)`, and not a count of
    updates, since updates may be skipped.

    Args:
      cfg: the section `cfg.optim`; rates, decays and moments may be traced.
      steps: total number of steps, for the schedule.
      width: D of the model, for the schedule "noam".

    Raises:
      UserError: unknown name, a number out of range, or an invalid pattern.
    """
    for key, bounds in RANGES.items():
        if isinstance(value := getattr(cfg, key), int | float):  # not traced
            check_range(f"optim.{key}", value, *bounds)
    check_pattern_syntax(cfg)
    schedule = make_schedule(cfg, steps, width)
    if cfg.name not in OPTIMIZERS:
        raise UserError(
            f"Unknown optim.name {cfg.name!r}; choose one of {', '.join(OPTIMIZERS)}"
        )
    parts = [*OPTIMIZERS[cfg.name](cfg), scale_by_learning_rate(schedule, cfg)]
    if not is_static_zero(cfg.clip_norm):
        parts.insert(0, optax.clip_by_global_norm(cfg.clip_norm))
    optimizer = freeze(optax.chain(*parts), cfg.freeze)
    if cfg.name == "nt_asgd":
        with_averaging = pkgutil.resolve_name(WITH_AVERAGING)
        optimizer = with_averaging(optimizer, cfg.non_monotone_interval)
    return optimizer, schedule


def is_static_zero(value: Any) -> bool:
    """Returns whether a number is 0 and not traced, so that its part is left out."""
    return isinstance(value, int | float) and value == 0


def scale_by_learning_rate(
    schedule: Schedule, cfg: ConfigDict
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate of their group."""

    def init(params):
        del params
        if cfg.schedule != "plateau":  # validations do not change the rate
            return optax.EmptyState()
        return pkgutil.resolve_name(PLATEAU).create(
            cfg.plateau_factor, cfg.plateau_patience, cfg.final_lr_ratio
        )

    def update(updates, state, params=None, *, step, **extra_args):
        del params, extra_args
        rate = learning_rate(schedule, state, step)

        def scale(name, leaf):
            return (-rate * lr_factor(name, cfg.lr_scales)).astype(leaf.dtype) * leaf

        return map_named(scale, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def learning_rate(
    schedule: Schedule, opt_state: PyTree, step: Int[Array, ""]
) -> Float[Array, ""]:
    """Returns the learning rate of a step, before the factors of `optim.lr_scales`."""
    return jnp.asarray(schedule(step)) * lr_scale(opt_state)


def adam(cfg: ConfigDict) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, algorithm 1) before the learning rate."""
    return optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps)


def weight_decay(cfg: ConfigDict) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov and Hutter 2019) of selected parameters."""
    return optax.add_decayed_weights(
        cfg.weight_decay, name_mask(cfg.weight_decay_params)
    )


def sgd(cfg: ConfigDict) -> list[optax.GradientTransformation]:
    """SGD with momentum: the gradient plus `cfg.momentum` times the sum so far."""
    return [] if is_static_zero(cfg.momentum) else [optax.trace(cfg.momentum)]


def matrix_optimizer(cfg: ConfigDict) -> list[optax.GradientTransformation]:
    """Adafactor or Muon with decoupled weight decay."""
    make = pkgutil.resolve_name(f"{MATRIX_OPTIMIZERS}:{cfg.name}")
    return [*make(cfg), weight_decay(cfg)]


OPTIMIZERS = {
    "adamw": lambda cfg: [adam(cfg), weight_decay(cfg)],
    "adam": lambda cfg: [adam(cfg)],
    "adafactor": matrix_optimizer,
    "adadelta": lambda cfg: [optax.scale_by_adadelta(cfg.rho, cfg.eps)],
    "sgd": sgd,
    "lion": lambda cfg: [optax.scale_by_lion(cfg.b1, cfg.b2), weight_decay(cfg)],
    "muon": matrix_optimizer,
    "nt_asgd": lambda cfg: [optax.add_decayed_weights(cfg.weight_decay)],
}
