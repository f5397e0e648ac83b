"""Products with gradients in the order that a CPU computes fast.

A gradient of weights adds up over tokens, and one of keys over queries: over the rows
of both factors. XLA's CPU library turns the first of them round in memory, and of a
batch it takes no such product at all. So the small factor stands first and what is
found is turned, which takes as little as half of the time. On accelerators the orders
were not compared.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def dense(
    x: Float[Array, "..."], kernel: Float[Array, "..."], num_inputs: int
) -> Float[Array, "..."]:
    """The last `num_inputs` axes of x times as many first ones of a kernel."""
    return jnp.tensordot(x, kernel, num_inputs)


def _linear_forward(x, kernel, num_inputs):
    return dense(x, kernel, num_inputs), (x, kernel)


def _linear_backward(num_inputs, saved, gradient):
    x, kernel = saved
    rows = tuple(range(x.ndim - num_inputs))
    outputs = tuple(range(num_inputs, kernel.ndim))
    after = tuple(range(len(rows), gradient.ndim))
    by_x = jnp.tensordot(gradient, kernel, (after, outputs))
    if x.size <= gradient.size:
        return by_x, jnp.tensordot(x, gradient, (rows, rows))
    turned = jnp.tensordot(gradient, x, (rows, rows))
    return by_x, jnp.moveaxis(turned, tuple(range(len(outputs))), outputs)


dense.defvjp(_linear_forward, _linear_backward)


def kv_gradient(
    queries: Float[Array, "B H T Dh"], weights: Float[Array, "B H T S"]
) -> Float[Array, "B H S Dh"]:
    """sum_t weights_ts queries_t."""
    return jnp.swapaxes(jnp.einsum("BHTK,BHTS->BHKS", queries, weights), 2, 3)


@jax.custom_vjp
def qk_logits(
    queries: Float[Array, "B H T Dh"], keys: Float[Array, "B H S Dh"]
) -> Float[Array, "B H T S"]:
    """Every query times every key."""
    return jnp.einsum("BHTK,BHSK->BHTS", queries, keys)


def _met_forward(queries, keys):
    return qk_logits(queries, keys), (queries, keys)


def _met_backward(saved, gradient):
    queries, keys = saved
    by_queries = jnp.einsum("BHTS,BHSK->BHTK", gradient, keys)
    return by_queries, kv_gradient(queries, gradient)


qk_logits.defvjp(_met_forward, _met_backward)


@jax.custom_vjp
def relative_logits(
    queries: Float[Array, "B H T Dh"], distances: Float[Array, "C H Dh"]
) -> Float[Array, "H B T C"]:
    """Every query times what stands for each distance.

    By heads first, as a product over all rows makes it: rows of C follow one another.
    """
    return jnp.einsum("BHTK,CHK->HBTC", queries, distances)


def _distances_forward(queries, distances):
    return relative_logits(queries, distances), (queries, distances)


def _distances_backward(saved, gradient):
    queries, distances = saved
    heads_first = jnp.swapaxes(distances, 0, 1)
    by_queries = jnp.einsum("HBTC,HCK->HBTK", gradient, heads_first)
    by_distances = jnp.einsum("BHTK,HBTC->HKC", queries, gradient)
    return jnp.swapaxes(by_queries, 0, 1), jnp.transpose(by_distances, (2, 0, 1))


relative_logits.defvjp(_distances_forward, _distances_backward)
