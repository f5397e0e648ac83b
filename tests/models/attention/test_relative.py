"""Tests of both implementations of the relative shift and of its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.relative import (
    relative_shift,
    shift_by_reshape,
    shift_by_reshape_transpose,
    shift_by_slice,
    shift_by_slice_transpose,
)
from models.common.masks import causal_mask

H, T, M = 2, 3, 4
SHIFTS = {
    "relative_shift": relative_shift,
    "slice": lambda logits, num_keys: shift_by_slice(logits, num_keys=num_keys),
    "reshape": lambda logits, num_keys: shift_by_reshape(logits, num_keys=num_keys),
}


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_the_shift_aligns_relative_positions_with_keys(shift):
    # Column c is the relative position M + T - 1 - c, and so is its value.
    positions = np.arange(M + T - 1, -T, -1, dtype=np.float32)
    logits = jnp.broadcast_to(jnp.asarray(positions), (T, len(positions)))
    expected = M + np.arange(T)[:, None] - np.arange(M + T)
    np.testing.assert_array_equal(shift(logits, M + T), expected)
    causal = shift(logits[:, : M + T], M + T)
    seen = np.asarray(causal_mask(T, M + T)[0])
    np.testing.assert_array_equal(np.asarray(causal)[seen], expected[seen])


TRANSPOSES = {
    "slice": shift_by_slice_transpose,
    "reshape": shift_by_reshape_transpose,
}


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("transpose", TRANSPOSES.values(), ids=TRANSPOSES)
def test_the_transpose_returns_gradients_to_their_columns(transpose, is_causal):
    columns = M + T if is_causal else M + 2 * T - 1
    gradient = np.random.default_rng(0).normal(size=(H, T, M + T)).astype(np.float32)
    if is_causal:
        gradient *= np.asarray(causal_mask(T, M + T)[0])
    expected = np.zeros((H, T, columns), np.float32)
    for i in range(T):
        for j in range(M + T):
            if (column := j + T - 1 - i) < columns:
                expected[:, i, column] = gradient[:, i, j]
    np.testing.assert_array_equal(
        transpose(jnp.asarray(gradient), columns=columns), expected
    )


def test_the_gradient_of_the_shift_equals_that_of_indexing():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(H, T, M + 2 * T - 1)))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(H, T, M + T)))

    def total(shift, logits):
        return (shift(logits, M + T) * weights).sum()

    def definition(logits, num_keys):
        columns = np.arange(num_keys) + T - 1 - np.arange(T)[:, None]
        return logits[:, np.arange(T)[:, None], columns]

    found, expected = (
        jax.grad(functools.partial(total, shift))(logits)
        for shift in (relative_shift, definition)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
