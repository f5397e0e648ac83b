"""Relative shift: from logits by relative position to logits by key.

Dai et al. 2019, appendix B.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relative_shift(
    logits: Float[Array, "... T C"], num_keys: int
) -> Float[Array, "... T S"]:
    """Aligns logits of relative positions with keys.

    The columns of `logits` are relative positions i - j of query i and key j, which
    fall by one from column to column. Column 0 is that of the last query and first key:

        output[i, j] = logits[i, j + T - 1 - i]

    Entries past the last column (keys after a causal query) are finite, arbitrary and
    without gradient; the causal mask removes them.
    """
    return jax.lax.platform_dependent(
        logits,
        cpu=functools.partial(shift_by_slice, num_keys=num_keys),
        default=functools.partial(shift_by_reshape, num_keys=num_keys),
    )


def shift_by_slice(
    logits: Float[Array, "... T C"], *, num_keys: int
) -> Float[Array, "... T S"]:
    """Shifts by slicing each row, which a CPU copies without rearranging."""
    last = logits.shape[-2] - 1
    padded = jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, last)])
    return slice_rows(padded, num_keys, first=last, step=-1)


def shift_by_reshape(
    logits: Float[Array, "... T C"], *, num_keys: int
) -> Float[Array, "... T S"]:
    """Shifts by padding each row and reshaping back, as in the paper.

    Used on accelerators, where the two were not compared.
    """
    *batch, num_queries, columns = logits.shape
    padded = jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(1, 0)])
    flat = padded.reshape(*batch, num_queries * (columns + 1))
    shifted = flat[..., num_queries:].reshape(*batch, num_queries, columns)
    return shifted[..., :num_keys]


def shift_by_slice_transpose(
    gradient: Float[Array, "... T S"], *, columns: int
) -> Float[Array, "... T C"]:
    """Transposes `shift_by_slice`: output[i, c] = gradient[i, c - (T - 1 - i)]."""
    num_queries, num_keys = gradient.shape[-2:]
    sides = (num_queries - 1, columns - num_keys)
    padded = jnp.pad(gradient, [(0, 0)] * (gradient.ndim - 1) + [sides])
    return slice_rows(padded, columns, first=0, step=1)


def shift_by_reshape_transpose(
    gradient: Float[Array, "... T S"], *, columns: int
) -> Float[Array, "... T C"]:
    """Transposes `shift_by_reshape`, for gradients with a causal mask applied."""
    like = jax.ShapeDtypeStruct((*gradient.shape[:-1], columns), gradient.dtype)
    shift = functools.partial(shift_by_reshape, num_keys=gradient.shape[-1])
    return jax.linear_transpose(shift, like)(gradient)[0]


def slice_rows(
    rows: Float[Array, "... T P"], width: int, *, first: int, step: int
) -> Float[Array, "... T W"]:
    """Slices `width` columns of each row i, beginning at first + i * step."""
    starts = first + step * jnp.arange(rows.shape[-2])
    slice_row = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=width)
    flat = rows.reshape(-1, *rows.shape[-2:])
    sliced = jax.vmap(jax.vmap(slice_row), (0, None))(flat, starts)
    return sliced.reshape(*rows.shape[:-1], width)


def _forward(logits, num_keys):
    return relative_shift(logits, num_keys), logits.shape[-1]


def _backward(num_keys, columns, gradient):
    del num_keys
    transposed = jax.lax.platform_dependent(
        gradient,
        cpu=functools.partial(shift_by_slice_transpose, columns=columns),
        default=functools.partial(shift_by_reshape_transpose, columns=columns),
    )
    return (transposed,)


relative_shift.defvjp(_forward, _backward)
