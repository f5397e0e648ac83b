"""Types of numbers: parameters are float32, computation may be narrower.

A parameter is cast where it is used, not once for all. What is used many times in a
pass (the embedding of a frequent word, a recurrent weight, the table of a blockwise
loss) then sums its gradients in float32; a sum in bfloat16 stops growing at 256 times
one of its terms. Softmaxes, statistics of normalisations, logits and losses are always
float32. float64, for tests, needs jax_enable_x64 and applies to everything.
"""

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
