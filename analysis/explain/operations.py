"""Operations of a step in their order, with the size of each array they compute."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from analysis.step_replay.program import Program
from analysis.step_replay.trace import LOOP_INPUT, LOOP_OUTPUT, Equation, Value, trace

STATE = "opt_state/"  # may hold inf from the start: a lowest loss before any


class Size(NamedTuple):
    """Number of entries that are not finite, of nan among them, largest finite one."""

    nonfinite: int
    nan: int
    largest: float


@dataclasses.dataclass(frozen=True)
class Operation:
    """An equation of a step, without its arrays.

    Attributes:
      inputs: ids of its inputs, constants left out.
      results: ids of its outputs.
      has_infinite_constant: whether an input is a constant with inf, such as a mask's.
    """

    key: tuple[int, ...]
    iteration: tuple[int, ...]
    module: str
    direction: str
    primitive: str
    source: str
    inputs: tuple[int, ...]
    results: tuple[int, ...]
    has_infinite_constant: bool

    @property
    def is_copy(self) -> bool:
        """Whether it only moves values into a loop or out of it."""
        return self.primitive in (LOOP_INPUT, LOOP_OUTPUT)


@dataclasses.dataclass
class Examination:
    """All operations of a step.

    Attributes:
      sizes: of every array of floats, by its id.
      inputs: ids of the step's inputs, by name.
      outputs: ids of the step's outputs, by name; constants are left out.
      numbers: values of the outputs that are single numbers, by name.
      squares: squared norms of parameter, gradient and update, by parameter.
    """

    operations: list[Operation]
    sizes: dict[int, Size]
    inputs: dict[str, int]
    outputs: dict[str, int]
    numbers: dict[str, float]
    squares: dict[str, list[float]]

    @functools.cached_property
    def masks(self) -> set[int]:
        """Arrays whose infinities come from constants, such as those of masks."""
        return constant_infinities(self)

    @property
    def is_finite(self) -> bool:
        """Whether loss, gradient, update and carry are finite."""
        known = set(self.inputs.values())
        sizes = (self.sizes.get(i) for i in self.outputs.values() if i not in known)
        return not any(size.nonfinite for size in sizes if size)

    @property
    def loss(self) -> float:
        """The mean loss of the batch."""
        total, weight = (self.numbers[f"metrics/loss/{i}"] for i in (0, 1))
        return total / max(weight, 1)

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the whole gradient, before clipping."""
        return self.numbers["norm"]


def examine(program: Program) -> Examination:
    """Evaluates a step, one operation at a time."""
    print("evaluating the operations of a step one by one ...", file=sys.stderr)
    found = Examination([], {}, {}, {}, {}, {})
    for index, (name, arg) in enumerate(
        zip(program.input_names, program.args, strict=True)
    ):
        found.inputs[name] = index
        _measure(found, Value(index, arg))
    steps = trace(program.jaxpr, program.args)
    outputs = None
    while outputs is None:
        try:
            _add(found, next(steps))
        except StopIteration as stop:
            outputs = stop.value
    values = dict(zip(program.output_names, outputs, strict=True))
    found.outputs = {name: v.id for name, v in values.items() if v.id is not None}
    found.numbers = {
        name: float(v.array) for name, v in values.items() if is_number(v.array)
    }
    found.squares = dict(_squares(program, values))
    return found


def _squares(program: Program, outputs: dict[str, Value]) -> Iterator[tuple]:
    """Yields squared norms of parameter, gradient and update."""
    for name, arg in zip(program.input_names, program.args, strict=True):
        kind, _, parameter = name.partition("/")
        if kind == "params":
            before, after = (
                np.asarray(x, np.float64) for x in (arg, outputs[name].array)
            )
            gradient = np.asarray(outputs[f"gradients/{parameter}"].array, np.float64)
            arrays = before, gradient, after - before
            yield parameter, [float(np.square(array).sum()) for array in arrays]


def equation_at(program: Program, operation: Operation) -> Equation:
    """Evaluates a step up to an operation; returns it with its arrays."""
    place = operation.key, operation.iteration, operation.primitive
    for equation in trace(program.jaxpr, program.args):
        if (equation.key, equation.iteration, equation.primitive) == place:
            return equation
    raise LookupError(f"the program has no operation {place}")


def _add(found: Examination, equation: Equation) -> None:
    constants = [v.array for v in equation.inputs if v.id is None]
    for value in equation.results:
        _measure(found, value)
    found.operations.append(
        Operation(
            key=equation.key,
            iteration=equation.iteration,
            module=equation.module,
            direction=equation.direction,
            primitive=equation.primitive,
            source=equation.source,
            inputs=tuple(v.id for v in equation.inputs if v.id is not None),
            results=tuple(v.id for v in equation.results),
            has_infinite_constant=any(map(has_infinity, constants)),
        )
    )


def _measure(found: Examination, value: Value) -> None:
    if jnp.issubdtype(value.array.dtype, jnp.floating) and value.array.size:
        nonfinite, nan, largest = np.asarray(_size(value.array)).tolist()
        found.sizes[value.id] = Size(int(nonfinite), int(nan), largest)


@jax.jit
def _size(array: Float[Array, "..."]) -> Float[Array, "3"]:
    finite, nan = jnp.isfinite(array), jnp.isnan(array)
    largest = jnp.where(finite, jnp.abs(array), 0).max()
    counts = (jnp.float32(mask.sum()) for mask in (~finite, nan))
    return jnp.stack([*counts, largest.astype(jnp.float32)])


def has_infinity(constant) -> bool:
    """Whether a constant of a program holds inf."""
    dtype = getattr(constant, "dtype", np.dtype(type(constant)))
    return bool(jnp.issubdtype(dtype, jnp.floating) and np.isinf(constant).any())


def is_number(array) -> bool:
    """Whether a value is one real number."""
    return np.ndim(array) == 0 and not jnp.issubdtype(array.dtype, jax.dtypes.extended)


def constant_infinities(found: Examination) -> set[int]:
    """Returns arrays whose infinities come from constants, such as those of masks."""
    masks = {
        i
        for name, i in found.inputs.items()
        if name.startswith(STATE) and i in found.sizes and not found.sizes[i].nan
    }
    for operation in found.operations:
        bad = [i for i in operation.inputs if i in found.sizes]
        bad = [i for i in bad if found.sizes[i].nonfinite]
        if all(i in masks for i in bad) and (bad or operation.has_infinite_constant):
            for i in operation.results:
                if (
                    i in found.sizes
                    and found.sizes[i].nonfinite
                    and not found.sizes[i].nan
                ):
                    masks.add(i)
    return masks
