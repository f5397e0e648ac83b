"""Groups of parameters, told apart by patterns of their names.

A name is the path to a parameter, as "decoder/layers_0/feed_forward/up/kernel". A
pattern is a regular expression that is searched for in it; an empty one matches
nothing. Names are those of a tree whose leaves may be arrays or boxes with the
names of axes, so the same group is found when a state is laid out over devices
and when it is updated.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import optax
from flax.core import meta
from jaxtyping import PyTree
from ml_collections import ConfigDict

from utils.errors import UserError

Scales = Iterable[tuple[str, float]]


def map_named(function: Callable[..., Any], params: PyTree, *others: PyTree) -> PyTree:
    """`function(name, leaf, ...)` for every parameter; a box is a leaf."""

    def call(path, *leaves):
        return function(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves)

    return jax.tree_util.tree_map_with_path(
        call, params, *others, is_leaf=lambda node: isinstance(node, meta.AxisMetadata)
    )


def names_of(params: PyTree) -> list[str]:
    """The name of every parameter."""
    return jax.tree.leaves(map_named(lambda name, _: name, params))


def is_match(pattern: str, name: str) -> bool:
    """Whether a pattern is found in a name."""
    return bool(pattern) and re.search(pattern, name) is not None


def matching(pattern: str) -> Callable[[PyTree], PyTree]:
    """From parameters, or a tree like them, to True where the pattern matches."""
    return lambda params: map_named(lambda name, _: is_match(pattern, name), params)


def others(pattern: str) -> Callable[[PyTree], PyTree]:
    """The opposite of `matching`."""
    return lambda params: map_named(lambda name, _: not is_match(pattern, name), params)


def scale_of(name: str, scales: Scales) -> float:
    """The factor of the first pattern that matches a name; 1 where none does."""
    return next((factor for pattern, factor in scales if is_match(pattern, name)), 1.0)


def frozen(
    optimizer: optax.GradientTransformationExtraArgs, pattern: str
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of all but what matches, which never changes.

    To the optimiser these parameters are not there: it has no state for them, and
    no norm counts their gradients.
    """
    if not pattern:
        return optimizer
    return optax.chain(
        optax.masked(optimizer, others(pattern)),
        optax.masked(optax.set_to_zero(), matching(pattern)),
    )


def patterns_of(cfg: ConfigDict) -> list[tuple[str, str]]:
    """The patterns of `cfg.optim`, each behind its key.

    Raises UserError for one that is no regular expression, or where a pair of
    `lr_scales` is none.
    """
    found = [("freeze", cfg.freeze), ("weight_decay_params", cfg.weight_decay_params)]
    for pair in cfg.lr_scales:
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not (is_pair and isinstance(pair[0], str) and _is_factor(pair[1])):
            raise UserError(
                f"optim.lr_scales has {pair!r}: each must be a pair of a pattern "
                "and a factor of 0 or more, such as ('embedding', 0.1)"
            )
        found.append(("lr_scales", pair[0]))
    for key, pattern in found:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"optim.{key} has {pattern!r}, which is no regular expression: {error}"
            ) from error
    return found


def _is_factor(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value >= 0


def check_patterns(cfg: ConfigDict, params: PyTree) -> None:
    """Raises UserError for a pattern of `cfg.optim` that matches no parameter.

    And where all are frozen, so that there is nothing to train.

    Args:
      params: of the model, or their shapes.
    """
    names = names_of(params)
    for key, pattern in patterns_of(cfg):
        is_asked = (
            bool(pattern) or key == "lr_scales"
        )  # freeze, or what decays: "" is none
        if is_asked and not any(is_match(pattern, name) for name in names):
            some = ", ".join(names[:: max(len(names) // 4, 1)][:4])
            raise UserError(
                f"optim.{key} has {pattern!r}, which matches no parameter; "
                f"their names are such as {some}"
            )
    if all(is_match(cfg.freeze, name) for name in names):
        raise UserError(
            f"optim.freeze={cfg.freeze!r} matches every parameter: nothing would train"
        )
