"""Matrix products with custom VJPs: fast on a CPU, or accurate in bfloat16.

The gradient of a weight sums over tokens, and that of a key over queries: over the
rows of both factors. XLA's CPU library transposes the first factor in memory, and has
no such product of batches at all. So the smaller factor comes first and the result is
transposed, in as little as half of the time. On accelerators the orders were not
compared.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def dense(
    x: Float[Array, "..."], kernel: Float[Array, "..."], num_inputs: int
) -> Float[Array, "..."]:
    """Multiplies the last `num_inputs` axes of x by the first ones of a kernel."""
    return jnp.tensordot(x, kernel, num_inputs)


def _dense_forward(x, kernel, num_inputs):
    return dense(x, kernel, num_inputs), (x, kernel)


def _dense_backward(num_inputs, saved, gradient):
    x, kernel = saved
    batch = tuple(range(x.ndim - num_inputs))
    outputs = tuple(range(num_inputs, kernel.ndim))
    gradient_outputs = tuple(range(len(batch), gradient.ndim))
    d_x = jnp.tensordot(gradient, kernel, (gradient_outputs, outputs))
    if x.size <= gradient.size:
        return d_x, jnp.tensordot(x, gradient, (batch, batch))
    transposed = jnp.tensordot(gradient, x, (batch, batch))
    return d_x, jnp.moveaxis(transposed, tuple(range(len(outputs))), outputs)


dense.defvjp(_dense_forward, _dense_backward)


def kv_gradient(
    queries: Float[Array, "B H T K"], weights: Float[Array, "B H T S"]
) -> Float[Array, "B H S K"]:
    """Sums queries over T, weighted for each key: sum_t weights_ts queries_t."""
    return jnp.swapaxes(jnp.einsum("BHTK,BHTS->BHKS", queries, weights), 2, 3)


@jax.custom_vjp
def qk_logits(
    query: Float[Array, "B H T K"], key: Float[Array, "B H S K"]
) -> Float[Array, "B H T S"]:
    """Computes the dot product of every query with every key."""
    return jnp.einsum("BHTK,BHSK->BHTS", query, key)


def _qk_forward(query, key):
    return qk_logits(query, key), (query, key)


def _qk_backward(saved, gradient):
    query, key = saved
    d_query = jnp.einsum("BHTS,BHSK->BHTK", gradient, key)
    return d_query, kv_gradient(query, gradient)


qk_logits.defvjp(_qk_forward, _qk_backward)


@jax.custom_vjp
def relative_logits(
    query: Float[Array, "B H T K"], relative_keys: Float[Array, "C H K"]
) -> Float[Array, "H B T C"]:
    """Computes the dot product of every query with every relative key.

    Heads come first, as the product over all queries stores them: rows of C are
    contiguous.
    """
    return jnp.einsum("BHTK,CHK->HBTC", query, relative_keys)


def _relative_forward(query, relative_keys):
    return relative_logits(query, relative_keys), (query, relative_keys)


def _relative_backward(saved, gradient):
    query, relative_keys = saved
    heads_first = jnp.swapaxes(relative_keys, 0, 1)
    d_query = jnp.einsum("HBTC,HCK->HBTK", gradient, heads_first)
    d_keys = jnp.einsum("BHTK,HBTC->HKC", query, gradient)
    return jnp.swapaxes(d_query, 0, 1), jnp.transpose(d_keys, (2, 0, 1))


relative_logits.defvjp(_relative_forward, _relative_backward)


@jax.custom_vjp
def matmul_f32(
    hidden: Float[Array, "... D"], table: Float[Array, "V D"]
) -> Float[Array, "... V"]:
    """Computes h T^T of narrow inputs, with sums and result in float32.

    The backward pass rounds the gradient of the logits to the type of h first; else
    both of its products, two thirds of a loss over a vocabulary, would be in float32.
    """
    return jnp.matmul(hidden, table.T, preferred_element_type=jnp.float32)


def _matmul_f32_forward(hidden, table):
    return matmul_f32(hidden, table), (hidden, table)


def _matmul_f32_backward(saved, gradient):
    _, pull = jax.vjp(lambda hidden, table: hidden @ table.T, *saved)
    return pull(gradient.astype(saved[0].dtype))


matmul_f32.defvjp(_matmul_f32_forward, _matmul_f32_backward)


def make_logits(
    hidden: Float[Array, "... D"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
) -> Float[Array, "... V"]:
    """Computes the logits h T^T + b in float32."""
    if hidden.dtype in (jnp.float32, jnp.float64):
        return hidden @ table.astype(hidden.dtype).T + bias
    return matmul_f32(hidden, table.astype(hidden.dtype)) + bias
