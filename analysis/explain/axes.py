"""Meaning of the axes of an operation's output: row, position, head, token id.

A step is traced again for one more row of the batch, or one position less: axes whose
size follows are rows or positions. This needs no device.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxprs_in_params
from jaxtyping import Bool

from analysis.explain.operations import Operation
from analysis.step_replay.devices import SerialPmapPartitioner
from analysis.step_replay.program import step_program
from analysis.step_replay.replay import StepInputs
from analysis.step_replay.trace import read_scopes, source_line
from experiment.setup import TrainingSetup

ROW, HEAD, TOKEN = "row", "head", "token id"
POSITION, SOURCE_POSITION = "position", "source position"
DEVICE = "device"
MAX_LISTED = 6  # indices of an axis that are listed


@dataclasses.dataclass(frozen=True)
class Axis:
    """Meaning of an axis: names, outermost first where several are merged.

    Attributes:
      sizes: size of each of the merged axes.
    """

    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


def describe_axes(
    setup: TrainingSetup,
    inputs: StepInputs,
    program: ClosedJaxpr,
    operation: Operation,
    result: int,
    shape: Sequence[int],
) -> list[Axis]:
    """Returns the meaning of each axis of an operation's output."""
    changed: list[list[tuple[str, int]]] = [[] for _ in shape]
    rank = _rank(program, operation)
    for name, size, variant in _variants(setup, inputs):
        other = _shape_at(variant, operation, result, rank)
        if other is None or len(other) != len(shape):
            continue
        for axes, before, now in zip(changed, shape, other, strict=True):
            if before != now:
                axes.append((name, size))
    order = {DEVICE: 0, ROW: 1}
    axes = []
    for size, found in zip(shape, changed, strict=True):
        found.sort(key=lambda axis: order.get(axis[0], 2))
        names = tuple(name for name, _ in found)
        sizes = tuple(known for _, known in found)
        if len(found) == 1:
            sizes = (size,)
        is_whole = int(np.prod(sizes)) == size
        axes.append(Axis(names, sizes) if found and is_whole else Axis())
    return _with_model_axes(setup, operation, shape, axes)


def _with_model_axes(setup, operation: Operation, shape, axes) -> list[Axis]:
    """Names axes whose size is that of the vocabulary or of the heads."""
    heads = setup.experiment.cfg.model.get("heads", 0)
    is_attention = "attention" in operation.module + operation.source
    vocabularies = {
        tokenizer.vocab_size
        for side, tokenizer in setup.experiment.tokenizers.items()
        if side not in ("label", "tag")
    }
    for index, size in enumerate(shape):
        if axes[index].names:
            continue
        taken = {name for axis in axes for name in axis.names}
        if is_attention and heads > 1 and size == heads and HEAD not in taken:
            axes[index] = Axis((HEAD,), (size,))
        elif size in vocabularies and TOKEN not in taken:
            axes[index] = Axis((TOKEN,), (size,))
    return axes


def _variants(
    setup: TrainingSetup, inputs: StepInputs
) -> Iterator[tuple[str, int, ClosedJaxpr]]:
    """Yields an axis, its size, and the step's program where that size differs."""
    rows, more = _num_rows(inputs), setup.partitioner.row_multiple
    devices = getattr(setup.partitioner, "num_devices", 1)
    parts = devices * setup.experiment.cfg.grad_accum_steps
    yield from _traced(ROW, rows // parts, setup, _with_rows(inputs, rows + more))
    if devices > 1:
        cfg = setup.experiment.cfg
        partitioner = SerialPmapPartitioner(
            cfg.parallel,
            num_devices=devices + 1,
            num_microbatches=cfg.grad_accum_steps,
        )
        other = dataclasses.replace(setup, partitioner=partitioner)
        wider = _with_rows(inputs, rows + rows // devices)
        yield from _traced(DEVICE, devices, other, wider)
    groups = {
        (name.startswith("source"), leaf.shape[1])
        for name, leaf in inputs.batch.items()
        if leaf.ndim > 1 and leaf.shape[1] > 1
    }
    for is_source, length in sorted(groups):
        name = SOURCE_POSITION if is_source else POSITION
        yield from _traced(name, length, setup, _shorter(inputs, is_source, length))


def _traced(name: str, size: int, setup, inputs) -> Iterator[tuple]:
    try:
        yield name, size, step_program(setup, inputs).jaxpr
    except (TypeError, ValueError, AssertionError):  # no model has inputs of this size
        return


def _num_rows(inputs: StepInputs) -> int:
    return len(next(iter(inputs.batch.values())))


def _with_rows(inputs: StepInputs, rows: int) -> StepInputs:
    before = _num_rows(inputs)

    def resize(leaf):
        has_rows = leaf.ndim and len(leaf) == before
        shape = (rows, *leaf.shape[1:]) if has_rows else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    batch, carry = jax.tree.map(resize, (inputs.batch, inputs.carry))
    return dataclasses.replace(inputs, batch=batch, carry=carry)


def _shorter(inputs: StepInputs, is_source: bool, length: int) -> StepInputs:
    batch = dict(inputs.batch)
    for name, leaf in batch.items():
        is_same = leaf.ndim > 1 and leaf.shape[1] == length
        if is_same and name.startswith("source") == is_source:
            shape = (leaf.shape[0], length - 1, *leaf.shape[2:])
            batch[name] = jax.ShapeDtypeStruct(shape, leaf.dtype)
    return dataclasses.replace(inputs, batch=batch)


def _shape_at(program: ClosedJaxpr, operation: Operation, result: int, rank: int):
    """Returns the shape of an output of the same operation in another program.

    It is the operation `rank` of those with its module, primitive and source.
    """
    same = [eqn for _, eqn in _like(program.jaxpr, operation)]
    return same[rank].outvars[result].aval.shape if rank < len(same) else None


def _rank(program: ClosedJaxpr, operation: Operation) -> int:
    """Returns the rank of an operation among those like it in its own program."""
    keys = [key for key, _ in _like(program.jaxpr, operation)]
    return keys.index(operation.key)


def _like(
    jaxpr, operation: Operation, stack: tuple = (), key: tuple = ()
) -> Iterator[tuple]:
    """Yields key and equation of all that have the description of an operation."""
    wanted = operation.module, operation.direction, operation.source
    for index, eqn in enumerate(jaxpr.eqns):
        scopes = (*stack, *eqn.source_info.name_stack.stack)
        inner = list(jaxprs_in_params(eqn.params))
        if eqn.primitive.name == operation.primitive:
            module, _, direction = read_scopes(scopes)
            if (module, direction, source_line(eqn)) == wanted:
                yield (*key, index), eqn
        if eqn.primitive.name == "while":
            inner = [eqn.params["body_jaxpr"].jaxpr]
        for number, called in enumerate(inner):
            is_branch = eqn.primitive.name == "cond"
            place = (*key, index, number) if is_branch else (*key, index)
            yield from _like(called, operation, scopes, place)


def locate(
    mask: Bool[np.ndarray, "..."], axes: Sequence[Axis]
) -> dict[str, np.ndarray]:
    """Returns the indices of marked entries along each axis with a name.

    An axis of which all indices are marked is left out, where it has more than one.
    """
    entries = np.nonzero(mask) if mask.ndim else ()
    found: dict[str, np.ndarray] = {}
    for axis, indices in zip(axes, entries, strict=True):
        if axis.names:
            parts = np.unravel_index(indices, axis.sizes)
            for name, size, part in zip(axis.names, axis.sizes, parts, strict=True):
                values = np.unique(part)
                if len(values) < size or size == 1:
                    found[name] = values
    return found


def batch_rows(
    setup: TrainingSetup,
    inputs: StepInputs,
    operation: Operation,
    mask: Bool[np.ndarray, "..."],
    axes: Sequence[Axis],
) -> list[int] | None:
    """Returns the rows of the batch with marked entries; None where no axis has rows.

    Row i of a microbatch m of M is row i M + m of its device's part of the batch.
    """
    names = [name for axis in axes for name in axis.names]
    if ROW not in names:
        return None
    entries = np.nonzero(mask)
    index = {}
    for axis, indices in zip(axes, entries, strict=True):
        if axis.names:
            parts = np.unravel_index(indices, axis.sizes)
            index |= zip(axis.names, parts, strict=True)
    rows = index[ROW]
    if (count := setup.experiment.cfg.grad_accum_steps) > 1:
        rows = rows * count + (operation.iteration[:1] or (0,))[0]
    if DEVICE in index:
        devices = setup.partitioner.num_devices
        rows = rows + index[DEVICE] * (_num_rows(inputs) // devices)
    return np.unique(rows).tolist()


def format_indices(name: str, values: Sequence[int]) -> str:
    """Formats indices such as "head 2" or "positions 3, 5-9 and 4 more"."""
    ranges: list[list[int]] = []
    for value in values:
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    words = [f"{a}-{b}" if b > a else str(a) for a, b in ranges]
    shown = ", ".join(words[:MAX_LISTED])
    more = f" and {len(words) - MAX_LISTED} more" if len(words) > MAX_LISTED else ""
    plural = f"{name}s" if len(values) > 1 else name
    return f"{plural} {shown}{more}"


def axes_of_input(setup: TrainingSetup, name: str, shape: Sequence[int]) -> list[Axis]:
    """Returns the meaning of each axis of an input of the step, from its name."""
    axes = [Axis() for _ in shape]
    if name.startswith(("batch/", "carry/")) and shape:
        axes[0] = Axis((ROW,), (shape[0],))
        if name.startswith("batch/") and len(shape) > 1:
            is_source = name.startswith("batch/source")
            position = SOURCE_POSITION if is_source else POSITION
            axes[1] = Axis((position,), (shape[1],))
        return axes
    place = Operation((), (), name, "", "", "", (), (), False)
    return _with_model_axes(setup, place, shape, axes)
