"""Keys made by a hash: descendants are independent, and all of JAX's calls work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils.hash_keys import HASH, as_hash_key

NUM_KEYS = 4096


@pytest.fixture(scope="module")
def parent():
    return as_hash_key(jax.random.key(7))


def folded(key, numbers):
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def descendants(key, how):
    """Keys of one parent: by split, by numbers, or by numbers of numbers."""
    if how == "split":
        return jax.random.split(key, NUM_KEYS)
    if how == "fold_in":
        return folded(key, jnp.arange(NUM_KEYS, dtype=jnp.uint32))
    half = jnp.arange(64, dtype=jnp.uint32)
    return jax.vmap(lambda one: folded(one, half))(folded(key, half)).reshape(-1)


@pytest.mark.parametrize("how", ["split", "fold_in", "fold_in twice"])
def test_bits_of_related_keys_are_those_of_chance(parent, how):
    keys = descendants(parent, how)
    words = np.concatenate(
        [
            np.asarray(jax.random.key_data(keys)),
            np.asarray(jax.vmap(lambda key: jax.random.bits(key, (2,)))(keys)),
        ],
        axis=1,
    )
    assert len({row.tobytes() for row in words[:, :2]}) == NUM_KEYS
    bits = np.unpackbits(words.view(np.uint8), axis=1).astype(float) * 2 - 1
    scale = np.sqrt(NUM_KEYS)
    assert abs(bits.mean(axis=0) * scale).max() < 5
    # Bits of a key, and of what is drawn from it, are not correlated ...
    products = bits.T @ bits / scale
    assert abs(products[~np.eye(len(products), dtype=bool)]).max() < 5.5
    # ... nor are those of one key and of the next.
    assert abs((bits[1:] * bits[:-1]).mean(axis=0) * scale).max() < 5


def test_draws_differ_by_use_and_repeat_by_key(parent):
    one = jax.random.bits(parent, (64,))
    np.testing.assert_array_equal(one, jax.random.bits(parent, (64,)))
    children = [jax.random.fold_in(parent, 0), *jax.random.split(parent, 2)]
    draws = [one, *(jax.random.bits(child, (64,)) for child in children)]
    assert len({np.asarray(draw).tobytes() for draw in draws}) == 4
    other = as_hash_key(jax.random.key(8))
    assert (np.asarray(jax.random.bits(other, (64,))) != one).all()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32"])
def test_bits_of_every_width_are_uniform(parent, kind):
    size = 8 * jnp.dtype(kind).itemsize
    drawn = np.asarray(jax.random.bits(parent, (NUM_KEYS,), kind), np.float64)
    assert drawn.max() < 2**size
    assert abs((drawn / 2**size).mean() - 0.5) * np.sqrt(12 * NUM_KEYS) < 5


def test_numbers_follow_their_distributions(parent):
    shape = (NUM_KEYS * 16,)
    normal = np.asarray(jax.random.normal(parent, shape), np.float64)
    assert abs(normal.mean()) * np.sqrt(normal.size) < 5
    assert abs(normal.var() - 1) * np.sqrt(normal.size / 2) < 5
    assert abs((normal**3).mean()) * np.sqrt(normal.size / 15) < 5
    assert abs((normal**4).mean() - 3) * np.sqrt(normal.size / 96) < 5
    uniform = np.sort(np.asarray(jax.random.uniform(parent, shape), np.float64))
    expected = (np.arange(uniform.size) + 0.5) / uniform.size
    assert abs(uniform - expected).max() * np.sqrt(uniform.size) < 2  # Kolmogorov


def test_a_seed_makes_a_key():
    keys = [jax.random.key(seed, impl=HASH) for seed in (0, 1)]
    assert not np.array_equal(*map(jax.random.key_data, keys))
