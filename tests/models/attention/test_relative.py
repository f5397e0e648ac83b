"""Both ways to shift put distances under their keys, and gradients back."""

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
WAYS = {
    "relative_shift": relative_shift,
    "by_rows": lambda scores, num_keys: shift_by_slice(scores, num_keys=num_keys),
    "by_folding": lambda scores, num_keys: shift_by_reshape(scores, num_keys=num_keys),
}


@pytest.mark.parametrize("shift", WAYS.values(), ids=WAYS)
def test_the_shift_puts_each_distance_under_its_key(shift):
    # Column c holds the distance M + T - 1 - c; every entry says its distance.
    distances = np.arange(M + T - 1, -T, -1, dtype=np.float32)
    scores = jnp.broadcast_to(jnp.asarray(distances), (T, len(distances)))
    expected = M + np.arange(T)[:, None] - np.arange(M + T)
    np.testing.assert_array_equal(shift(scores, M + T), expected)
    causal = shift(scores[:, : M + T], M + T)
    seen = np.asarray(causal_mask(T, M + T)[0])
    np.testing.assert_array_equal(np.asarray(causal)[seen], expected[seen])


BACK = {
    "rows_back": shift_by_slice_transpose,
    "folding_back": shift_by_reshape_transpose,
}


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("back", BACK.values(), ids=BACK)
def test_a_gradient_goes_back_to_the_distance_it_came_from(back, is_causal):
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
        back(jnp.asarray(gradient), columns=columns), expected
    )


def test_the_gradient_of_the_shift_is_that_of_its_definition():
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(H, T, M + 2 * T - 1)))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(H, T, M + T)))

    def total(shift, scores):
        return (shift(scores, M + T) * weights).sum()

    def definition(scores, num_keys):
        places = np.arange(num_keys) + T - 1 - np.arange(T)[:, None]
        return scores[:, np.arange(T)[:, None], places]

    found, expected = (
        jax.grad(functools.partial(total, shift))(scores)
        for shift in (relative_shift, definition)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
