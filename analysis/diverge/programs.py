"""Comparison of one step of two runs, operation by operation."""

import dataclasses
import itertools
import sys
from collections.abc import Iterable

import jax
import numpy as np

from analysis.diverge.evidence import (
    ArrayDifference,
    compare_array,
    compare_arrays,
    group_distance,
)
from analysis.step_replay.program import Program, step_program
from analysis.step_replay.replay import Replay, StepInputs
from analysis.step_replay.trace import Equation, trace

RANDOM = ("random_", "threefry", "rng_")  # primitives of random numbers
MAX_CONSTANT = 8  # elements of a constant that is shown


@dataclasses.dataclass(frozen=True)
class OperationDifference:
    """The first operation whose result differs, though its inputs are equal.

    Attributes:
      operation: name, module, direction and source line.
      is_random: whether it makes random numbers.
      constants: values of a constant that differs, in A and in B.
    """

    operation: str
    is_random: bool
    constants: tuple[str, str] | None
    array: ArrayDifference | None


@dataclasses.dataclass(frozen=True)
class ProgramComparison:
    """Comparison of a step of A and of B with equal inputs.

    Attributes:
      first: the first operation with another result, before the programs part.
      split: the first operations of A and B that are not the same, if any.
      modules: relative difference of the last output of each module whose forward
        pass differs, in order of computation.
      loss: loss of A and of B.
      gradients: gradients that differ, from the last layer to the first.
      gradient_distance: relative distance of all gradients together.
      update_distance: that of the updates of the parameters.
    """

    first: OperationDifference | None
    split: tuple[str, str] | None
    modules: tuple[ArrayDifference, ...]
    loss: tuple[float, float]
    gradients: tuple[ArrayDifference, ...]
    gradient_distance: float
    update_distance: float

    @property
    def is_equal(self) -> bool:
        """Whether all operations and their results are the same."""
        return not (self.first or self.split or self.gradients or self.update_distance)

    @property
    def size(self) -> float:
        """Relative size of the difference: of loss and gradient, or of the update."""
        loss = abs(self.loss[0] - self.loss[1]) / max(map(abs, self.loss))
        size = max(loss, self.gradient_distance)
        return self.update_distance if size == 0 else size


def compare_step(
    replays: tuple[Replay, Replay], inputs: tuple[StepInputs, StepInputs]
) -> ProgramComparison:
    """Compares the step of two runs on one device."""
    print(f"comparing the operations of step {inputs[0].step} ...", file=sys.stderr)
    programs = []
    for one, given in zip(replays, inputs, strict=True):
        programs.append(step_program(*one.on_one_device(given)))
    return compare_programs(*programs)


def compare_programs(first: Program, second: Program) -> ProgramComparison:
    """Evaluates two programs side by side, until their operations are not the same."""
    traces = [_Trace(first), _Trace(second)]
    operation = split = None
    while True:
        pair = [one.next() for one in traces]
        if pair[0] is None and pair[1] is None:
            break
        if None in pair or _signature(pair[0]) != _signature(pair[1]):
            split = tuple("nothing" if x is None else _describe(x) for x in pair)
            break
        if operation is None:
            operation = _compare_equations(*pair)
    results = [one.finish() for one in traces]
    return _compare_results(operation, split, traces, *results)


class _Trace:
    """A trace that keeps the last output of the forward pass of each module."""

    def __init__(self, program: Program):
        self.program, self.modules = program, {}
        self._equations = trace(program.jaxpr, program.args)
        self._values = None

    def next(self) -> Equation | None:
        """Returns the next equation; None after the last one."""
        try:
            equation = next(self._equations)
        except StopIteration as stop:
            self._values = stop.value
            return None
        is_forward = equation.module and equation.direction == "forward"
        if is_forward and _is_float(equation.outputs[0]):
            self.modules[equation.module] = equation.outputs[0]
        return equation

    def finish(self) -> dict[str, np.ndarray]:
        """Evaluates the rest; returns the outputs of the program by name."""
        while self._values is None:
            self.next()
        arrays = (np.asarray(value.array) for value in self._values)
        return dict(zip(self.program.output_names, arrays, strict=True))


def _compare_equations(first: Equation, second: Equation) -> OperationDifference | None:
    """Returns the difference of an operation whose inputs were equal."""
    constants = None
    for one, two in zip(first.inputs, second.inputs, strict=True):
        if one.id is None and two.id is None:
            pair = _host(one.array), _host(two.array)
            if pair[0].shape == pair[1].shape and not np.array_equal(*pair):
                constants = tuple(map(_show_constant, pair))
    found = None
    for one, two in zip(first.outputs, second.outputs, strict=True):
        found = found or compare_array("", _host(one), _host(two))
    if found is None:
        return None
    is_random = first.primitive.startswith(RANDOM)
    return OperationDifference(_describe(first), is_random, constants, found)


def _compare_results(operation, split, traces, first, second) -> ProgramComparison:
    before = dict(
        zip(traces[0].program.input_names, traces[0].program.args, strict=True)
    )
    gradients = [
        {name: x for name, x in one.items() if name.startswith("gradients/")}
        for one in (first, second)
    ]
    arrays = compare_arrays(*gradients)
    updates = [
        {
            name: np.asarray(x, np.float64) - np.asarray(before[name], np.float64)
            for name, x in one.items()
            if name.startswith("params/")
        }
        for one in (first, second)
    ]
    shared = [one.modules for one in traces]
    names = [
        name
        for name, x in shared[0].items()
        if name in shared[1] and x.shape == shared[1][name].shape
    ]
    modules = (
        compare_array(name, *(np.asarray(one[name], np.float32) for one in shared))
        for name in names
    )
    return ProgramComparison(
        operation,
        split,
        tuple(one for one in modules if one is not None),
        tuple(
            float(one["metrics/loss/0"] / one["metrics/loss/1"])
            for one in (first, second)
        ),
        tuple(backward_order(arrays, traces[0].modules)),
        group_distance(arrays, "gradients", gradients[0]),
        group_distance(compare_arrays(*updates), "params", updates[0]),
    )


def backward_order(
    arrays: Iterable[ArrayDifference], modules: Iterable[str]
) -> list[ArrayDifference]:
    """Sorts gradients by their modules, from the last of the forward pass to the first.

    Args:
      modules: paths of modules in order of the forward pass.
    """
    order = list(modules)

    def rank(one):
        path = one.name.removeprefix("gradients/")
        inside = [m for m in order if path.startswith(f"{m}/")]
        return -order.index(max(inside, key=len)) if inside else len(order)

    return sorted(arrays, key=rank)


def _signature(equation: Equation) -> tuple:
    """Returns what the same operation of two programs has in common."""
    shapes = tuple((x.shape, str(x.dtype)) for x in equation.outputs)
    return equation.module, equation.primitive, equation.iteration, shapes


def _describe(equation: Equation) -> str:
    where = " ".join(filter(None, [equation.direction, equation.module]))
    types = ", ".join(f"{x.dtype}{list(x.shape)}" for x in equation.outputs)
    source = f" at {equation.source}" if equation.source else ""
    return f"{equation.primitive} -> {types}{source}{f', {where}' if where else ''}"


def _is_float(array) -> bool:
    return jax.numpy.issubdtype(array.dtype, jax.numpy.floating)


def _host(array) -> np.ndarray:
    """Returns an array on the host; of random keys, their bits."""
    is_key = jax.numpy.issubdtype(getattr(array, "dtype", None), jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)


def _show_constant(array: np.ndarray) -> str:
    if array.size == 1:
        return f"{array.reshape(-1)[0]:.6g}"
    values = itertools.islice(array.reshape(-1), MAX_CONSTANT)
    return f"[{', '.join(f'{x:.6g}' for x in values)}, ...]"
