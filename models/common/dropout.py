"""Dropout (Srivastava et al. 2014) with masks from a hash of indices.

A mask is a hash of a key and of each entry's index, so it is computed where it is
applied, in the same loop over x, and again in the backward pass: nothing of the size
of x is stored. Threefry, JAX's generator, costs ten times the rest of the layer on a
CPU. The hash is that of `utils/hash_keys.py`; `tests/models/common/test_dropout.py`
bounds the distance of its masks from independent coin flips.

A mask depends on keys and indices alone, not on devices.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from models.common.dtypes import Scalar
from utils.hash_keys import GOLDEN_RATIO_32, Keys, hash32

SCALE = 2**32
MAX_RATE = 1 - 2**-24  # the largest float32 below 1


def linear_index(
    shape: tuple[int, ...], whole: tuple[int, ...]
) -> UInt32[Array, "..."]:
    """Returns row-major indices, times GOLDEN_RATIO_32, modulo 2^32.

    They repeat after 2^32 entries.

    Args:
      shape: shape of a part that begins at the first entry of the whole array.
      whole: shape of the whole array.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(strides(whole)):
        count = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index += count * jnp.uint32(stride)
    return index


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the increment of `linear_index` along each axis."""
    increments, stride = [], GOLDEN_RATIO_32
    for size in reversed(shape):
        increments.append(stride)
        stride = stride * size % SCALE
    return tuple(reversed(increments))


def is_zero_rate(rate: Scalar) -> bool:
    """Returns whether a rate is known to be 0; a traced one is not."""
    return isinstance(rate, int | float) and rate == 0


def rate_if_enabled(switch: Scalar, rate: Scalar) -> Scalar:
    """Returns the rate, or 0 if the rate that enables it is 0."""
    if isinstance(switch, int | float):
        return rate if switch else 0.0
    return 0.0 if is_zero_rate(rate) else jnp.where(switch > 0, rate, 0.0)


def keep_threshold(rate: Scalar) -> UInt32[Array, ""]:
    """Returns the smallest hash that keeps an entry, for the rate as float32.

    A traced rate thus gives the same masks as a constant one.
    """
    if isinstance(rate, int | float):
        return jnp.uint32(round(min(float(np.float32(rate)), MAX_RATE) * SCALE))
    rate = jnp.minimum(rate.astype(jnp.float32), MAX_RATE)
    return jnp.round(rate * float(SCALE)).astype(jnp.uint32)


class DropoutMask(NamedTuple):
    """Dropout mask that is computed where it is applied.

    Attributes:
      keys: keys of the hash.
      threshold: the smallest hash that keeps an entry, with probability 1 - rate.
      factor: scale of the entries that are kept.
    """

    keys: Keys
    threshold: UInt32[Array, ""]
    factor: Scalar

    @classmethod
    def from_rate(cls, keys: Keys, rate: Scalar) -> "DropoutMask":
        """Returns the mask of a dropout rate."""
        return cls(keys, keep_threshold(rate), 1 / (1 - rate))

    def offset_by(self, index: UInt32[Array, ""]) -> "DropoutMask":
        """Returns the part of the mask that begins at a linear index."""
        return self._replace(keys=self.keys.at[0].add(index))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def apply_dropout_mask(
    x: Float[Array, "..."],
    mask: DropoutMask,
    shape: tuple[int, ...],
    whole: tuple[int, ...],
) -> Float[Array, "..."]:
    """Scales the entries of x that the mask keeps; others are 0.

    Args:
      shape: shape of the mask, which broadcasts with that of x.
      whole: shape of the array of which x is a part.
    """
    keep = hash32(mask.keys, linear_index(shape, whole)) >= mask.threshold
    return jnp.where(keep, x * mask.factor, 0)


def _forward(x, mask, shape, whole):
    return apply_dropout_mask(x, mask, shape, whole), mask


def _backward(shape, whole, mask, gradient):
    return apply_dropout_mask(gradient, mask, shape, whole), None


apply_dropout_mask.defvjp(_forward, _backward)


class Dropout(nn.Module):
    """Dropout layer, active while training.

    Attributes:
      rate: probability that an entry is dropped.
      shared_axes: axes along which all entries share one draw.
    """

    rate: Scalar
    shared_axes: tuple[int, ...] = ()

    def draw_mask(self, *, deterministic: bool) -> DropoutMask | None:
        """Draws a new mask; None if nothing is dropped."""
        if deterministic or is_zero_rate(self.rate):
            return None
        keys = jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)
        return DropoutMask.from_rate(keys, self.rate)

    def __call__(
        self, x: Float[Array, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        mask = self.draw_mask(deterministic=deterministic)
        if mask is None:
            return x
        shared = {axis % x.ndim for axis in self.shared_axes}
        shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
        return apply_dropout_mask(x, mask, shape, shape)


class WordDropout(nn.Module):
    """Dropout of whole words: all occurrences in a batch share one draw.

    Merity et al. (2017, section 4.3), after Gal and Ghahramani (2016).

    Attributes:
      vocab_size: number of words.
      rate: probability that a word is dropped.
    """

    vocab_size: int
    rate: Scalar

    @nn.compact
    def __call__(
        self, x: Float[Array, "... D"], tokens: Int[Array, "..."], *, train: bool
    ) -> Float[Array, "... D"]:
        """Scales or drops the embeddings x of tokens."""
        if not train or is_zero_rate(self.rate):
            return x
        words = Dropout(self.rate)(jnp.ones(self.vocab_size), deterministic=False)
        return x * words[tokens][..., None].astype(x.dtype)
