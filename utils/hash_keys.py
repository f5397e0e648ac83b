"""Random keys from a hash of 32 bits, for the masks of a training step.

A step draws a key for each dropout layer. JAX's generator, Threefry, makes a key in a
loop of small kernels on a CPU, twice a layer: 385 of the 2,378 kernels of a step of the
benchmark `small`, and nearly all of its copies. `hash32` takes a few instructions of
the kernel that reads the key.

First parameters do not come from it: small RNNs learned less often from them.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, UInt32

Keys = UInt32[Array, "2"]
GOLDEN_RATIO_32 = 0x9E3779B9  # odd, so that multiples of it differ modulo 2^32
# Combined with keys by XOR, so that each use of one has values of its own.
SPLIT, FOLD = 0x7F4A7C15, 0x94D049BB


def hash32(
    keys: Keys | tuple[UInt32[Array, ""], UInt32[Array, ""]],
    index: UInt32[Array, "..."],
) -> UInt32[Array, "..."]:
    """Computes the keyed hash of indices.

    It is a permutation of 32 bits found by search for low bias (C. Wellons,
    "triple32"), with keys added before and within.
    """
    bits = index + keys[0]
    bits = (bits ^ (bits >> 17) ^ keys[1]) * jnp.uint32(0xED5AD4BB)
    bits = (bits ^ (bits >> 11)) * jnp.uint32(0xAC4C1B51)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848BAB)
    return bits ^ (bits >> 14)


def as_hash_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """Returns a key whose descendants are made by the hash, from one of Threefry."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=HASH)


def _words(keys: Keys, tweak: int, numbers: UInt32[Array, "..."]) -> Keys:
    """Returns two hashes of each number, in a last axis; the second is of the first."""
    one, other = keys[0] ^ jnp.uint32(tweak), keys[1]
    word = hash32((one, other), numbers * jnp.uint32(GOLDEN_RATIO_32))
    return jnp.stack([word, hash32((other, one), word)], axis=-1)


def _counts(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    return jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)


def _seed(seed: Array) -> Keys:
    return _words(jnp.zeros(2, jnp.uint32), 0, seed.astype(jnp.uint32))


def _split(keys: Keys, shape: tuple[int, ...]) -> UInt32[Array, "... 2"]:
    return _words(keys, SPLIT, _counts(shape))


def _fold_in(keys: Keys, data: UInt32[Array, ""]) -> Keys:
    return _words(keys, FOLD, data)


def _random_bits(keys: Keys, bit_width: int, shape: tuple[int, ...]) -> Array:
    words = _words(keys, 0, _counts(shape))
    if bit_width == 64:
        low, high = words[..., 0].astype(jnp.uint64), words[..., 1].astype(jnp.uint64)
        return low | high << 32
    return (words[..., 1] >> (32 - bit_width)).astype(f"uint{bit_width}")


HASH = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="hash32",
    tag="hash",
)
