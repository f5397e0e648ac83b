"""Comparison of matrix products and their gradients with plain einsums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.common.matmul import dense, kv_gradient, qk_logits, relative_logits

# All different, so that a swapped axis cannot pass.
B, H, T, S, K, C = 2, 3, 5, 7, 11, 13
DEFINITIONS = {
    qk_logits: ("BHTK,BHSK->BHTS", (B, H, T, K), (B, H, S, K)),
    relative_logits: ("BHTK,CHK->HBTC", (B, H, T, K), (C, H, K)),
    kv_gradient: ("BHTK,BHTS->BHSK", (B, H, T, K), (B, H, T, S)),
}


def one_axis(x, kernel):
    return dense(x, kernel, 1)


def two_axes(x, kernel):
    return dense(x, kernel, 2)


DEFINITIONS |= {  # with more outputs than inputs, and with fewer
    one_axis: ("BTK,KHC->BTHC", (B, T, K), (K, H, C)),
    two_axes: ("BTHC,HCK->BTK", (B, T, H, C), (H, C, K)),
}


@pytest.mark.parametrize("product", DEFINITIONS, ids=lambda product: product.__name__)
def test_a_product_and_its_gradients_equal_those_of_an_einsum(product):
    definition, *shapes = DEFINITIONS[product]
    rng = np.random.default_rng(0)
    factors = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]

    def by_definition(*factors):
        return jnp.einsum(definition, *factors)

    found, pull = jax.vjp(product, *factors)
    expected, expected_pull = jax.vjp(by_definition, *factors)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    gradient = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for one, other in zip(pull(gradient), expected_pull(gradient), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
