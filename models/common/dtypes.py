"""Types of numbers: parameters are float32, what is computed may be narrower.

A parameter is cast where it is used, and not once for all: what is used many
times in a pass (the vector of a frequent word, a recurrent weight, the table of
a blocked loss) then adds up its gradients in float32, where a sum in bfloat16
would stop to grow at 256 times one of its terms. Softmaxes, the statistics of
normalisations, logits and losses are float32 in any case. Of float64, which is for
tests and needs jax_enable_x64, everything is.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

DType = DTypeLike
Scalar = float | Float[Array, ""]  # of a config; or traced, of many runs at once
DTYPES = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float64": jnp.float64,
}


def upcast_to_f32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """As float32 what is narrower; what is wider stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_vjp
def matmul_f32(
    hidden: Float[Array, "... D"], table: Float[Array, "V D"]
) -> Float[Array, "... V"]:
    """h T^T of narrow numbers, added up and handed on as float32.

    Backward, the logits' gradient is rounded to the type of h first: else both
    products there, two thirds of a loss over a vocabulary, would be of float32.
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
    """h T^T + b, float32."""
    if hidden.dtype in (jnp.float32, jnp.float64):
        return hidden @ table.astype(hidden.dtype).T + bias
    return matmul_f32(hidden, table.astype(hidden.dtype)) + bias
