"""Dropout (Srivastava et al. 2014) whose mask costs no more than a multiplication.

A mask is a hash of each entry's place and of a key, so it is made where it is used,
inside the same loop over x, and made again in the backward pass: nothing of the size
of x is stored. Threefry, JAX's generator, costs ten times the rest of the layer on a
CPU. The hash is a permutation of 32 bits found by search for low bias (C. Wellons,
"lowbias32"), keyed before and within; `tests/test_dropout.py` bounds how far its
masks are from those of independent coins.

A mask depends on keys and places alone, not on devices.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from models.precision import Number

Keys = UInt32[Array, "2"]
SCALE = 2**32
MOST = 1 - 2**-24  # the largest float32 below 1
GOLDEN = 0x9E3779B9  # odd, so that places stay apart


def hashed(keys: Keys, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """32 bits for each place of an array; beyond 2^32 entries they repeat."""
    place = jnp.zeros(shape, jnp.uint32)
    stride = GOLDEN
    for axis in reversed(range(len(shape))):
        count = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        place += count * jnp.uint32(stride)
        stride = stride * shape[axis] % SCALE
    bits = place + keys[0]
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15) ^ keys[1]) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def is_off(rate: Number) -> bool:
    """Whether nothing is left out; a rate that is traced may always be above 0."""
    return isinstance(rate, int | float) and rate == 0


def where_on(switch: Number, rate: Number) -> Number:
    """A rate, or 0 where the rate that switches it is 0."""
    if isinstance(switch, int | float):
        return rate if switch else 0.0
    return 0.0 if is_off(rate) else jnp.where(switch > 0, rate, 0.0)


def threshold(rate: Number) -> UInt32[Array, ""]:
    """The hash from which on an entry stays, of the rate as float32.

    So a rate that is traced has the masks of the same one that is not.
    """
    if isinstance(rate, int | float):
        return jnp.uint32(round(min(float(np.float32(rate)), MOST) * SCALE))
    rate = jnp.minimum(rate.astype(jnp.float32), MOST)
    return jnp.round(rate * float(SCALE)).astype(jnp.uint32)


def kept(keys: Keys, shape: tuple[int, ...], rate: Number) -> Bool[Array, "..."]:
    """Where an entry stays, which has the probability 1 - rate, to 2^-25."""
    return hashed(keys, shape) >= threshold(rate)


def dropped(
    x: Float[Array, "..."], keys: Keys, shape: tuple[int, ...], rate: Number
) -> Float[Array, "..."]:
    """x where a mask of `shape` keeps it, divided by 1 - rate; 0 elsewhere."""
    return _scaled(x, keys, threshold(rate), 1 / (1 - rate), shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scaled(x, keys, least, factor, shape):
    return jnp.where(hashed(keys, shape) >= least, x * factor, 0)


def _forward(x, keys, least, factor, shape):
    return _scaled(x, keys, least, factor, shape), (keys, least, factor)


def _backward(shape, saved, gradient):
    return _scaled(gradient, *saved, shape), None, None, None


_scaled.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """A layer that leaves out entries while training.

    Attributes:
      rate: the share that is left out.
      shared_axes: along which all entries share their fate.
    """

    rate: Number
    shared_axes: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        if deterministic or is_off(self.rate):
            return x
        keys = jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)
        shared = {axis % x.ndim for axis in self.shared_axes}
        shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
        return dropped(x, keys, shape, self.rate)
