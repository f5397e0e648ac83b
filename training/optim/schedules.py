"""Learning-rate schedules: functions of the step.

They count steps, not updates: a skipped update does not stop the schedule.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from utils.errors import UserError

Scalar = float | Int[Array, ""] | Float[Array, ""]
Schedule = Callable[[int | Int[Array, ""]], Float[Array, ""]]


def make_schedule(cfg: ConfigDict, steps: int, width: int = 512) -> Schedule:
    """Returns the schedule: linear warm-up to `cfg.lr`, then `cfg.schedule`.

        rate(k) = lr * shape(max(k, warmup - 1)) * min((k + 1) / warmup, 1)

    where shape is 1 at the end of the warm-up, except for "noam". Steps count from 0,
    and the first step has a rate above 0. A falling schedule reaches its end at step
    `steps`, one after the last.

    Args:
      cfg: the section `cfg.optim`; all numbers but `wsd_decay_fraction` may be traced.
      steps: total number of steps.
      width: D of the model, for "noam".

    Raises:
      UserError: unknown schedule, or "noam" without warm-up.
    """
    start, last = cfg.warmup, cfg.final_lr_ratio
    shapes = {
        "constant": lambda: jnp.ones_like,
        "linear": lambda: linear(start, steps, last),
        "cosine": lambda: cosine(start, steps, last),
        "rsqrt": lambda: rsqrt(start),
        "noam": lambda: noam(start, width),
        "wsd": lambda: wsd(start, steps, last, cfg.wsd_decay_fraction),
        "plateau": lambda: jnp.ones_like,  # times `lr_scale` of on_validation.py
        "step_decay": lambda: step_decay(
            cfg.step_decay_start, cfg.step_decay_interval, cfg.step_decay_factor, last
        ),
    }
    if cfg.schedule not in shapes:
        raise UserError(
            f"Unknown optim.schedule {cfg.schedule!r}; "
            f"choose one of {', '.join(shapes)}"
        )
    shape = shapes[cfg.schedule]()
    warmup = maximum(cfg.warmup, 1)

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum((step + 1) / warmup, 1.0)
        return cfg.lr * shape(jnp.maximum(step, warmup - 1)) * rise

    return schedule


def linear(begin: int, end: int, last: float) -> Schedule:
    """Returns a linear decay from 1 at step `begin` to `last` at step `end`."""
    return lambda step: 1.0 - (1.0 - last) * fraction_between(step, begin, end)


def cosine(begin: int, end: int, last: float) -> Schedule:
    """Returns a half cosine from 1 to `last` (Loshchilov and Hutter 2017, eq. 5)."""

    def shape(step):
        wave = 0.5 * (1.0 + jnp.cos(jnp.pi * fraction_between(step, begin, end)))
        return last + (1.0 - last) * wave

    return shape


def rsqrt(warmup: int) -> Schedule:
    """Returns sqrt(warmup / step): "noam" scaled by its peak learning rate."""
    start = maximum(warmup, 1)
    return lambda step: (start / jnp.maximum(step, start)) ** 0.5


def noam(warmup: int, width: int) -> Schedule:
    """Returns the schedule of Vaswani et al. (2017), eq. 3; `cfg.lr` is a factor.

        width^-0.5 * min(k^-0.5, k * warmup^-1.5)

    for steps k from 1. The warm-up of all schedules is its second term.

    Raises:
      UserError: `warmup` is less than 1.
    """
    if isinstance(warmup, int) and warmup < 1:
        raise UserError(
            f"optim.warmup={warmup}: schedule 'noam' needs 1 or more; 4000 in the paper"
        )
    return lambda step: (width * (step + 1)) ** -0.5


def wsd(warmup: int, steps: int, last: float, fraction: float) -> Schedule:
    """Returns warm-up, stable, decay (Hu et al. 2024): a linear decay at the end.

    The decay takes the last `fraction` of steps and starts after the warm-up.
    """
    begin = maximum(warmup, steps - round(fraction * steps))
    return linear(begin, steps, last)


def step_decay(start: int, interval: int, factor: float, last: float) -> Schedule:
    """Returns 1, multiplied by `factor` at step `start` and each `interval` after it.

        max(factor^(1 + floor((k - start) / interval)), last)   for steps k >= start

    It is `optax.exponential_decay(staircase=True)`, which takes no traced numbers, with
    `transition_begin = start - interval`.
    """

    def shape(step):
        num_decays = jnp.maximum(1 + jnp.floor((step - start) / interval), 0)
        return jnp.maximum(jnp.power(factor, num_decays), last)

    return shape


def fraction_between(step: Float[Array, ""], begin: int, end: int) -> Float[Array, ""]:
    """Returns 0 up to `begin`, 1 from `end`, and linear values in between."""
    return jnp.clip((step - begin) / maximum(end - begin, 1), 0.0, 1.0)


def maximum(number: Scalar, other: Scalar) -> Scalar:
    """Returns the larger of two numbers, of which one may be traced."""
    if isinstance(number, int | float) and isinstance(other, int | float):
        return max(number, other)
    return jnp.maximum(number, other)
