"""Losses of the tasks that predict labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "... C"], labels: Int[Array, "..."], smoothing: float = 0.0
) -> Float[Array, "..."]:
    """Computes the cross entropy of labels in nats.

    With label smoothing (Szegedy et al. 2016), all C classes share its mass.
    """
    log_probs = jax.nn.log_softmax(logits)
    likelihood = jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return -(1 - smoothing) * likelihood - smoothing * log_probs.mean(axis=-1)
