"""Dropout (Srivastava et al. 2014) whose mask costs no more than a multiplication.

A mask is a hash of each entry's place and of a key, so it is made where it is used,
inside the same loop over x, and made again in the backward pass: nothing of the size
of x is stored. Threefry, JAX's generator, costs ten times the rest of the layer on a
CPU. The hash is a permutation of 32 bits found by search for low bias (C. Wellons,
"triple32"), keyed before and within; `tests/models/test_dropout.py` bounds how far its
masks are from those of independent coins.

A mask depends on keys and places alone, not on devices.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from models.common.dtypes import Number

Keys = UInt32[Array, "2"]
SCALE = 2**32
MOST = 1 - 2**-24  # the largest float32 below 1
GOLDEN = 0x9E3779B9  # odd, so that places stay apart


def hashed(keys: Keys, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """32 bits for each place of an array; beyond 2^32 entries they repeat."""
    return mixed(keys, places(shape, shape))


def places(shape: tuple[int, ...], whole: tuple[int, ...]) -> UInt32[Array, "..."]:
    """A number for each place of an array: row by row, in steps of GOLDEN.

    Args:
      shape: of a part that begins where the whole does.
    """
    place = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(strides(whole)):
        count = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        place += count * jnp.uint32(stride)
    return place


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """By how much a place grows along each axis, modulo 2^32."""
    found, stride = [], GOLDEN
    for size in reversed(shape):
        found.append(stride)
        stride = stride * size % SCALE
    return tuple(reversed(found))


def mixed(
    keys: Keys | tuple[UInt32[Array, ""], UInt32[Array, ""]],
    place: UInt32[Array, "..."],
) -> UInt32[Array, "..."]:
    """The hash of places."""
    bits = place + keys[0]
    bits = (bits ^ (bits >> 17) ^ keys[1]) * jnp.uint32(0xED5AD4BB)
    bits = (bits ^ (bits >> 11)) * jnp.uint32(0xAC4C1B51)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848BAB)
    return bits ^ (bits >> 14)


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
    return thinned(x, Draw.of(keys, rate), shape, shape)


class Draw(NamedTuple):
    """A mask that can be made anywhere.

    Attributes:
      least: the hash from which on an entry stays.
      factor: what stays is multiplied by it.
    """

    keys: Keys
    least: UInt32[Array, ""]
    factor: Number

    @classmethod
    def of(cls, keys: Keys, rate: Number) -> "Draw":
        """The one that leaves out a share."""
        return cls(keys, threshold(rate), 1 / (1 - rate))

    def moved(self, place: UInt32[Array, ""]) -> "Draw":
        """The same mask, seen from another place of it."""
        return self._replace(keys=self.keys.at[0].add(place))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def thinned(
    x: Float[Array, "..."], draw: Draw, shape: tuple[int, ...], whole: tuple[int, ...]
) -> Float[Array, "..."]:
    """x where the mask keeps it, times its factor.

    Args:
      shape: of the mask, which x's broadcasts with.
      whole: that of the array of which x is a part.
    """
    stays = mixed(draw.keys, places(shape, whole)) >= draw.least
    return jnp.where(stays, x * draw.factor, 0)


def _forward(x, draw, shape, whole):
    return thinned(x, draw, shape, whole), draw


def _backward(shape, whole, draw, gradient):
    return thinned(gradient, draw, shape, whole), None


thinned.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """A layer that leaves out entries while training.

    Attributes:
      rate: the share that is left out.
      shared_axes: along which all entries share their fate.
    """

    rate: Number
    shared_axes: tuple[int, ...] = ()

    def keys(self) -> Keys:
        """Of a new mask."""
        return jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)

    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        if deterministic or is_off(self.rate):
            return x
        keys = self.keys()
        shared = {axis % x.ndim for axis in self.shared_axes}
        shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
        return dropped(x, keys, shape, self.rate)
