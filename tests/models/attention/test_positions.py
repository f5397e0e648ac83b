"""Comparison of position encodings with the papers' formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.positions import apply_rope, sinusoidal_encoding


def test_sinusoids_interleave_as_in_the_paper_or_concatenate():
    positions = jnp.asarray([0, 1, 7])
    waves = sinusoidal_encoding(positions, 6, interleaved=True)
    for p, row in zip([0, 1, 7], np.asarray(waves), strict=True):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(row[2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(row[2 * i + 1], np.cos(angle), atol=1e-6)
    halves = sinusoidal_encoding(positions, 6, interleaved=False)
    np.testing.assert_array_equal(halves[:, :3], waves[:, 0::2])
    np.testing.assert_array_equal(halves[:, 3:], waves[:, 1::2])


@pytest.mark.parametrize("offset", [0, 150_000, 15_000_000])
def test_rope_is_as_accurate_far_into_a_text(offset):
    random = np.random.default_rng(0)
    query, key = jnp.asarray(random.normal(size=(2, 1, 1, 4, 64)), jnp.float32)
    positions = jnp.arange(4)[None] * 500

    def logits(first):
        rotated = (
            apply_rope(query, positions + first + 2000),
            apply_rope(key, positions + first),
        )
        return jnp.einsum("BHTK,BHSK->BHTS", *rotated)

    rates = 10000.0 ** (-np.arange(0, 64, 2) / 64)
    angles = (np.arange(4)[:, None] - np.arange(4)[None] + 4)[..., None] * 500 * rates
    one, two = (np.asarray(x[0, 0], np.float64) for x in (query, key))
    as_complex = [x[:, :32] + 1j * x[:, 32:] for x in (one, two)]
    exact = np.einsum(
        "tk,sk,tsk->ts", *as_complex[:1], as_complex[1].conj(), np.exp(1j * angles)
    ).real
    np.testing.assert_allclose(logits(offset)[0, 0], exact, atol=2e-4)
