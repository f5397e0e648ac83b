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

from models.common.dtypes import Scalar

Keys = UInt32[Array, "2"]
SCALE = 2**32
MAX_RATE = 1 - 2**-24  # the largest float32 below 1
GOLDEN_RATIO_32 = 0x9E3779B9  # odd, so that places stay apart


def random_bits(keys: Keys, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """32 bits for each place of an array; beyond 2^32 entries they repeat."""
    return hash32(keys, linear_index(shape, shape))


def linear_index(
    shape: tuple[int, ...], whole: tuple[int, ...]
) -> UInt32[Array, "..."]:
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
    found, stride = [], GOLDEN_RATIO_32
    for size in reversed(shape):
        found.append(stride)
        stride = stride * size % SCALE
    return tuple(reversed(found))


def hash32(
    keys: Keys | tuple[UInt32[Array, ""], UInt32[Array, ""]],
    place: UInt32[Array, "..."],
) -> UInt32[Array, "..."]:
    """The hash of places."""
    bits = place + keys[0]
    bits = (bits ^ (bits >> 17) ^ keys[1]) * jnp.uint32(0xED5AD4BB)
    bits = (bits ^ (bits >> 11)) * jnp.uint32(0xAC4C1B51)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848BAB)
    return bits ^ (bits >> 14)


def is_zero_rate(rate: Scalar) -> bool:
    """Whether nothing is left out; a rate that is traced may always be above 0."""
    return isinstance(rate, int | float) and rate == 0


def rate_if_enabled(switch: Scalar, rate: Scalar) -> Scalar:
    """A rate, or 0 where the rate that switches it is 0."""
    if isinstance(switch, int | float):
        return rate if switch else 0.0
    return 0.0 if is_zero_rate(rate) else jnp.where(switch > 0, rate, 0.0)


def keep_threshold(rate: Scalar) -> UInt32[Array, ""]:
    """The hash from which on an entry stays, of the rate as float32.

    So a rate that is traced has the masks of the same one that is not.
    """
    if isinstance(rate, int | float):
        return jnp.uint32(round(min(float(np.float32(rate)), MAX_RATE) * SCALE))
    rate = jnp.minimum(rate.astype(jnp.float32), MAX_RATE)
    return jnp.round(rate * float(SCALE)).astype(jnp.uint32)


def keep_mask(keys: Keys, shape: tuple[int, ...], rate: Scalar) -> Bool[Array, "..."]:
    """Where an entry stays, which has the probability 1 - rate, to 2^-25."""
    return random_bits(keys, shape) >= keep_threshold(rate)


def apply_dropout(
    x: Float[Array, "..."], keys: Keys, shape: tuple[int, ...], rate: Scalar
) -> Float[Array, "..."]:
    """x where a mask of `shape` keeps it, divided by 1 - rate; 0 elsewhere."""
    return apply_dropout_mask(x, DropoutMask.from_rate(keys, rate), shape, shape)


class DropoutMask(NamedTuple):
    """A mask that can be made anywhere.

    Attributes:
      threshold: the hash from which on an entry stays.
      factor: what stays is multiplied by it.
    """

    keys: Keys
    threshold: UInt32[Array, ""]
    factor: Scalar

    @classmethod
    def from_rate(cls, keys: Keys, rate: Scalar) -> "DropoutMask":
        """The one that leaves out a share."""
        return cls(keys, keep_threshold(rate), 1 / (1 - rate))

    def offset_by(self, place: UInt32[Array, ""]) -> "DropoutMask":
        """The same mask, seen from another place of it."""
        return self._replace(keys=self.keys.at[0].add(place))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def apply_dropout_mask(
    x: Float[Array, "..."],
    draw: DropoutMask,
    shape: tuple[int, ...],
    whole: tuple[int, ...],
) -> Float[Array, "..."]:
    """x where the mask keeps it, times its factor.

    Args:
      shape: of the mask, which x's broadcasts with.
      whole: that of the array of which x is a part.
    """
    stays = hash32(draw.keys, linear_index(shape, whole)) >= draw.threshold
    return jnp.where(stays, x * draw.factor, 0)


def _forward(x, draw, shape, whole):
    return apply_dropout_mask(x, draw, shape, whole), draw


def _backward(shape, whole, draw, gradient):
    return apply_dropout_mask(gradient, draw, shape, whole), None


apply_dropout_mask.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """A layer that leaves out entries while training.

    Attributes:
      rate: the share that is left out.
      shared_axes: along which all entries share their fate.
    """

    rate: Scalar
    shared_axes: tuple[int, ...] = ()

    def keys(self) -> Keys:
        """Of a new mask."""
        return jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)

    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        if deterministic or is_zero_rate(self.rate):
            return x
        keys = self.keys()
        shared = {axis % x.ndim for axis in self.shared_axes}
        shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
        return apply_dropout(x, keys, shape, self.rate)
