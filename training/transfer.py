"""Parameters of another run as the first ones of this."""

import re

import jax
from jaxtyping import PyTree

from errors import UserError

SHOWN = 3  # names in an error


def parameter_name(path: tuple) -> str:
    """Where a leaf stands in the tree: "decoder/layers_0/.../kernel"."""
    return "/".join(str(key.key) for key in path)


def transferred(params: PyTree, given: PyTree, pattern: str) -> PyTree:
    """`params` with those of `given` whose names match in their place.

    Args:
      pattern: a regular expression, searched for in a parameter's name.

    Raises UserError where a name that matches is missing there or of another
    shape, or none matches.
    """
    there = {
        parameter_name(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(given)
    }
    taken, wrong = [], []

    def choose(path, leaf):
        name = parameter_name(path)
        if not re.search(pattern, name):
            return leaf
        found = there.get(name)
        if found is None or found.shape != leaf.shape:
            shape = "missing" if found is None else f"of shape {found.shape}"
            wrong.append(f"{name} {leaf.shape} is {shape} there")
            return leaf
        taken.append(name)
        return jax.device_put(found, leaf.sharding)

    chosen = jax.tree_util.tree_map_with_path(choose, params)
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"init_from: {'; '.join(wrong[:SHOWN])}{more}: leave them out of "
            f"init_params={pattern!r}"
        )
    if not taken:
        raise UserError(f"init_params={pattern!r} matches no parameter")
    return chosen
