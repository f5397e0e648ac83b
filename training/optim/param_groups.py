"""Parameter groups: parameters selected by patterns of their names.

A name is the path of a parameter, such as "decoder/layers_0/query/kernel". A pattern is
a regular expression that is searched for in the name; an empty pattern matches nothing.
Leaves may be arrays or boxes with the names of their axes (`flax.core.meta`), so that a
group is the same when a state is sharded and when it is updated.
"""

import re
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import jax
import optax
from flax.core import meta
from jaxtyping import PyTree
from ml_collections import ConfigDict

from utils.errors import UserError

Scales = Iterable[tuple[str, float]]


def map_named(function: Callable[..., Any], params: PyTree, *others: PyTree) -> PyTree:
    """Maps `function(name, leaf, ...)` over all parameters; a box is a leaf."""

    def call(path, *leaves):
        return function(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves)

    return jax.tree_util.tree_map_with_path(
        call, params, *others, is_leaf=lambda node: isinstance(node, meta.AxisMetadata)
    )


def named_leaves(params: PyTree) -> dict[str, Any]:
    """Returns all parameters by name."""
    names = jax.tree.leaves(map_named(lambda name, _: name, params))
    return dict(zip(names, jax.tree.leaves(params), strict=True))


def is_match(pattern: str, name: str) -> bool:
    """Returns whether a pattern is found in a name."""
    return bool(pattern) and re.search(pattern, name) is not None


def name_mask(pattern: str, *, matched: bool = True) -> Callable[[PyTree], PyTree]:
    """Returns a function from parameters to a mask: `matched` where names match."""
    return lambda params: map_named(
        lambda name, _: is_match(pattern, name) is matched, params
    )


def lr_factor(name: str, scales: Scales) -> float:
    """Returns the learning-rate factor of the first pattern that matches, else 1."""
    return next((factor for pattern, factor in scales if is_match(pattern, name)), 1.0)


def freeze(
    optimizer: optax.GradientTransformationExtraArgs, pattern: str
) -> optax.GradientTransformationExtraArgs:
    """Excludes the parameters that match a pattern from an optimiser.

    The optimiser has no state for them, and gradient norms leave them out.
    """
    if not pattern:
        return optimizer
    return optax.chain(
        optax.masked(optimizer, name_mask(pattern, matched=False)),
        optax.masked(optax.set_to_zero(), name_mask(pattern)),
    )


def check_pattern_syntax(cfg: ConfigDict) -> list[tuple[str, str]]:
    """Returns the pairs (key, pattern) of `cfg.optim`.

    Raises:
      UserError: a pattern is not a regular expression, or an entry of `lr_scales` is
        not a pair of a pattern and a factor.
    """
    found = [("freeze", cfg.freeze), ("weight_decay_params", cfg.weight_decay_params)]
    for pair in cfg.lr_scales:
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        is_pair = is_pair and isinstance(pair[0], str)
        if not (is_pair and type(pair[1]) in (int, float) and 0 <= pair[1] < inf):
            raise UserError(
                f"optim.lr_scales has {pair!r}: each entry must be a pair of a pattern "
                "and a factor of 0 or more, such as ('embedding', 0.1)"
            )
        found.append(("lr_scales", pair[0]))
    for key, pattern in found:
        check_pattern(f"optim.{key}", pattern)
    return found


def check_pattern(key: str, pattern: str) -> None:
    """Raises UserError where the value of a key is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"{key}={pattern!r} is not a regular expression: {error}"
        ) from error


def check_patterns(cfg: ConfigDict, params: PyTree) -> None:
    """Checks the patterns of `cfg.optim` against the parameters of a model.

    Raises:
      UserError: a pattern matches no parameter, or all parameters are frozen.
    """
    names = list(named_leaves(params))
    for key, pattern in check_pattern_syntax(cfg):
        is_set = bool(pattern) or key == "lr_scales"  # elsewhere "" means none
        if is_set and not any(is_match(pattern, name) for name in names):
            examples = ", ".join(names[:: max(len(names) // 4, 1)][:4])
            raise UserError(
                f"optim.{key}={pattern!r} matches no parameter; examples of names: "
                f"{examples}"
            )
    if all(is_match(cfg.freeze, name) for name in names):
        raise UserError(
            f"optim.freeze={cfg.freeze!r} matches all parameters: none is left to train"
        )
