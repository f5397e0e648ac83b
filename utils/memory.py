"""Memory of a program: estimated from its jaxpr, and bounded by what is free.

The estimate follows the liveness of the arrays of a jaxpr: an array lives from the
operation that makes it to the last one that uses it, in the order in which operations
were traced (for a gradient: forward, then backward). Aliases (a broadcast, a change of
shape or type) take no memory. A compiler fuses and reorders operations and pads arrays,
so this is an estimate, but it needs no compiler and no device.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import psutil
from jaxtyping import PyTree

from utils.errors import UserError

ALIASES = (  # operations that compilers fuse into those that read their results
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"),
    *("convert_element_type", "copy", "stop_gradient", "bitcast_convert_type"),
)
FREE_OPS = ("iota", "random_wrap", "random_unwrap", "random_seed")
LOOPS = ("scan", "while")  # their results stay alive during an iteration
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # bytes of a container, or "max"
TRUSTED = 0.5  # fraction of the free memory below which an estimate suffices

Sizes = dict[int, int]  # bytes by the id of a variable


def bounded_jit(function: Callable, *, static_argnums, **options) -> Callable:
    """Returns `jax.jit` of a function that refuses inputs too large for the memory.

    Inputs of new shapes are checked before anything of their size is made.

    Raises:
      UserError: as `check_memory`.
    """
    program = jax.jit(function, static_argnums=static_argnums, **options)
    checked = set()

    @functools.wraps(function)
    def call(*inputs):
        leaves, structure = jax.tree.flatten(inputs)
        shapes = tuple(getattr(leaf, "shape", leaf) for leaf in leaves)
        if (structure, shapes) not in checked:
            check_memory(program, static_argnums, *inputs)
            checked.add((structure, shapes))
        return program(*inputs)

    call.check = functools.partial(check_memory, program, static_argnums)
    call._cache_size = program._cache_size
    return call


def unbounded(function: Callable) -> Callable:
    """Returns the function that `bounded_jit` compiles, without its check."""
    return function.__wrapped__


def check_memory(program, static_argnums, *inputs) -> None:
    """Compares what a compiled function needs with what is free.

    A large estimate is replaced by what the compiler reserves.

    Args:
      inputs: arrays or their shapes (jax.ShapeDtypeStruct).

    Raises:
      UserError: it needs more.
    """
    free = free_bytes()
    needed = peak_bytes(program, *inputs, static_argnums=static_argnums)
    if needed > TRUSTED * free:
        needed = program.lower(*inputs).compile().memory_analysis().temp_size_in_bytes
    if needed <= free:
        return
    arrays = [leaf for leaf in jax.tree.leaves(inputs) if hasattr(leaf, "dtype")]
    tokens = [x.shape for x in arrays if len(x.shape) == 2 and x.dtype.kind in "iu"]
    size = " x ".join(map(str, max(tokens, key=math.prod, default=())))
    raise UserError(
        f"{size} tokens at once need {needed / 1e9:.2f} GB of memory and "
        f"{free / 1e9:.2f} GB are free: shorten the lines, or lower the keys of eval "
        "and decode that set this size"
    )


def free_bytes() -> int:
    """Returns the free memory of the fullest device, or of the machine on a CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    free = [x["bytes_limit"] - x["bytes_in_use"] for x in stats if "bytes_limit" in x]
    if free:
        return min(free)
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    available = psutil.virtual_memory().available
    return available if limit == "max" else min(available, int(limit))


def peak_bytes(
    function: Callable,
    *inputs: PyTree,
    result_bytes: PyTree = None,
    static_argnums: tuple[int, ...] = (),
) -> int:
    """Estimates the peak memory of the arrays a function makes, without its inputs.

    `result_bytes` replaces the bytes of its results that their shapes say.
    """
    jaxpr = jax.make_jaxpr(function, static_argnums)(*inputs).jaxpr
    overrides: Sizes = {}
    if result_bytes is not None:
        bases, leaves = _alias_bases(jaxpr), jax.tree.leaves(result_bytes)
        for variable, size in zip(jaxpr.outvars, leaves, strict=True):
            overrides |= dict.fromkeys(bases.get(id(variable), ()), size)
    return _peak(jaxpr, overrides)


def _variable_bytes(variable) -> int:
    """Returns the bytes of a variable; those of random keys count as 0."""
    aval = variable.aval
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * itemsize


def _peak(jaxpr, overrides: Sizes) -> int:
    """Returns the peak of a jaxpr; `overrides` replace the sizes of some variables."""
    bases = _alias_bases(jaxpr)
    last_use = {}
    for index, eqn in enumerate(jaxpr.eqns):
        last_use |= {base: index for v in eqn.invars for base in bases.get(id(v), ())}
    last_use |= {base: -1 for v in jaxpr.outvars for base in bases.get(id(v), ())}
    alive: Sizes = {}
    total = peak = 0
    for index, eqn in enumerate(jaxpr.eqns):
        made = {
            id(v): overrides.get(id(v), _variable_bytes(v))
            for v in eqn.outvars
            if bases.get(id(v)) == (id(v),)
        }
        outputs = sum(made.values())
        inner = max((_peak(j, {}) for j in _inner_jaxprs(eqn)), default=0)
        is_loop = eqn.primitive.name in LOOPS
        peak = max(peak, total + (outputs + inner if is_loop else max(outputs, inner)))
        total, alive = total + outputs, alive | made
        used = {base for v in eqn.invars for base in bases.get(id(v), ())}
        for base in used | made.keys():
            if last_use.get(base, index) == index:
                total -= alive.pop(base, 0)
    return peak


def _alias_bases(jaxpr) -> dict[int, tuple[int, ...]]:
    """Maps each variable made in a jaxpr to those whose memory it aliases."""
    bases: dict[int, tuple[int, ...]] = {}
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        for v in eqn.outvars:
            own = () if name in FREE_OPS else (id(v),)
            is_alias = name in ALIASES
            bases[id(v)] = bases.get(id(eqn.invars[0]), ()) if is_alias else own
    return bases


def _inner_jaxprs(eqn) -> list:
    """Returns the jaxprs among the parameters of an operation."""
    items = []
    for value in eqn.params.values():
        items += value if isinstance(value, tuple | list) else (value,)
    opened = [getattr(item, "jaxpr", item) for item in items]
    return [item for item in opened if hasattr(item, "eqns")]
