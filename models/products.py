"""The products of attention, with gradients in the order that a CPU computes fast.

A gradient of keys adds up over queries, which are the rows of both its factors.
XLA's CPU library takes no such product of a batch: it goes through it without, or
copies the larger factor, of scores' size, the other way round. Found with the small
factor first, and only then turned, it takes a half of the time. Elsewhere both orders
cost the same.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def over_queries(
    queries: Float[Array, "B H T Dh"], weights: Float[Array, "B H T S"]
) -> Float[Array, "B H S Dh"]:
    """sum_t weights_ts queries_t."""
    return jnp.swapaxes(jnp.einsum("BHTK,BHTS->BHKS", queries, weights), 2, 3)


@jax.custom_vjp
def met(
    queries: Float[Array, "B H T Dh"], keys: Float[Array, "B H S Dh"]
) -> Float[Array, "B H T S"]:
    """Every query times every key."""
    return jnp.einsum("BHTK,BHSK->BHTS", queries, keys)


def _met_forward(queries, keys):
    return met(queries, keys), (queries, keys)


def _met_backward(saved, gradient):
    queries, keys = saved
    by_queries = jnp.einsum("BHTS,BHSK->BHTK", gradient, keys)
    return by_queries, over_queries(queries, gradient)


met.defvjp(_met_forward, _met_backward)


@jax.custom_vjp
def met_distances(
    queries: Float[Array, "B H T Dh"], distances: Float[Array, "C H Dh"]
) -> Float[Array, "H B T C"]:
    """Every query times what stands for each distance.

    By heads first, as a product over all rows makes it: rows of C follow one another.
    """
    return jnp.einsum("BHTK,CHK->HBTC", queries, distances)


def _distances_forward(queries, distances):
    return met_distances(queries, distances), (queries, distances)


def _distances_backward(saved, gradient):
    queries, distances = saved
    heads_first = jnp.swapaxes(distances, 0, 1)
    by_queries = jnp.einsum("HBTC,HCK->HBTK", gradient, heads_first)
    by_distances = jnp.einsum("BHTK,HBTC->HKC", queries, gradient)
    return jnp.swapaxes(by_queries, 0, 1), jnp.transpose(by_distances, (2, 0, 1))


met_distances.defvjp(_distances_forward, _distances_backward)
