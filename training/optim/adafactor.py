"""Adafactor (Shazeer and Stern 2018): Adam's second moment from rows and columns.

    R = beta R + (1 - beta) mean over columns of (G^2 + eps)
    C = beta C + (1 - beta) mean over rows    of (G^2 + eps)
    U = G / sqrt(R C / mean(R))
    update = U / max(1, RMS(U) / d)

with beta = 1 - t^-0.8, eps = 1e-30 and d = 1: algorithms 4 and 5 of the paper
without the step size relative to a parameter's scale, since the schedule gives the
rate. Means stand for sums, which cancel.

optax has it too, but takes the two longest axes of an array for rows and columns,
so that [D, H, Dh] is rarely factored, and loses the names of axes, by which
moments are spread over devices as their parameters are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import meta
from jaxtyping import Array, Float, Int, PyTree

from training.optim.param_groups import map_named
from training.optim.param_shapes import input_axes

EXPONENT = 0.8  # of the number of updates, in beta
EPSILON = 1e-30  # added to squares
THRESHOLD = 1.0  # d: the largest RMS of an update


class Factors(NamedTuple):
    """The second moment of a matrix.

    Attributes:
      rows: R, of the axes of inputs.
      columns: C, of the axes of outputs.
    """

    rows: PyTree
    columns: PyTree


class AdafactorState(NamedTuple):
    """Attributes:
    count: updates so far.
    moments: like the parameters; `Factors` at matrices, arrays elsewhere.
    """

    count: Int[Array, ""]
    moments: PyTree


def scale_by_adafactor() -> optax.GradientTransformation:
    """Adafactor's update before the learning rate."""

    def init(params):
        return AdafactorState(jnp.zeros((), jnp.int32), map_named(first, params))

    def update(grads, state, params=None):
        del params
        count = state.count + 1
        share = count.astype(jnp.float32) ** -EXPONENT  # 1 - beta

        def moved(grad, moment):
            return jax.tree.map(
                lambda old, new: old + share * (new - old), moment, means(grad, moment)
            )

        moments = jax.tree.map(moved, grads, state.moments)
        return jax.tree.map(scaled, grads, moments), AdafactorState(count, moments)

    return optax.GradientTransformation(init, update)


def first(name: str, param: PyTree) -> PyTree:
    """Zeros: `Factors` of a matrix, with its axes' names if it has them."""
    inputs = input_axes(name, np.shape(meta.unbox(param)))

    def part(axes: slice):
        if isinstance(param, meta.Partitioned):
            zeros = jnp.zeros(param.value.shape[axes], param.value.dtype)
            return param.replace(value=zeros, names=tuple(param.names)[axes])
        return jnp.zeros(param.shape[axes], param.dtype)

    if not inputs:
        return part(slice(None))
    return Factors(part(slice(None, inputs)), part(slice(inputs, None)))


def means(grad: Float[Array, "..."], moment: PyTree) -> PyTree:
    """The squares of a gradient; of a matrix their means by row and by column."""
    squares = grad**2 + EPSILON
    if not isinstance(moment, Factors):
        return squares
    axes = tuple(range(grad.ndim))
    inputs, outputs = axes[: moment.rows.ndim], axes[moment.rows.ndim :]
    return Factors(squares.mean(outputs), squares.mean(inputs))


def scaled(grad: Float[Array, "..."], moment: PyTree) -> Float[Array, "..."]:
    """A gradient over the root of its second moment, its RMS bounded."""
    if isinstance(moment, Factors):
        rows = (moment.rows / moment.rows.mean()) ** -0.5
        rows = jnp.expand_dims(rows, tuple(range(rows.ndim, grad.ndim)))
        update = grad * rows * moment.columns**-0.5
    else:
        update = grad * moment**-0.5
    size = jnp.sqrt(jnp.mean(update**2))
    return update / jnp.maximum(1.0, size / THRESHOLD)
