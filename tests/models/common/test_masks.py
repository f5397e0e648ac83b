"""Tests of attention masks, padding and the masked softmax."""

import jax
import jax.numpy as jnp
import numpy as np

from models.common.masks import (
    causal_mask,
    masked_softmax,
    pad_left,
    pad_right,
    sliding_window_mask,
    valid_memory_mask,
)


def test_a_row_without_keys_gets_zeros_and_its_gradient_is_zero():
    logits, mask = (
        jax.random.normal(jax.random.key(0), (2, 3)),
        jnp.asarray([[True, False, True], [False] * 3]),
    )
    weights = masked_softmax(logits, mask)
    np.testing.assert_allclose(weights.sum(axis=-1), [1.0, 0.0], atol=1e-6)
    assert float(weights[0, 1]) == 0.0
    gradient = jax.grad(lambda x: (masked_softmax(x, mask) ** 2).sum())(logits)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0.0)


def test_masks_are_true_where_a_query_attends_to_a_key():
    np.testing.assert_array_equal(
        causal_mask(2, 4)[0], [[True, True, True, False], [True] * 4]
    )
    np.testing.assert_array_equal(
        causal_mask(2, 4)[0] & sliding_window_mask(2, 4, 2)[0],
        [[False, True, True, False], [False, False, True, True]],
    )
    valid = valid_memory_mask(jnp.asarray([0, 2]), 3)[:, 0]
    np.testing.assert_array_equal(valid, [[False] * 3, [False, True, True]])


def test_padding_moves_to_one_side_and_tokens_keep_their_order():
    tokens = jnp.asarray([[9, 1, 9, 2], [3, 4, 9, 9]])
    mask = tokens != 9
    left, left_mask = pad_left(tokens, mask)
    np.testing.assert_array_equal(left, [[9, 9, 1, 2], [9, 9, 3, 4]])
    np.testing.assert_array_equal(left_mask, left != 9)
    right, right_mask = pad_right(tokens, mask)
    np.testing.assert_array_equal(right, [[1, 2, 9, 9], [3, 4, 9, 9]])
    np.testing.assert_array_equal(right_mask, right != 9)
