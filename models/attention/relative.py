"""From columns of distances to columns of keys (Dai et al. 2019, appendix B)."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relative_shift(
    scores: Float[Array, "... T C"], num_keys: int
) -> Float[Array, "... T S"]:
    """Turns columns of distances into columns of keys, of which there are no more.

    Column c of `scores` belongs to a distance that falls by one from column to
    column, such that the last query needs the columns from 0 on, the query
    before it those from 1 on:

        out[i, j] = scores[i, j + T - 1 - i]

    Entries beyond the last column (keys after a causal query) hold anything finite and
    have no gradient; the causal mask removes them.
    """
    return jax.lax.platform_dependent(
        scores,
        cpu=functools.partial(shift_by_slice, num_keys=num_keys),
        default=functools.partial(shift_by_reshape, num_keys=num_keys),
    )


def shift_by_slice(
    scores: Float[Array, "... T C"], *, num_keys: int
) -> Float[Array, "... T S"]:
    """A slice of each row: what a CPU copies as it stands."""
    num_queries = scores.shape[-2]
    room = [(0, 0)] * (scores.ndim - 1) + [(0, num_queries - 1)]
    return slice_rows(jnp.pad(scores, room), num_keys, first=num_queries - 1, step=-1)


def shift_by_reshape(
    scores: Float[Array, "... T C"], *, num_keys: int
) -> Float[Array, "... T S"]:
    """The paper's: rows one longer, folded anew at the old length.

    On accelerators, where the two were not compared.
    """
    *rows, num_queries, columns = scores.shape
    padded = jnp.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(1, 0)])
    flat = padded.reshape(*rows, num_queries * (columns + 1))
    shifted = flat[..., num_queries:].reshape(*rows, num_queries, columns)
    return shifted[..., :num_keys]


def shift_by_slice_transpose(
    gradient: Float[Array, "... T S"], *, columns: int
) -> Float[Array, "... T C"]:
    """Transpose of `shift_by_slice`: out[i, c] = gradient[i, c - (T - 1 - i)]."""
    num_queries, num_keys = gradient.shape[-2:]
    sides = (num_queries - 1, columns - num_keys)
    padded = jnp.pad(gradient, [(0, 0)] * (gradient.ndim - 1) + [sides])
    return slice_rows(padded, columns, first=0, step=1)


def shift_by_reshape_transpose(
    gradient: Float[Array, "... T S"], *, columns: int
) -> Float[Array, "... T C"]:
    """Transpose of `shift_by_reshape`, for gradients after a causal mask."""
    *rows, num_queries, num_keys = gradient.shape
    like = jax.ShapeDtypeStruct((*rows, num_queries, columns), gradient.dtype)
    fold = functools.partial(shift_by_reshape, num_keys=num_keys)
    (found,) = jax.linear_transpose(fold, like)(gradient)
    return found


def slice_rows(
    rows: Float[Array, "... T P"], width: int, *, first: int, step: int
) -> Float[Array, "... T W"]:
    """Of row i the `width` columns from first + i * step on."""
    num_rows = rows.shape[-2]
    starts = first + step * jnp.arange(num_rows)
    one = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=width)
    flat = rows.reshape(-1, *rows.shape[-2:])
    found = jax.vmap(jax.vmap(one), (0, None))(flat, starts)
    return found.reshape(*rows.shape[:-1], width)


def _forward(scores, num_keys):
    return relative_shift(scores, num_keys), scores.shape[-1]


def _backward(num_keys, columns, gradient):
    del num_keys
    found = jax.lax.platform_dependent(
        gradient,
        cpu=functools.partial(shift_by_slice_transpose, columns=columns),
        default=functools.partial(shift_by_reshape_transpose, columns=columns),
    )
    return (found,)


relative_shift.defvjp(_forward, _backward)
