"""Adafactor (Shazeer and Stern 2018): factored second moments.

    R = beta R + (1 - beta) mean over columns of (G^2 + eps)
    C = beta C + (1 - beta) mean over rows    of (G^2 + eps)
    U = G / sqrt(R C / mean(R))
    update = U / max(1, RMS(U) / d)

with beta = 1 - t^-0.8, eps = 1e-30 and d = 1: algorithms 4 and 5 of the paper without
the step size relative to the scale of a parameter, since the schedule gives the
learning rate. Means replace sums; the difference cancels.

`optax.scale_by_factored_rms` takes the two longest axes of an array for rows and
columns, so it rarely factors [D, H, K], and it loses the names of axes that shard the
moments.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import meta
from jaxtyping import Array, Float, Int, PyTree

from training.optim.param_groups import map_named, num_input_axes

EXPONENT = 0.8  # beta = 1 - t^-EXPONENT
EPSILON = 1e-30  # added to squared gradients
THRESHOLD = 1.0  # d, largest RMS of an update


class Factors(NamedTuple):
    """Factored second moment of a matrix."""

    rows: PyTree  # R, over the input axes
    columns: PyTree  # C, over the output axes


class AdafactorState(NamedTuple):
    """Optimiser state of Adafactor."""

    count: Int[Array, ""]  # number of updates
    moments: PyTree  # like the parameters; `Factors` for matrices, arrays elsewhere


def scale_by_adafactor() -> optax.GradientTransformation:
    """Returns the transformation before the learning rate."""

    def init(params):
        return AdafactorState(jnp.zeros((), jnp.int32), map_named(init_moment, params))

    def update(grads, state, params=None):
        del params
        count = state.count + 1
        weight = count.astype(jnp.float32) ** -EXPONENT  # 1 - beta

        def mix(old, new):
            return old + weight * (new - old)

        def update_moment(grad, moment):
            return jax.tree.map(mix, moment, mean_squares(grad, moment))

        moments = jax.tree.map(update_moment, grads, state.moments)
        updates = jax.tree.map(scale_update, grads, moments)
        return updates, AdafactorState(count, moments)

    return optax.GradientTransformation(init, update)


def init_moment(name: str, param: PyTree) -> PyTree:
    """Returns a zero moment: `Factors` for a matrix, with the names of its axes."""
    inputs = num_input_axes(name, np.shape(meta.unbox(param)))

    def zeros_of(axes: slice):
        if isinstance(param, meta.Partitioned):
            zeros = jnp.zeros(param.value.shape[axes], param.value.dtype)
            return param.replace(value=zeros, names=tuple(param.names)[axes])
        return jnp.zeros(param.shape[axes], param.dtype)

    if not inputs:
        return zeros_of(slice(None))
    return Factors(zeros_of(slice(None, inputs)), zeros_of(slice(inputs, None)))


def mean_squares(grad: Float[Array, "..."], moment: PyTree) -> PyTree:
    """Returns the squared gradient; for a matrix its means over rows and columns."""
    squares = grad**2 + EPSILON
    if not isinstance(moment, Factors):
        return squares
    axes = tuple(range(grad.ndim))
    inputs, outputs = axes[: moment.rows.ndim], axes[moment.rows.ndim :]
    return Factors(squares.mean(outputs), squares.mean(inputs))


def scale_update(grad: Float[Array, "..."], moment: PyTree) -> Float[Array, "..."]:
    """Divides a gradient by the root of its second moment and bounds its RMS."""
    if isinstance(moment, Factors):
        rows = (moment.rows / moment.rows.mean()) ** -0.5
        rows = jnp.expand_dims(rows, tuple(range(rows.ndim, grad.ndim)))
        update = grad * rows * moment.columns**-0.5
    else:
        update = grad * moment**-0.5
    size = jnp.sqrt(jnp.mean(update**2))
    return update / jnp.maximum(1.0, size / THRESHOLD)
