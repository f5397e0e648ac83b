"""Search for the operation from which bad values spread to the loss or the update.

The search goes back from the outputs of a step along bad values, through operations
with a bad input, to those without one, and takes the first of them. So an operation
whose bad values something masks later is passed over.
"""

import dataclasses
from collections.abc import Container

from analysis.explain.operations import Examination, Operation

GROWTH = 10  # times the largest magnitude in a step without fault, and more: extreme


@dataclasses.dataclass(frozen=True)
class Cause:
    """Origin of bad values.

    Attributes:
      operation: the operation that computed them, or, for an input of the step, the
        first one that reads it; None where none does.
      result: index of its output.
      input_name: name of the input of the step that was bad already, or "".
      growth: factor over the reference, for values that are finite.
    """

    operation: Operation | None
    result: int = 0
    input_name: str = ""
    growth: float | None = None

    def order(self, step: Examination) -> int:
        """Returns its place in the order of computation; -1 for an input."""
        return -1 if self.input_name else step.operations.index(self.operation)


def find_nonfinite(
    step: Examination, reference: Examination | None = None
) -> Cause | None:
    """Returns the origin of values that are not finite; None where all are.

    Args:
      reference: a finite step; an operation that is not finite there either is
        chosen only where there is no other.
    """
    masks = step.masks
    bad = {i for i, size in step.sizes.items() if size.nonfinite and i not in masks}
    harmless = set()
    if reference is not None:
        sizes = reference.sizes
        for operation in reference.operations:
            if any(i in sizes and sizes[i].nonfinite for i in operation.results):
                harmless.add(operation.key)
    return _origin(step, bad, harmless)


def find_growth(step: Examination, reference: Examination) -> Cause | None:
    """Returns the origin of values that are extreme compared with a reference.

    Values that are not finite count as extreme; their origin has no growth.
    """
    factors = growth_factors(step, reference)
    bad = {i for i, factor in factors.items() if factor >= GROWTH}
    sizes = step.sizes.items()
    bad |= {i for i, size in sizes if size.nonfinite and i not in step.masks}
    cause = _origin(step, bad, ())
    if cause is None:
        return None
    if cause.input_name:
        i = step.inputs[cause.input_name]
    else:
        i = cause.operation.results[cause.result]
    return dataclasses.replace(cause, growth=factors.get(i))


def growth_factors(step: Examination, reference: Examination) -> dict[int, float]:
    """Returns the largest magnitude of each array over that in a reference.

    In a loop the reference is the largest of all iterations. Arrays that are zero in
    the reference have no factor.
    """
    before: dict[tuple, float] = {}
    for operation in reference.operations:
        for index, i in enumerate(operation.results):
            if i in reference.sizes:
                place = operation.key, operation.primitive, index
                largest = reference.sizes[i].largest
                before[place] = max(before.get(place, 0.0), largest)
    factors = {}
    for name, i in step.inputs.items():
        other = reference.sizes.get(reference.inputs.get(name, -1))
        if i in step.sizes and other and other.largest:
            factors[i] = step.sizes[i].largest / other.largest
    for operation in step.operations:
        for index, i in enumerate(operation.results):
            largest = before.get((operation.key, operation.primitive, index))
            if i in step.sizes and largest:
                factors[i] = step.sizes[i].largest / largest
    return factors


def _origin(
    step: Examination, bad: Container[int], harmless: Container[tuple]
) -> Cause | None:
    """Returns the first origin of the bad values among a step's outputs."""
    producers = {
        i: (order, index)
        for order, operation in enumerate(step.operations)
        for index, i in enumerate(operation.results)
    }
    names = {i: name for name, i in step.inputs.items()}
    ancestors = _ancestors(step, bad, producers)
    inputs = [names[i] for i in ancestors if i in names]
    if inputs:
        name = min(inputs, key=list(step.inputs).index)
        return Cause(_first_reader(step, step.inputs[name]), input_name=name)
    origins = []
    for i in ancestors:
        order, index = producers[i]
        operation = step.operations[order]
        if not any(k in bad for k in operation.inputs):
            origins.append((operation.key in harmless, order, index))
    if not origins:
        return None
    _, order, index = min(origins)
    return Cause(step.operations[order], index)


def _ancestors(step, bad, producers) -> list[int]:
    """Returns the bad values from which those of the outputs come."""
    known = set(step.inputs.values())
    waiting = [i for i in step.outputs.values() if i in bad and i not in known]
    ancestors = dict.fromkeys(waiting)
    while waiting:
        i = waiting.pop()
        if i not in producers:  # an input of the step
            continue
        operation = step.operations[producers[i][0]]
        new = [k for k in operation.inputs if k in bad and k not in ancestors]
        ancestors |= dict.fromkeys(new)
        waiting += new
    return list(ancestors)


def _first_reader(step: Examination, i: int) -> Operation | None:
    readers = (operation for operation in step.operations if i in operation.inputs)
    return next((one for one in readers if not one.is_copy), None)
