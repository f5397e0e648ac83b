"""How much memory the arrays of a program take at once, read off its jaxpr.

Each array is there from the operation that makes it to the last one that uses it,
operations in the order in which they were traced, which for a gradient is: forward,
then backward. What only shows another array (a broadcast, a change of shape or type)
takes none. A compiler fuses operations, reorders and pads, so this is an estimate;
but it needs no compiler, no device and hardly any time.
"""

import math
from collections.abc import Callable

import jax
from jaxtyping import PyTree

VIEWS = (  # what compilers fuse into whatever reads it
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"),
    *("convert_element_type", "copy", "stop_gradient", "bitcast_convert_type"),
)
NOTHING = ("iota", "random_wrap", "random_unwrap", "random_seed")
LOOPS = ("scan", "while")  # their results stay while a turn is taken

Sizes = dict[int, int]  # bytes by the id of a variable


def peak_bytes(function: Callable, *inputs: PyTree, results: PyTree = None) -> int:
    """The most that what `function` makes takes at once; its inputs are not counted.

    Args:
      inputs: arrays, or their shapes.
      results: bytes of each of its results; None: their own.
    """
    jaxpr = jax.make_jaxpr(function)(*inputs).jaxpr
    own: Sizes = {}
    if results is not None:
        shown, leaves = _shown(jaxpr), jax.tree.leaves(results)
        for v, size in zip(jaxpr.outvars, leaves, strict=True):
            own |= dict.fromkeys(shown.get(id(v), ()), size)
    return _peak(jaxpr, own)


def size_of(variable) -> int:
    """In bytes; of keys of random numbers nothing."""
    aval = variable.aval
    width = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * width


def _peak(jaxpr, own: Sizes) -> int:
    """Of a program; `own` are sizes that differ from those of the shapes."""
    shown = _shown(jaxpr)
    last = {}
    for place, eqn in enumerate(jaxpr.eqns):
        last |= {base: place for v in eqn.invars for base in shown.get(id(v), ())}
    last |= {base: -1 for v in jaxpr.outvars for base in shown.get(id(v), ())}
    sizes: Sizes = {}
    live = peak = 0
    for place, eqn in enumerate(jaxpr.eqns):
        made = {
            id(v): own.get(id(v), size_of(v))
            for v in eqn.outvars
            if shown.get(id(v)) == (id(v),)
        }
        outputs = sum(made.values())
        inner = max((_peak(j, {}) for j in _inner(eqn)), default=0)
        both = eqn.primitive.name in LOOPS
        peak = max(peak, live + (outputs + inner if both else max(outputs, inner)))
        live, sizes = live + outputs, sizes | made
        used = {base for v in eqn.invars for base in shown.get(id(v), ())}
        for base in used | made.keys():
            if last.get(base, place) == place:
                live -= sizes.pop(base, 0)
    return peak


def _shown(jaxpr) -> dict[int, tuple[int, ...]]:
    """For each variable made here, those whose memory it shows: mostly itself."""
    shown: dict[int, tuple[int, ...]] = {}
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        for v in eqn.outvars:
            if name in VIEWS:
                shown[id(v)] = shown.get(id(eqn.invars[0]), ())
            else:
                shown[id(v)] = () if name in NOTHING else (id(v),)
    return shown


def _inner(eqn) -> list:
    """The programs inside an operation."""
    values = [
        one
        for value in eqn.params.values()
        for one in (value if isinstance(value, tuple | list) else (value,))
    ]
    opened = [getattr(one, "jaxpr", one) for one in values]
    return [one for one in opened if hasattr(one, "eqns")]
