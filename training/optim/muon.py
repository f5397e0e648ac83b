"""Muon (Jordan et al. 2024): hidden matrices move by nearly orthogonal matrices.

    M = mu M + G
    O = NewtonSchulz5(mu M + G)             Nesterov's momentum
    update = 0.2 sqrt(longer side) O        Liu et al. (2025), eq. 4

The last factor is the size of Adam's updates, so that one rate and one decay fit
Adam too, which moves all other parameters. The heads of an attention are one matrix
here, and so are the gates of a cell.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from training.optim.param_groups import map_named
from training.optim.param_shapes import input_axes

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of X, X X' X and X X' X X' X
ITERATIONS = 5
SIZE = 0.2  # root mean square of an update of Adam's


def scale_by_muon(momentum: float) -> optax.GradientTransformation:
    """Muon's update of matrices before the learning rate; it takes no others."""
    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.stateless(lambda updates, _: map_named(moved, updates)),
    )


def moved(name: str, update: Float[Array, "..."]) -> Float[Array, "..."]:
    """What momentum makes of a parameter's matrix, in the parameter's shape."""
    inputs = input_axes(name, update.shape)
    matrix = update.reshape(math.prod(update.shape[:inputs]), -1)
    size = SIZE * math.sqrt(max(matrix.shape))
    return (size * orthogonalized(matrix)).reshape(update.shape)


def orthogonalized(matrix: Float[Array, "N K"]) -> Float[Array, "N K"]:
    """U f(S) V' for the matrix U S V', f(s) about 1: Newton-Schulz iterations.

    f(s) is 0.7 to 1.2, except where s is less than a few thousandths of the norm.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix

    def iterate(_, x):
        gram = x @ x.T
        return a * x + (b * gram + c * gram @ gram) @ x

    x = x / (jnp.linalg.norm(x) + 1e-7)
    x = jax.lax.fori_loop(0, ITERATIONS, iterate, x)
    return x.T if is_tall else x
