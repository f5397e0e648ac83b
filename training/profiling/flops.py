"""How many floating point operations the mathematics of a step takes.

Counted are products of matrices and convolutions, 2 for a multiplication with its
addition, as papers count; sums, softmaxes, lookups and the optimiser's update are
not. They are read off the jaxpr of the loss, so nothing is compiled and no device,
platform or number is needed.

The backward pass is not traced. Of y = a b it takes a product as large as the
forward one for each of a and b that depends on a parameter, so it is counted beside
the forward product (also of the rare y that is only compared and has no gradient).
What a run computes again to save memory (`remat`, the blocks of a loss) thus counts
once: "model FLOPs" (Chowdhery et al. 2022, appendix B).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import PyTree

from training.gradients import Loss, total_loss
from training.parallel.mesh import on_no_device

Active = list[bool]  # of values: whether they depend on a parameter


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of a forward and of the backward pass that follows it."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """Of both."""
        return self.forward + self.backward

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def times(self, count: int) -> "Flops":
        """Of so many repetitions."""
        return Flops(self.forward * count, self.backward * count)


def flops_of(function: Callable, params: PyTree, *inputs: PyTree) -> Flops:
    """Of `function(params, *inputs)` and of its gradient for `params`.

    Args:
      params, inputs: arrays, or their shapes (jax.ShapeDtypeStruct).

    Raises ValueError for products in a loop whose length the trace does not tell.
    """
    with on_no_device():
        closed = jax.make_jaxpr(function)(params, *inputs)
    jaxpr, used = partial_eval.dce_jaxpr(
        closed.jaxpr, [True] * len(closed.jaxpr.outvars)
    )
    count = len(jax.tree.leaves(params))
    active = [place < count for place in range(len(used))]
    kept = [flag for flag, is_used in zip(active, used, strict=True) if is_used]
    return _of_jaxpr(jaxpr, kept)[0]


def flops_of_step(loss: Loss, params: PyTree, carry: PyTree, batch: PyTree) -> Flops:
    """Of what a step minimises (see training/gradients.py) and of its gradient.

    Metrics beside it, and a carry that no loss depends on, are not counted.
    """

    def objective(params, carry, batch, seed):
        pairs, _ = loss({"params": params}, carry, batch, jax.random.key(seed))
        return total_loss(pairs)

    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    return flops_of(objective, params, carry, batch, seed)


class StepFlops:
    """Of a step on a batch; each shape of batches is counted once.

    Attributes:
      loss: (variables, carry, batch, rng) -> (pairs, carry).
      params: or their shapes.
      carry: from a number of rows to a carry, which is not computed.
    """

    def __init__(self, loss: Loss, params: PyTree, carry: Callable[[int], PyTree]):
        self.loss, self.carry = loss, carry
        self.params = jax.tree.map(shape_of, params)
        self._found: dict[tuple, int] = {}

    def __call__(self, batch: PyTree, rows: int) -> int:
        """Args: rows: of the batch that count; others only fill it up."""
        shapes = {
            name: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)
            for name, leaf in batch.items()
        }
        key = tuple((name, leaf.shape) for name, leaf in sorted(shapes.items()))
        if key not in self._found:
            carry = jax.eval_shape(lambda: self.carry(rows))
            found = flops_of_step(self.loss, self.params, carry, shapes)
            self._found[key] = found.total
        return self._found[key]


def shape_of(leaf) -> jax.ShapeDtypeStruct:
    """An array without its numbers."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _of_jaxpr(jaxpr, active: Active) -> tuple[Flops, Active]:
    """Its operations, and which of its results depend on a parameter."""
    known = {id(v): flag for v, flag in zip(jaxpr.invars, active, strict=True)}
    total = Flops()
    for eqn in jaxpr.eqns:
        inputs = [known.get(id(v), False) for v in eqn.invars]
        found, outputs = _of_equation(eqn, inputs)
        total += found
        for v, flag in zip(eqn.outvars, outputs, strict=True):
            real = jnp.issubdtype(v.aval.dtype, jnp.inexact)
            known[id(v)] = bool(flag and real)
    return total, [known.get(id(v), False) for v in jaxpr.outvars]


def _of_equation(eqn, active: Active) -> tuple[Flops, Active]:
    rule = RULES.get(eqn.primitive.name)
    if rule is not None:
        return rule(eqn, active)
    if "mesh" in eqn.params:  # a program of which each device runs its own
        return _on_each_device(eqn, active)
    inner = [jaxpr for value in eqn.params.values() for jaxpr in _jaxprs(value)]
    if len(inner) == 1 and len(inner[0].invars) == len(active):  # jit, remat, custom_*
        return _of_jaxpr(inner[0], active)
    depends = [any(active)] * len(eqn.outvars)
    parts = [_of_jaxpr(jaxpr, [any(active)] * len(jaxpr.invars))[0] for jaxpr in inner]
    return sum(parts, Flops()), depends


def _jaxprs(value) -> list:
    """Those that a parameter of an equation holds, without their constants."""
    values = value if isinstance(value, tuple | list) else (value,)
    opened = [getattr(one, "jaxpr", one) for one in values]
    return [one for one in opened if hasattr(one, "eqns")]


def _product(eqn, active: Active, size: int) -> tuple[Flops, Active]:
    """Of `size` multiplications and additions."""
    return Flops(2 * size, 2 * size * sum(active[:2])), [any(active)]


def _matrices(eqn, active: Active) -> tuple[Flops, Active]:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    depth = math.prod(shape[axis] for axis in contracted)
    return _product(eqn, active, eqn.outvars[0].aval.size * depth)


def _convolution(eqn, active: Active) -> tuple[Flops, Active]:
    kernel = eqn.invars[1].aval
    features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    size = eqn.outvars[0].aval.size * (kernel.size // features)
    return _product(eqn, active, size)


def _scan(eqn, active: Active) -> tuple[Flops, Active]:
    """Counts the body once for each of its turns.

    Releases of JAX name the numbers of constants and of carried values differently, so
    they are read off the ranks: a scanned value has an axis more outside of the body.
    """
    (jaxpr,) = _jaxprs(eqn.params["jaxpr"])
    scanned = sum(map(_has_another_axis, eqn.invars, jaxpr.invars))
    stacked = sum(map(_has_another_axis, eqn.outvars, jaxpr.outvars))
    num_carry = len(jaxpr.outvars) - stacked
    last = len(jaxpr.invars) - scanned
    first = last - num_carry
    while True:  # until what is handed on is as active as what comes out
        found, outputs = _of_jaxpr(jaxpr, active)
        after = outputs[:num_carry]
        carry = [a or b for a, b in zip(active[first:last], after, strict=True)]
        if carry == active[first:last]:
            return found.times(eqn.params["length"]), outputs
        active = [*active[:first], *carry, *active[last:]]


def _has_another_axis(outer, inner) -> bool:
    return outer.aval.ndim > inner.aval.ndim


def _branches(eqn, active: Active) -> tuple[Flops, Active]:
    """Of the dearest branch."""
    parts = [_of_jaxpr(branch.jaxpr, active[1:]) for branch in eqn.params["branches"]]
    depends = [any(flags) for flags in zip(*(flags for _, flags in parts), strict=True)]
    return max((found for found, _ in parts), key=lambda found: found.total), depends


def _unbounded(eqn, active: Active) -> tuple[Flops, Active]:
    depends = [any(active)] * len(eqn.outvars)
    for name in ("cond_jaxpr", "body_jaxpr"):
        jaxpr = eqn.params[name].jaxpr
        if _of_jaxpr(jaxpr, [False] * len(jaxpr.invars))[0].total:
            raise ValueError(
                "products in a while loop cannot be counted: how often it turns is "
                "not known; a scan says it"
            )
    return Flops(), depends


def _on_each_device(eqn, active: Active) -> tuple[Flops, Active]:
    """Of all devices: the inner program is that of one."""
    found, depends = _of_jaxpr(*_jaxprs(eqn.params["jaxpr"]), active)
    return found.times(eqn.params["mesh"].size), depends


RULES = {
    "dot_general": _matrices,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "cond": _branches,
    "while": _unbounded,
    "stop_gradient": lambda eqn, active: (Flops(), [False]),
}
