"""Types of numbers: parameters are float32, computation may be narrower.

A parameter is cast where it is used, not once for all. What is used many times in a
pass (the embedding of a frequent word, a recurrent weight, the table of a blockwise
loss) then sums its gradients in float32; a sum in bfloat16 stops growing at 256 times
one of its terms. Softmaxes, statistics of normalisations, logits and losses are always
float32. float64, for tests, needs jax_enable_x64 and applies to everything.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

DType = DTypeLike
Scalar = float | Float[Array, ""]  # of a config; traced, if many runs share a program
DTYPES = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float64": jnp.float64,
}


def upcast_to_f32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Casts to float32 what is narrower; wider types stay."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_vjp
def matmul_f32(
    hidden: Float[Array, "... D"], table: Float[Array, "V D"]
) -> Float[Array, "... V"]:
    """Computes h T^T of narrow inputs, with sums and result in float32.

    The backward pass rounds the gradient of the logits to the type of h first; else
    both of its products, two thirds of a loss over a vocabulary, would be in float32.
    """
    return jnp.matmul(hidden, table.T, preferred_element_type=jnp.float32)


def _forward(hidden, table):
    return matmul_f32(hidden, table), (hidden, table)


def _backward(saved, gradient):
    _, pull = jax.vjp(lambda hidden, table: hidden @ table.T, *saved)
    return pull(gradient.astype(saved[0].dtype))


matmul_f32.defvjp(_forward, _backward)


def make_logits(
    hidden: Float[Array, "... D"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
) -> Float[Array, "... V"]:
    """Computes the logits h T^T + b in float32."""
    if hidden.dtype in (jnp.float32, jnp.float64):
        return hidden @ table.astype(hidden.dtype).T + bias
    return matmul_f32(hidden, table.astype(hidden.dtype)) + bias
