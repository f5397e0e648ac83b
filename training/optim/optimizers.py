"""Optimisers by name: what is made of a gradient, and the learning rate."""

import math
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from training.optim.adafactor import scale_by_adafactor
from training.optim.muon import scale_by_muon
from training.optim.nt_asgd import averaged
from training.optim.param_groups import (
    Scales,
    frozen,
    map_named,
    matching,
    patterns_of,
    scale_of,
)
from training.optim.param_shapes import hidden, not_hidden
from training.optim.plateau import Plateau, first_plateau, rate_factor
from training.optim.schedules import Schedule, make_schedule
from utils.errors import UserError


def make_optimizer(
    cfg: ConfigDict, steps: int, *, width: int = 512
) -> tuple[optax.GradientTransformationExtraArgs, Schedule]:
    """The optimiser `cfg.name` and its schedule.

    Gradients are clipped, made into an update, and scaled by the rate of the step,
    which `update(grads, state, params, step=step)` must be told: it is not a count
    of updates, since these may be skipped.

    Args:
      cfg: the experiment's `cfg.optim`; its rates, decays and moments may be traced.
      width: D of the model, for schedule "noam".

    Raises UserError for an optimiser that does not exist or cannot be.
    """
    check_numbers(cfg)
    patterns_of(cfg)
    schedule = make_schedule(cfg, steps, width)
    if cfg.name not in RULES:
        raise UserError(f"optim.name={cfg.name!r}: there are {', '.join(RULES)}")
    clip = [] if is_zero(cfg.clip_norm) else [optax.clip_by_global_norm(cfg.clip_norm)]
    plateau = None
    if cfg.schedule == "plateau":
        plateau = cfg.plateau_factor, cfg.plateau_patience, cfg.final_lr_ratio
    rate = by_learning_rate(schedule, cfg.lr_scales, plateau)
    optimizer = frozen(optax.chain(*clip, *RULES[cfg.name](cfg), rate), cfg.freeze)
    if cfg.name == "nt_asgd":
        optimizer = averaged(optimizer, cfg.non_monotone_interval)
    return optimizer, schedule


def check_numbers(cfg: ConfigDict) -> None:
    """Raises UserError for a number that no optimiser can have.

    One that is traced, of many at once, is not looked at.
    """
    shares = {  # of the past in a mean, or the like: 1 would be for ever
        "b1": cfg.b1,
        "b2": cfg.b2,
        "rho": cfg.rho,
        "momentum": cfg.momentum,
        "muon_momentum": cfg.muon_momentum,
        "ema_decay": cfg.ema_decay,
        "plateau_factor": cfg.plateau_factor,
    }
    ranges = {
        "lr": (cfg.lr, 0, math.inf),
        "eps": (cfg.eps, 0, math.inf),
        "weight_decay": (cfg.weight_decay, 0, math.inf),
        "plateau_patience": (cfg.plateau_patience, 1, math.inf),
        "non_monotone_interval": (cfg.non_monotone_interval, 1, math.inf),
        "final_lr_ratio": (cfg.final_lr_ratio, 0, 1),
        "wsd_decay_fraction": (cfg.wsd_decay_fraction, 0, 1),
        **{key: (value, 0, math.nextafter(1, 0)) for key, value in shares.items()},
    }
    for key, (value, low, high) in ranges.items():
        if isinstance(value, int | float) and not (
            low <= value <= high and value < math.inf
        ):
            most = {1: "at most 1", math.inf: "finite"}.get(high, "less than 1")
            bounds = f"{low} or more and {most}"
            raise UserError(f"optim.{key}={value}: it must be {bounds}")


def is_zero(value: Any) -> bool:
    """Whether a number that is not traced is 0: what it controls is left out."""
    return isinstance(value, int | float) and value == 0


def by_learning_rate(
    schedule: Schedule, scales: Scales, plateau: tuple[float, int, float] | None
) -> optax.GradientTransformationExtraArgs:
    """Turns an update into a step downhill: times minus the rate, by group.

    Args:
      scales: pairs of a pattern and a factor of the rate.
      plateau: what `first_plateau` takes; None: validations do not matter.
    """

    def init(params):
        del params
        return first_plateau(*plateau) if plateau else optax.EmptyState()

    def update(updates, state, params=None, *, step, **others):
        del params, others
        rate = learning_rate(schedule, state, step)

        def scaled(name, leaf):
            return (-rate * scale_of(name, scales)).astype(leaf.dtype) * leaf

        return map_named(scaled, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def learning_rate(
    schedule: Schedule, opt_state: PyTree | Plateau, step: Int[Array, ""]
) -> Float[Array, ""]:
    """The rate of a step, as the schedule and validations have made it.

    That of a group is this times its factor.
    """
    return jnp.asarray(schedule(step)) * rate_factor(opt_state)


def adam(cfg: ConfigDict) -> optax.GradientTransformation:
    """Kingma and Ba (2015), algorithm 1, before the rate."""
    return optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps)


def decay(cfg: ConfigDict) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov, Hutter 2019) of `cfg.weight_decay_params`."""
    return optax.add_decayed_weights(
        cfg.weight_decay, matching(cfg.weight_decay_params)
    )


def sgd(cfg: ConfigDict) -> list[optax.GradientTransformation]:
    """The gradient, or its sum with `cfg.momentum` times the sum before."""
    return [] if is_zero(cfg.momentum) else [optax.trace(cfg.momentum)]


def muon(cfg: ConfigDict) -> list[optax.GradientTransformation]:
    """Muon for the matrices between hidden states, Adam for all others."""
    matrices = optax.masked(scale_by_muon(cfg.muon_momentum), hidden)
    return [matrices, optax.masked(adam(cfg), not_hidden)]


RULES = {
    "adamw": lambda cfg: [adam(cfg), decay(cfg)],
    "adam": lambda cfg: [adam(cfg)],
    "adafactor": lambda cfg: [scale_by_adafactor(), decay(cfg)],
    "adadelta": lambda cfg: [optax.scale_by_adadelta(cfg.rho, cfg.eps)],
    "sgd": sgd,
    "lion": lambda cfg: [optax.scale_by_lion(cfg.b1, cfg.b2), decay(cfg)],
    "muon": lambda cfg: [*muon(cfg), decay(cfg)],
    "nt_asgd": lambda cfg: [optax.add_decayed_weights(cfg.weight_decay)],
}
