"""Explanation of a step: what it computed, what was wrong first, and where."""

import dataclasses
import functools
import sys

import jax
import numpy as np

from analysis.explain.axes import (
    TOKEN,
    Axis,
    axes_of_input,
    batch_rows,
    describe_axes,
    locate,
)
from analysis.explain.cause import (
    GROWTH,
    Cause,
    find_growth,
    find_nonfinite,
)
from analysis.explain.operations import Examination, equation_at, examine
from analysis.explain.rows import RowGroup, row_groups, rows_with, without
from analysis.step_replay.program import Program, step_program
from analysis.step_replay.replay import MAX_REPLAY_STEPS, Replay, StepInputs
from experiment.setup import TrainingSetup
from training.observe.watch import group_name
from training.optim.optimizers import learning_rate
from utils.errors import UserError

MAX_REFERENCE_STEPS = 100  # to train for a reference that is not on the way


@dataclasses.dataclass(frozen=True)
class Reference:
    """A finite step to compare with.

    Attributes:
      has_own_state: whether it was computed from its own state; otherwise from the
        state of the step that is explained, with the batch of this one.
    """

    step: int
    has_own_state: bool
    examination: Examination


@dataclasses.dataclass(frozen=True)
class Place:
    """Location of the bad values of an array.

    Attributes:
      indices: along each axis with a name, without axes that are bad as a whole.
      rows: rows of the batch; None where the array has no axis of rows.
      count: number of bad entries, of `size`.
      inputs: largest finite magnitude of each input of the operation.
    """

    indices: dict[str, np.ndarray]
    rows: list[int] | None
    count: int
    size: int
    inputs: list[float]


@dataclasses.dataclass
class Explanation:
    """A step of a run, explained."""

    replay: Replay
    setup: TrainingSetup
    inputs: StepInputs
    program: Program
    examination: Examination
    reference: Reference | None
    with_rows: bool = True

    @functools.cached_property
    def cause(self) -> Cause | None:
        """The origin of what is wrong; None where nothing is."""
        reference = self.reference and self.reference.examination
        if not self.examination.is_finite:
            return find_nonfinite(self.examination, reference)
        return find_growth(self.examination, reference) if reference else None

    @functools.cached_property
    def growth(self) -> Cause | None:
        """The origin of the large values that led to those that are not finite."""
        if self.examination.is_finite or self.reference is None or self.cause is None:
            return None
        found = find_growth(self.examination, self.reference.examination)
        if found is None or not found.growth:
            return None
        own, other = self.cause.order(self.examination), found.order(self.examination)
        return found if other < own else None

    def affected(self, cause: Cause) -> list[str]:
        """Returns the names of the outputs of the step that a cause leads to."""
        found = self.examination
        if cause.input_name:
            spread = {found.inputs[cause.input_name]}
        else:
            spread = {cause.operation.results[cause.result]}
        bad = {i for i, size in found.sizes.items() if size.nonfinite}
        for operation in found.operations:
            if not spread.isdisjoint(operation.inputs):
                results = operation.results
                spread |= set(results if cause.growth else bad.intersection(results))
        return [name for name, i in found.outputs.items() if i in spread]

    def place(self, cause: Cause) -> Place:
        """Returns where the values of a cause are bad."""
        if cause.input_name:
            index = self.examination.inputs[cause.input_name]
            array = np.asarray(self.program.args[index])
            axes = axes_of_input(self.setup, cause.input_name, array.shape)
            mask = self._mask(cause, array, self.examination.sizes[index])
            sizes = []
        else:
            equation = equation_at(self.program, cause.operation)
            array = np.asarray(equation.outputs[cause.result])
            size = self.examination.sizes[cause.operation.results[cause.result]]
            mask = self._mask(cause, array, size)
            axes = describe_axes(
                self.setup,
                self.inputs,
                self.program.jaxpr,
                cause.operation,
                cause.result,
                array.shape,
            )
            sizes = [self.examination.sizes.get(i) for i in cause.operation.inputs]
        largest = [size.largest for size in sizes if size]
        rows = self._rows(cause, mask, axes)
        return Place(locate(mask, axes), rows, int(mask.sum()), mask.size, largest)

    def _mask(self, cause: Cause, array: np.ndarray, size) -> np.ndarray:
        array = array.astype(np.float64)
        if cause.growth:
            return ~(np.abs(array) < size.largest / cause.growth * GROWTH)
        return np.isnan(array) if size.nan else ~np.isfinite(array)

    def _rows(self, cause: Cause, mask, axes: list[Axis]) -> list[int] | None:
        if not cause.input_name:
            return batch_rows(self.setup, self.inputs, cause.operation, mask, axes)
        indices = locate(mask, axes)
        if "row" in indices:
            return indices["row"].tolist()
        if TOKEN not in indices:
            return None
        tokenizers = self.setup.experiment.tokenizers
        is_joint = tokenizers.get("source") is tokenizers.get("target")
        fields = ["tokens", "source", "target_in", "labels"]
        if not is_joint and "target" in cause.input_name:
            fields = ["target_in", "labels"]
        elif not is_joint and "source" in cause.input_name:
            fields = ["source"]
        return rows_with(self.host_batch, fields, indices[TOKEN])

    @property
    def learning_rate(self) -> float:
        """The learning rate of the step."""
        schedule, state = self.setup.schedule, self.inputs.state
        return float(learning_rate(schedule, state.opt_state, state.step))

    @functools.cached_property
    def norms(self) -> dict[str, tuple[float, float, float]]:
        """Norms of parameters, gradient and update of each layer."""
        found: dict[str, np.ndarray] = {}
        for name, squares in self.examination.squares.items():
            layer = group_name(name.split("/")[:-1])
            found[layer] = found.get(layer, np.zeros(3)) + squares
        return {layer: tuple(np.sqrt(squares)) for layer, squares in found.items()}

    @functools.cached_property
    def host_batch(self) -> dict:
        """The batch of the step on the host, with its padding rows."""
        return jax.device_get(self.inputs.batch)

    @functools.cached_property
    def groups(self) -> list[RowGroup]:
        """Rows by their importance; none where a parameter is bad already."""
        is_parameter = self.cause is not None and self.cause.input_name.startswith(
            ("params/", "opt_state/", "ema/")
        )
        if is_parameter or not self.with_rows:
            return []
        print("computing loss and gradient of each row ...", file=sys.stderr)
        return row_groups(self.setup, self.inputs)

    @functools.cached_property
    def rest(self) -> tuple[list[int], RowGroup] | None:
        """The rows that are not finite, and the batch without them."""
        bad = [
            row for group in self.groups if not group.is_finite for row in group.rows
        ]
        count = len(self.host_batch["weights"])
        if not bad or len(bad) == count:
            return None
        return bad, without(self.setup, self.inputs, bad)


def explain(
    workdir: str,
    step: int,
    *,
    places: dict | None = None,
    batches: str | None = None,
    max_steps: int = MAX_REPLAY_STEPS,
    reference: int | None = None,
    with_rows: bool = True,
) -> Explanation:
    """Examines a step of a run.

    Args:
      places: folders of the data that have moved, by their key of `cfg.data`.
      batches: file of batches to use in place of those of their steps.
      max_steps: largest number of steps to train before the step.
      reference: step to compare with; None: the last finite one before, if it is near.
      with_rows: whether to compute loss and gradient of each row.

    Raises:
      UserError: the run has no such step, or it cannot be replayed.
    """
    replay = Replay.open(workdir, places, batches)
    replay.check(step, max_steps)
    if reference is not None and not 1 <= reference < step:
        raise UserError(
            f"--reference={reference} must be a step before --step={step}, from 1 on"
        )
    compared = _reference_on_the_way(replay, step, max_steps, reference)
    setup, inputs = replay.on_one_device(replay.seek(step, max_steps))
    if compared is None and reference is None:
        compared = _reference_with_the_same_state(replay, setup, inputs)
    program = step_program(setup, inputs)
    return Explanation(
        replay, setup, inputs, program, examine(program), compared, with_rows
    )


def _reference_on_the_way(
    replay: Replay, step: int, max_steps: int, wanted: int | None
) -> Reference | None:
    """Returns the last finite step before a step, if few steps lead to it."""
    tried = 0
    previous = wanted or _previous_finite(replay, step)
    while previous and tried < 2:
        distance = replay.distance(previous)
        is_passed = replay.start(step) < previous < step
        limit = max_steps if wanted or is_passed else MAX_REFERENCE_STEPS
        if distance > min(limit, max_steps) or not replay.has_batches(
            previous - replay.distance(previous), previous
        ):
            return None
        setup, inputs = replay.on_one_device(replay.seek(previous, max_steps))
        examination = examine(step_program(setup, inputs))
        if examination.is_finite:
            return Reference(previous, True, examination)
        if wanted:
            print(f"step {wanted} is not finite either", file=sys.stderr)
            return None
        replay.seek(step, max_steps)  # says which steps are finite
        previous, tried = _previous_finite(replay, step), tried + 1
    return None


def _reference_with_the_same_state(
    replay: Replay, setup: TrainingSetup, inputs: StepInputs
) -> Reference | None:
    """Returns the state of a step with the batch of the last finite one before."""
    previous = _previous_finite(replay, inputs.step)
    if not previous or not replay.has_batches(previous, previous):
        return None
    batch = setup.partitioner.put_batch(replay.host_batch(previous))
    changed = dataclasses.replace(inputs, batch=batch)
    examination = examine(step_program(setup, changed))
    if not examination.is_finite:
        return None
    return Reference(previous, False, examination)


def _previous_finite(replay: Replay, step: int) -> int:
    """Returns the last step before that is not known as not finite; 0 for none."""
    nonfinite = set(replay.nonfinite)
    for checkpoint in replay.steps:
        nonfinite |= set(replay.progress(checkpoint).consecutive_nonfinite)
    return next((k for k in range(step - 1, 0, -1) if k not in nonfinite), 0)
