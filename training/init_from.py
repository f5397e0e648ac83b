"""Parameters of another run as the first ones of this."""

import jax
from jaxtyping import PyTree

from training.optim.param_groups import is_match, map_named, names_of
from utils.errors import UserError

SHOWN = 3  # names in an error


def init_from_params(params: PyTree, given: PyTree, pattern: str) -> PyTree:
    """`params` with those of `given` whose names match in their place.

    Args:
      pattern: a regular expression, searched for in a parameter's name.

    Raises UserError where a name that matches is missing there or of another
    shape, or none matches.
    """
    there = dict(zip(names_of(given), jax.tree.leaves(given), strict=True))
    taken, wrong = [], []

    def choose(name, leaf):
        if not is_match(pattern, name):
            return leaf
        found = there.get(name)
        if found is None or found.shape != leaf.shape:
            shape = "missing" if found is None else f"of shape {found.shape}"
            wrong.append(f"{name} {leaf.shape} is {shape} there")
            return leaf
        taken.append(name)
        return jax.device_put(found, leaf.sharding)

    chosen = map_named(choose, params)
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"init_from: {'; '.join(wrong[:SHOWN])}{more}: leave them out of "
            f"init_params_pattern={pattern!r}"
        )
    if not taken:
        raise UserError(f"init_params_pattern={pattern!r} matches no parameter")
    return chosen
