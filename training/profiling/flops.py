"""Model FLOPs of a training step (Chowdhery et al. 2022, appendix B).

Matrix products and convolutions count 2 per multiply-add, as in papers; sums,
softmaxes, lookups and the optimiser do not count. The counts are read from the jaxpr of
the loss, so nothing is compiled and no device is needed.

The backward pass is not traced. For y = a b it has one product of the forward size for
each of a and b that depends on a parameter, so it is counted with the forward product.
Recomputation (`remat`, a chunked loss) therefore counts once.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import PyTree

from training.gradients import Loss, total_loss
from training.parallel.mesh import abstract_mesh_context

Active = list[bool]  # for each value: whether it depends on a parameter


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of a forward pass and of its backward pass."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """FLOPs of both passes."""
        return self.forward + self.backward

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def times(self, count: int) -> "Flops":
        """Returns the FLOPs of `count` repetitions."""
        return Flops(self.forward * count, self.backward * count)


def flops_of(function: Callable, params: PyTree, *inputs: PyTree) -> Flops:
    """Counts the FLOPs of `function(params, *inputs)` and its gradient by `params`.

    Arguments may be arrays or their shapes (jax.ShapeDtypeStruct).

    Raises:
      ValueError: a product in a while loop, whose number of iterations is unknown.
    """
    with abstract_mesh_context():
        jaxpr = jax.make_jaxpr(function)(params, *inputs).jaxpr
    jaxpr, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    num_params = len(jax.tree.leaves(params))
    active = [i < num_params for i, is_used in enumerate(used) if is_used]
    return _of_jaxpr(jaxpr, active)[0]


def flops_of_step(loss: Loss, params: PyTree, carry: PyTree, batch: PyTree) -> Flops:
    """Counts the FLOPs of the training objective and its gradient.

    Metrics, and a carry that the loss does not depend on, are not counted.
    """

    def objective(params, carry, batch, seed):
        pairs, _ = loss({"params": params}, carry, batch, jax.random.key(seed))
        return total_loss(pairs)

    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    return flops_of(objective, params, carry, batch, seed)


class StepFlops:
    """FLOPs of a step on a batch, counted once per batch shape."""

    def __init__(self, loss: Loss, params: PyTree, carry: Callable[[int], PyTree]):
        """Takes a function from a batch size to a carry; only its shapes are used."""
        self.loss, self.carry = loss, carry
        self.params = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params
        )
        self._counted: dict[tuple, int] = {}

    def __call__(self, batch: PyTree, rows: int) -> int:
        """Returns the FLOPs of a batch; `rows` is its size without padding."""
        shapes = {
            name: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)
            for name, leaf in batch.items()
        }
        key = tuple((name, leaf.shape) for name, leaf in sorted(shapes.items()))
        if key not in self._counted:
            carry = jax.eval_shape(lambda: self.carry(rows))
            flops = flops_of_step(self.loss, self.params, carry, shapes)
            self._counted[key] = flops.total
        return self._counted[key]


def _of_jaxpr(jaxpr, active: Active) -> tuple[Flops, Active]:
    """Returns the FLOPs of a jaxpr and which of its outputs depend on a parameter."""
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
    rule = COUNTERS.get(eqn.primitive.name)
    if rule is not None:
        return rule(eqn, active)
    if "mesh" in eqn.params:  # the program of one device
        return _on_each_device(eqn, active)
    inner = [jaxpr for value in eqn.params.values() for jaxpr in _jaxprs(value)]
    if len(inner) == 1 and len(inner[0].invars) == len(active):  # jit, remat, custom_*
        return _of_jaxpr(inner[0], active)
    depends = any(active)
    parts = [_of_jaxpr(jaxpr, [depends] * len(jaxpr.invars))[0] for jaxpr in inner]
    return sum(parts, Flops()), [depends] * len(eqn.outvars)


def _jaxprs(value) -> list:
    """Returns the jaxprs that a parameter of an equation holds."""
    values = value if isinstance(value, tuple | list) else (value,)
    opened = [getattr(one, "jaxpr", one) for one in values]
    return [one for one in opened if hasattr(one, "eqns")]


def _product(eqn, active: Active, size: int) -> tuple[Flops, Active]:
    """Returns the FLOPs of `size` multiply-adds."""
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
    """Counts the FLOPs of the body times the length of the scan.

    Releases of JAX name the numbers of constants and carried values differently, so
    they are derived from ranks: a scanned value has one more axis outside of the body.
    """
    (jaxpr,) = _jaxprs(eqn.params["jaxpr"])

    def num_unstacked(outer, inner):
        return sum(
            o.aval.ndim == i.aval.ndim for o, i in zip(outer, inner, strict=True)
        )

    num_carry = num_unstacked(eqn.outvars, jaxpr.outvars)
    last = num_unstacked(eqn.invars, jaxpr.invars)
    first = last - num_carry
    while True:  # until the activity of the carry is a fixed point
        found, outputs = _of_jaxpr(jaxpr, active)
        after = outputs[:num_carry]
        carry = [a or b for a, b in zip(active[first:last], after, strict=True)]
        if carry == active[first:last]:
            return found.times(eqn.params["length"]), outputs
        active = [*active[:first], *carry, *active[last:]]


def _branches(eqn, active: Active) -> tuple[Flops, Active]:
    """Returns the FLOPs of the most expensive branch."""
    parts = [_of_jaxpr(branch.jaxpr, active[1:]) for branch in eqn.params["branches"]]
    depends = [any(flags) for flags in zip(*(flags for _, flags in parts), strict=True)]
    return max((found for found, _ in parts), key=lambda found: found.total), depends


def _unbounded(eqn, active: Active) -> tuple[Flops, Active]:
    for name in ("cond_jaxpr", "body_jaxpr"):
        jaxpr = eqn.params[name].jaxpr
        if _of_jaxpr(jaxpr, [False] * len(jaxpr.invars))[0].total:
            raise ValueError(
                "products in a while loop cannot be counted, since its number of "
                "iterations is unknown; use a scan"
            )
    return Flops(), [any(active)] * len(eqn.outvars)


def _on_each_device(eqn, active: Active) -> tuple[Flops, Active]:
    """Returns the FLOPs of all devices; the inner program is that of one."""
    found, depends = _of_jaxpr(*_jaxprs(eqn.params["jaxpr"]), active)
    return found.times(eqn.params["mesh"].size), depends


COUNTERS = {
    "dot_general": _matrices,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "cond": _branches,
    "while": _unbounded,
    "stop_gradient": lambda eqn, active: (Flops(), [False]),
}
