"""Rows of trees whose leaves are [B, ...], or have no rows at all."""

import jax
from jaxtyping import PyTree


def first_rows(tree: PyTree, rows: int) -> PyTree:
    """Leaves [B, ...] without those that follow; those without rows as they are."""
    return jax.tree.map(lambda leaf: leaf[:rows] if leaf.ndim else leaf, tree)


def dealt(tree: PyTree, count: int) -> PyTree:
    """Leaves [B, ...] as [count, B / count, ...]; those without rows as they are."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]) if leaf.ndim else leaf,
        tree,
    )


def gathered(tree: PyTree) -> PyTree:
    """What was `dealt`."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]) if leaf.ndim else leaf, tree
    )
