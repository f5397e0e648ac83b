"""Dropout (Srivastava et al. 2014) whose mask costs no more than a multiplication.

A mask is a hash of each entry's place and of a key, so it is made where it is used,
inside the same loop over x, and made again in the backward pass: nothing of the size
of x is stored. Threefry, JAX's generator, costs ten times the rest of the layer on a
CPU. The hash is a permutation of 32 bits found by search for low bias (C. Wellons,
"triple32"), keyed before and within; `tests/test_dropout.py` bounds how far its
masks are from those of independent coins.

A mask depends on keys and places alone, not on devices.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

Keys = UInt32[Array, "2"]
SCALE = 2**32
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
    bits = (bits ^ (bits >> 17) ^ keys[1]) * jnp.uint32(0xED5AD4BB)
    bits = (bits ^ (bits >> 11)) * jnp.uint32(0xAC4C1B51)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848BAB)
    return bits ^ (bits >> 14)


def kept(keys: Keys, shape: tuple[int, ...], rate: float) -> Bool[Array, "..."]:
    """Where an entry stays, which has the probability 1 - rate, to 2^-32."""
    return hashed(keys, shape) >= jnp.uint32(min(round(rate * SCALE), SCALE - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dropped(
    x: Float[Array, "..."], keys: Keys, shape: tuple[int, ...], rate: float
) -> Float[Array, "..."]:
    """x where a mask of `shape` keeps it, divided by 1 - rate; 0 elsewhere."""
    return jnp.where(kept(keys, shape, rate), x * (1 / (1 - rate)), 0)


def _forward(x, keys, shape, rate):
    return dropped(x, keys, shape, rate), keys


def _backward(shape, rate, keys, gradient):
    return dropped(gradient, keys, shape, rate), None


dropped.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """A layer that leaves out entries while training.

    Attributes:
      rate: the share that is left out.
      shared_axes: along which all entries share their fate.
    """

    rate: float
    shared_axes: tuple[int, ...] = ()

    def keys(self) -> Keys:
        """Of a new mask."""
        return jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)

    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        if deterministic or not self.rate:
            return x
        keys = self.keys()
        shared = {axis % x.ndim for axis in self.shared_axes}
        shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
        return dropped(x, keys, shape, self.rate)
