"""Optimisers and learning rates by name."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from errors import UserError
from training.averaging import averaged

WEIGHTS = ("kernel", "table", "recurrent")  # names of parameters that decay


def rsqrt(lr: float, warmup: int) -> optax.Schedule:
    """lr * sqrt(warmup / step) from `warmup` on (as Vaswani et al. 2017, eq. 3)."""
    start = max(warmup, 1)
    return lambda step: lr * (start / jnp.maximum(step, start)) ** 0.5


def make_schedule(cfg: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate at each step: a linear rise to `cfg.lr`, then `cfg.schedule`.

    Args:
      cfg: the experiment's `cfg.optim`.

    Raises UserError for a schedule that does not exist.
    """
    left = max(steps - cfg.warmup, 1)
    after = {
        "constant": lambda: optax.constant_schedule(cfg.lr),
        "linear": lambda: optax.linear_schedule(cfg.lr, 0.0, left),
        "cosine": lambda: optax.cosine_decay_schedule(cfg.lr, left),
        "rsqrt": lambda: _from(cfg.warmup, rsqrt(cfg.lr, cfg.warmup)),
    }
    if cfg.schedule not in after:
        raise UserError(
            f"optim.schedule={cfg.schedule!r}: there are {', '.join(after)}"
        )
    rise = optax.linear_schedule(0.0, cfg.lr, max(cfg.warmup, 1))
    parts = [lambda step: rise(step + 1), after[cfg.schedule]()]
    return optax.join_schedules(parts, [cfg.warmup])


def _from(step: int, schedule: optax.Schedule) -> optax.Schedule:
    """A schedule that counts from the start, for `join_schedules`."""
    return lambda count: schedule(count + step)


def make_optimizer(
    cfg: ConfigDict, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser `cfg.name`, gradients clipped before it, and its schedule.

    Raises UserError for an optimiser that does not exist or cannot be.
    """
    schedule = make_schedule(cfg, steps)
    decay = {"weight_decay": cfg.weight_decay, "mask": decays}
    adam = {"b1": cfg.b1, "b2": cfg.b2, "eps": cfg.eps}
    known = {
        "adamw": lambda: optax.adamw(schedule, **adam, **decay),
        "adam": lambda: optax.adam(schedule, **adam),
        "sgd": lambda: optax.sgd(schedule),
        "adadelta": lambda: optax.adadelta(schedule, cfg.rho, cfg.eps),
        "nt_asgd": lambda: optax.chain(
            optax.add_decayed_weights(cfg.weight_decay), optax.sgd(schedule)
        ),
    }
    if cfg.name not in known:
        raise UserError(f"optim.name={cfg.name!r}: there are {', '.join(known)}")
    if cfg.non_monotone_interval < 1:
        raise UserError(
            f"optim.non_monotone_interval={cfg.non_monotone_interval}: "
            "it must be 1 or more"
        )
    clip = optax.clip_by_global_norm(cfg.clip) if cfg.clip else optax.identity()
    optimizer = optax.chain(clip, known[cfg.name]())
    if cfg.name == "nt_asgd":
        optimizer = averaged(optimizer, cfg.non_monotone_interval)
    return optimizer, schedule


def decays(params: PyTree) -> PyTree:
    """True for what weight decay acts on, by name: not biases and gains."""

    def is_weight(path, _):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return names[-1] in WEIGHTS

    return jax.tree_util.tree_map_with_path(is_weight, params)
