"""Learning rates as functions of the number of the step.

They count steps, not updates: an update that is skipped leaves the optimiser's
state alone, and the schedule goes on.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from utils.errors import UserError

Number = float | Int[Array, ""] | Float[Array, ""]
Schedule = Callable[[int | Int[Array, ""]], Float[Array, ""]]


def make_schedule(cfg: ConfigDict, steps: int, width: int = 512) -> Schedule:
    """The rate of each step: a linear rise to `cfg.lr`, then `cfg.schedule`.

        rate(k) = lr * shape(max(k, warmup - 1)) * min((k + 1) / warmup, 1)

    where shape is 1 when the rise ends, but for "noam". Steps count from 0, and
    the first has a rate above 0. What falls would be at its end at step `steps`,
    which is one after the last.

    Args:
      cfg: the experiment's `cfg.optim`; all its numbers but `wsd_decay_fraction` may be
        traced.
      width: D of the model, for "noam".

    Raises UserError for a schedule that does not exist or cannot be.
    """
    shapes = {
        "constant": constant,
        "linear": lambda: linear(cfg.warmup, steps, cfg.final_lr_ratio),
        "cosine": lambda: cosine(cfg.warmup, steps, cfg.final_lr_ratio),
        "rsqrt": lambda: rsqrt(cfg.warmup),
        "noam": lambda: noam(cfg.warmup, width),
        "wsd": lambda: wsd(
            cfg.warmup, steps, cfg.final_lr_ratio, cfg.wsd_decay_fraction
        ),
        "plateau": constant,  # times a factor that validations lower: plateau.py
    }
    if cfg.schedule not in shapes:
        raise UserError(
            f"optim.schedule={cfg.schedule!r}: there are {', '.join(shapes)}"
        )
    shape = shapes[cfg.schedule]()
    warmup = larger(cfg.warmup, 1)

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum((step + 1) / warmup, 1.0)
        return cfg.lr * shape(jnp.maximum(step, warmup - 1)) * rise

    return schedule


def constant() -> Schedule:
    """1."""
    return jnp.ones_like


def linear(begin: int, end: int, last: float) -> Schedule:
    """From 1 at step `begin` to `last` at step `end`."""
    return lambda step: 1.0 - (1.0 - last) * progress(step, begin, end)


def cosine(begin: int, end: int, last: float) -> Schedule:
    """Half a wave from 1 to `last` (Loshchilov and Hutter 2017, eq. 5)."""

    def shape(step):
        wave = 0.5 * (1.0 + jnp.cos(jnp.pi * progress(step, begin, end)))
        return last + (1.0 - last) * wave

    return shape


def rsqrt(warmup: int) -> Schedule:
    """sqrt(warmup / step) from `warmup` on: as "noam", told by its highest rate."""
    start = larger(warmup, 1)
    return lambda step: (start / jnp.maximum(step, start)) ** 0.5


def noam(warmup: int, width: int) -> Schedule:
    """Vaswani et al. (2017), eq. 3, of which `cfg.lr` is a factor.

        width^-0.5 * min(k^-0.5, k * warmup^-1.5)

    with steps k from 1 on. The rise that all schedules share is its second term.

    Raises UserError without a warmup, where it has no highest rate.
    """
    if isinstance(warmup, int) and warmup < 1:
        raise UserError(
            f"optim.warmup={warmup}: schedule 'noam' needs 1 or more; 4000 in the paper"
        )
    return lambda step: (width * (step + 1)) ** -0.5


def wsd(warmup: int, steps: int, last: float, share: float) -> Schedule:
    """Warm-up, stable, decay (Hu et al. 2024): falls in the last `share` of steps.

    The fall is linear, and never begins before the rise has ended.
    """
    begin = larger(warmup, steps - round(share * steps))
    return linear(begin, steps, last)


def progress(step: Float[Array, ""], begin: int, end: int) -> Float[Array, ""]:
    """0 until `begin`, 1 from `end` on, linear between them."""
    return jnp.clip((step - begin) / larger(end - begin, 1), 0.0, 1.0)


def larger(number: Number, other: Number) -> Number:
    """Of two numbers of a config, of which one may be traced."""
    if isinstance(number, int | float) and isinstance(other, int | float):
        return max(number, other)
    return jnp.maximum(number, other)
