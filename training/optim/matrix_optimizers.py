"""Optimisers that treat parameters as matrices: Adafactor and Muon."""

import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import meta
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from training.optim.param_groups import map_named

VECTORS = ("bias", "scale")  # names that end so are vectors, whatever their rank
HIDDEN_MATRICES = ("kernel", "recurrent")  # last parts of the names of hidden layers

# Of Adafactor.
EXPONENT = 0.8  # beta = 1 - t^-EXPONENT
EPSILON = 1e-30  # added to squared gradients
THRESHOLD = 1.0  # d, largest RMS of an update

MUON_RMS = 0.2  # root mean square of a Muon update: about that of Adam


def num_input_axes(name: str, shape: tuple[int, ...]) -> int:
    """Returns the number of leading axes that are inputs; 0 for a vector.

    The output projection of attention joins heads, [H, K, D], and has two. Other
    kernels have one, [D, F] or [D, H, K]; embedding tables have one, the vocabulary.
    """
    if len(shape) < 2 or name.endswith(VECTORS):
        return 0
    inputs = 2 if len(shape) > 2 and name.endswith("output/kernel") else 1
    sides = math.prod(shape[:inputs]), math.prod(shape[inputs:])
    return inputs if min(sides) > 1 else 0


def hidden_matrix_mask(params: PyTree) -> PyTree:
    """Returns a mask that is True for the matrices of hidden layers.

    Embeddings and output layers, which are called tables, are none.
    """

    def is_hidden(name, leaf):
        inputs = num_input_axes(name, np.shape(meta.unbox(leaf)))
        return name.split("/")[-1] in HIDDEN_MATRICES and inputs > 0

    return map_named(is_hidden, params)


class Factors(NamedTuple):
    """Factored second moment of a matrix."""

    rows: PyTree  # R, over the input axes
    columns: PyTree  # C, over the output axes


class AdafactorState(NamedTuple):
    """Optimiser state of Adafactor."""

    count: Int[Array, ""]  # number of updates
    moments: PyTree  # like the parameters; `Factors` for matrices, arrays elsewhere


def adafactor(cfg: ConfigDict) -> list[optax.GradientTransformation]:
    """Adafactor (Shazeer and Stern 2018), with factored second moments.

        R = beta R + (1 - beta) mean over columns of (G^2 + eps)
        C = beta C + (1 - beta) mean over rows    of (G^2 + eps)
        U = G / sqrt(R C / mean(R))
        update = U / max(1, RMS(U) / d)

    with beta = 1 - t^-0.8, eps = 1e-30 and d = 1: algorithms 4 and 5 of the paper
    without the step size relative to the scale of a parameter, since the schedule
    gives the learning rate. Means replace sums; the difference cancels.

    `optax.scale_by_factored_rms` takes the two longest axes of an array for rows and
    columns, so it rarely factors [D, H, K], and it loses the names of axes that shard
    the moments.
    """
    del cfg

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

    return [optax.GradientTransformation(init, update)]


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


def muon(cfg: ConfigDict) -> list[optax.GradientTransformation]:
    """Muon (Jordan et al. 2024) for hidden matrices, Adam for all other parameters.

    Updates of matrices are scaled by 0.2 sqrt(longer side) (Liu et al. 2025, eq. 4),
    about the size of Adam's updates, so that one learning rate fits both. The heads of
    an attention projection are one matrix, and so are the gates of a recurrent cell.
    """
    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            beta=cfg.muon_momentum,
            weight_dimension_numbers=lambda updates: map_named(matrix_axes, updates),
        ),
        optax.stateless(lambda updates, _: map_named(scale_to_adam, updates)),
    )
    return [
        optax.masked(matrices, hidden_matrix_mask),
        optax.masked(
            optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps),
            lambda params: jax.tree.map(operator.not_, hidden_matrix_mask(params)),
        ),
    ]


def matrix_axes(
    name: str, update: Float[Array, "..."]
) -> optax.contrib.MuonDimensionNumbers:
    """Returns which axes of a parameter are the inputs and outputs of its matrix."""
    inputs = num_input_axes(name, update.shape)
    axes = tuple(range(update.ndim))
    return optax.contrib.MuonDimensionNumbers(axes[:inputs], axes[inputs:])


def scale_to_adam(name: str, update: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scales an orthogonalised update to the size of Adam's updates."""
    inputs = num_input_axes(name, update.shape)
    sides = math.prod(update.shape[:inputs]), math.prod(update.shape[inputs:])
    return MUON_RMS * math.sqrt(max(sides)) * update
