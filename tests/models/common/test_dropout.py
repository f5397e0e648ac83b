"""Tests that dropout masks resemble independent coin flips and are not stored."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import LanguageModelCase, tokens
from models.common.dropout import (
    Dropout,
    DropoutMask,
    apply_dropout_mask,
    keep_threshold,
    linear_index,
)
from utils.hash_keys import hash32

SHAPE = (64, 128, 64)
SIZE = int(np.prod(SHAPE))


def keys(seed):
    return jax.random.bits(jax.random.key(seed), (2,), jnp.uint32)


def random_bits(keys, shape):
    return hash32(keys, linear_index(shape, shape))


@functools.partial(jax.jit, static_argnums=1)
def keep_mask(keys, shape, rate):
    return random_bits(keys, shape) >= keep_threshold(rate)


def apply_dropout(x, keys, rate):
    return apply_dropout_mask(x, DropoutMask.from_rate(keys, rate), x.shape, x.shape)


def normalized_mask(seed, rate=0.1, shape=SHAPE):
    """A random mask, shifted and scaled to mean 0 and variance 1."""
    mask = np.asarray(keep_mask(keys(seed), shape, rate), np.float64)
    return (mask - (1 - rate)) / np.sqrt(rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.003])
def test_the_share_of_dropped_entries_is_the_rate(rate):
    shares = [normalized_mask(seed, rate).mean() * np.sqrt(SIZE) for seed in range(20)]
    # normal, with mean 0 and variance 1
    assert abs(np.mean(shares)) < 4 / np.sqrt(20)
    assert 0.3 < np.std(shares) < 2


def test_means_along_every_axis_are_those_of_chance():
    mask = normalized_mask(0)
    for axes in [(1, 2), (0, 2), (0, 1), (0,), (1,), (2,)]:
        means = mask.mean(axis=axes) * np.sqrt(np.prod([SHAPE[i] for i in axes]))
        spread = means.std() * np.sqrt(2 * means.size)
        assert abs(spread - np.sqrt(2 * means.size)) < 5, axes


def test_entries_at_any_distance_are_uncorrelated():
    mask = normalized_mask(1).ravel()
    for distance in [*range(1, 200), 2**12, 2**13, 2**16, 64 * 128]:
        product = (mask[distance:] * mask[:-distance]).mean()
        assert abs(product) * np.sqrt(SIZE) < 5, distance


def test_masks_of_different_keys_are_uncorrelated():
    masks = np.stack([normalized_mask(seed).ravel() for seed in range(12)])
    products = masks @ masks.T / SIZE
    others = products[~np.eye(12, dtype=bool)]
    assert np.abs(others).max() * np.sqrt(SIZE) < 5


def test_masks_of_keys_that_differ_in_one_bit_are_uncorrelated():
    one = keys(3)
    before = normalized_mask(3).ravel()
    for half in range(2):
        for bit in range(32):
            other = one.at[half].set(one[half] ^ jnp.uint32(2**bit))
            mask = np.asarray(keep_mask(other, SHAPE, 0.1), np.float64).ravel()
            mask = (mask - 0.9) / 0.3
            assert abs((before * mask).mean()) * np.sqrt(SIZE) < 6, (half, bit)


def test_every_bit_is_0_as_often_as_1():
    bits = np.asarray(random_bits(keys(5), SHAPE)).ravel()
    for bit in range(32):
        share = ((bits >> bit) & 1).mean()
        assert abs(share - 0.5) * 2 * np.sqrt(SIZE) < 5, bit


def test_kept_entries_and_their_gradients_are_scaled():
    x = jnp.arange(1.0, 257.0).reshape(2, 128)
    pull = jax.vjp(lambda x: apply_dropout(x, keys(0), 0.25), x)
    y, (gradient,) = pull[0], pull[1](jnp.ones_like(x))
    kept = np.asarray(y) != 0
    np.testing.assert_allclose(np.asarray(y)[kept], np.asarray(x)[kept] / 0.75, 1e-6)
    np.testing.assert_allclose(gradient, np.where(kept, 1 / 0.75, 0))
    assert 0.6 < kept.mean() < 0.9


def test_entries_along_shared_axes_share_one_draw():
    x = jnp.ones((4, 7, 50))
    layer = Dropout(0.5, (1,))
    rngs = {"dropout": jax.random.key(0)}
    y = np.asarray(layer.apply({}, x, deterministic=False, rngs=rngs))
    assert (y == y[:, :1]).all()
    assert len(np.unique(y[:, 0], axis=0)) == 4


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero():
    x = jnp.ones((3, 4))
    assert Dropout(0.5).apply({}, x, deterministic=True) is x
    assert Dropout(0.0).apply({}, x, deterministic=False) is x


def test_no_mask_is_stored_for_the_backward_pass():
    x = jnp.ones((16, 16))
    _, pull = jax.vjp(lambda x: apply_dropout(x, keys(0), 0.1), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) < 16


@pytest.mark.parametrize("name", ["transformer", "transformer_xl"])
def test_feed_forward_dropout_defaults_to_dropout(name):
    text, rng = tokens((2, 5)), jax.random.key(1)

    def trained(**rates):
        case = LanguageModelCase(name, layers=1, **rates)
        return case.run(text, case.carry(2), train=True, dropout=rng)[1]

    default = trained(dropout=0.3)
    own = trained(dropout=0.3, feed_forward_dropout=0.3)
    np.testing.assert_array_equal(own, default)
    without = trained(dropout=0.3, feed_forward_dropout=0.0)
    assert np.abs(without - default).max() > 0.1


@pytest.mark.parametrize("name", ["transformer", "transformer_xl"])
def test_feed_forward_dropout_affects_inner_layers_only(name):
    rates = {"dropout": 1e-9, "feed_forward_dropout": 0.5}  # enabled, but drops nothing
    case, text = LanguageModelCase(name, layers=1, **rates), tokens((2, 5))

    def differs(variables):
        rng = jax.random.key(1)
        run = functools.partial(case.run, text, case.carry(2), variables)
        return np.abs(run(train=True, dropout=rng)[1] - run()[1]).max()

    def shut(path, leaf):
        is_outer = "down" in jax.tree_util.keystr(path)
        return jnp.zeros_like(leaf) if is_outer else leaf

    assert differs(case.variables) > 0.1
    assert differs(jax.tree_util.tree_map_with_path(shut, case.variables)) == 0
