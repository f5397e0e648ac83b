"""Replay of both runs, step by step, until their inputs of a step differ."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from analysis.diverge.evidence import (
    ArrayDifference,
    Changed,
    Difference,
    compare_arrays,
    compare_digests,
    group_distance,
    locate_bit,
    read_arrays_of,
)
from analysis.diverge.records import without_machine_fields
from analysis.diverge.sides import Side
from analysis.step_replay.replay import Replay, StepInputs
from experiment.fingerprints import step_inputs
from training.metrics import WeightedMetrics, compute, merge
from training.observe.fingerprint import (
    digest_tree,
    digests_by_name,
    in_order,
    named_arrays,
)

GROWTH_STEPS = 4  # replayed after the step at which the runs part


@dataclasses.dataclass(frozen=True)
class Parting:
    """The first inputs that differ in replays of both runs.

    Attributes:
      step: the step that has these inputs.
      arrays: those that differ, in order of computation.
      before: inputs of the step before in either run; None where the replays began
        with `step`.
      growth: relative distance of the parameters before this step and later ones.
    """

    step: int
    arrays: tuple[ArrayDifference, ...]
    before: tuple[StepInputs, StepInputs] | None
    growth: tuple[tuple[int, float], ...] = ()

    @property
    def has_other_batch(self) -> bool:
        """Whether the batch differs, but no array before it."""
        return all(one.name.startswith("batch/") for one in self.arrays)


@dataclasses.dataclass(frozen=True)
class Replayed:
    """Result of the replay of one run or of both.

    Attributes:
      start: number of steps before the state that the replays began with.
      last: the newest step whose inputs were computed.
      parting: None where the replays are equal, or only one run could be replayed.
      mismatches: of either run, the first record that differs from the replay.
      checked: of either run, the number of records that were compared.
    """

    start: int
    last: int
    parting: Parting | None
    mismatches: tuple[Difference | None, Difference | None]
    checked: tuple[int, int]


class RecordCheck:
    """Comparison of a run's records with its replay."""

    def __init__(self, side: Side, start: int, progress=None):
        """Begins at a state after `start` steps, with the progress saved there."""
        self.side, self.mismatch, self.checked = side, None, 0
        self._equal = start + 1
        self._totals = progress.totals if progress else {}
        self._rows = {
            row["step"]: without_machine_fields(row)
            for row in side.log
            if row["split"] == "train"
        }
        self._checkpoints = {*side.checkpoints}

    def check_inputs(self, step: int, inputs: dict[str, PyTree]) -> None:
        """Compares the inputs of a step with a fingerprint or a checkpoint."""
        if self.mismatch and (self.mismatch.arrays or step > self.mismatch.step + 1):
            return
        found = self.side.fingerprints
        if found and step in found.rows:
            ours, theirs = digests_of(inputs), found.digests(step)
            arrays = [
                locate_bit(one, ours, theirs, found.shape(one.name))
                for one in compare_digests(ours, theirs)
            ]
            self._note("fingerprint", step, arrays)
        has_arrays = self.mismatch and self.mismatch.arrays
        if step - 1 in self._checkpoints and not has_arrays:
            stored = read_arrays_of(self.side.directory.path, step - 1)
            arrays = {
                name: np.asarray(array)
                for name, array in named_arrays(inputs).items()
                if name in stored
            }
            self._note("checkpoint", step, compare_arrays(arrays, stored))

    def check_metrics(self, step: int, metrics: WeightedMetrics) -> None:
        """Compares the metrics of a step with the log."""
        self._totals = merge(self._totals, metrics)
        if step not in self._rows:
            return
        values, self._totals = compute(self._totals), {}
        row = self._rows[step]
        changed = [
            Changed(name, value, row[name])
            for name, value in values.items()
            if name in row and name != "nonfinite_steps" and value != row[name]
        ]
        if not self.mismatch:
            self._note("log", step, (), changed)

    def _note(self, source, step, arrays, values=()) -> None:
        self.checked += 1
        if arrays or values:
            known = self.mismatch.values if self.mismatch else values
            self.mismatch = Difference(
                source, step, self._equal, tuple(arrays), tuple(known)
            )
        elif not self.mismatch:
            self._equal = max(self._equal, step)


def digests_of(inputs: dict[str, PyTree]) -> dict:
    """Returns the digests of all arrays by name."""
    checksums, values = jax.device_get(_digest(inputs))
    return digests_by_name(named_arrays(inputs), checksums, values)


_digest = jax.jit(digest_tree)


@jax.jit
def _differ(first: list[Array], second: list[Array]) -> Bool[Array, "N"]:
    """Returns of each pair whether it differs in a bit."""

    def bits(array):
        if array.dtype == bool:
            return array
        kind = f"uint{8 * array.dtype.itemsize}"
        return jax.lax.bitcast_convert_type(array, jnp.dtype(kind))

    pairs = zip(first, second, strict=True)
    return jnp.stack([(bits(one) != bits(two)).any() for one, two in pairs])


def compare_inputs(first: dict, second: dict) -> list[ArrayDifference]:
    """Returns the arrays that differ, of those that both have in one shape."""
    ours, theirs = named_arrays(first), named_arrays(second)
    names = [
        name
        for name in in_order(ours)
        if name in theirs and ours[name].shape == theirs[name].shape
    ]
    pairs = [[side[name] for name in names] for side in (ours, theirs)]
    one_device = jax.local_devices()[0]
    if len({array.sharding for array in (*pairs[0], *pairs[1])}) > 1:
        pairs = [jax.device_put(side, one_device) for side in pairs]
    differ = jax.device_get(_differ(*pairs))
    names = [name for name, is_other in zip(names, differ, strict=True) if is_other]
    return compare_arrays(
        *({name: np.asarray(side[name]) for name in names} for side in (ours, theirs))
    )


def replay(
    sides: Sequence[Side],
    replays: Sequence[Replay | None],
    start: int,
    limit: int,
    max_steps: int,
) -> Replayed:
    """Replays the runs that can be, up to the inputs of a step.

    Args:
      start: number of steps before the state to begin with.
      limit: the step before which the records differ.
      max_steps: largest number of steps to replay.
    """
    able = [one for one in replays if one is not None]
    checks = [
        RecordCheck(side, start, able[0].progress(start) if start else None)
        for side in sides
    ]
    able_inputs = [one.seek(start + 1, max_steps) for one in able]
    before = parting = None
    whose = "both runs" if len(able) == 2 else able[0].directory.path
    able[0].announce(start + 1, limit - 1, whose)
    while True:
        step = able_inputs[0].step
        named = [
            step_inputs(one.setup, inputs.state, inputs.carry, inputs.batch)
            for one, inputs in zip(able, able_inputs, strict=True)
        ]
        if arrays := compare_inputs(*named) if len(able) == 2 else []:
            parting = Parting(step, tuple(arrays), before)
            break
        for check in checks:
            check.check_inputs(step, named[0])
        if step >= limit:
            break
        if len(able) == 2:
            before = tuple(map(_copy, able_inputs))
        metrics = [one.advance() for one in able]
        for index, check in enumerate(checks):
            check.check_metrics(step, metrics[index % len(able)])
        able_inputs = [one.inputs() for one in able]
    if parting and not parting.has_other_batch:
        growth = _growth(able, able_inputs, parting)
        parting = dataclasses.replace(parting, growth=growth)
    return Replayed(
        start,
        step,
        parting,
        tuple(check.mismatch for check in checks),
        tuple(check.checked for check in checks),
    )


def _copy(inputs: StepInputs) -> StepInputs:
    """Returns inputs that the step does not donate."""
    state, carry = jax.tree.map(jnp.copy, (inputs.state, inputs.carry))
    return dataclasses.replace(inputs, state=state, carry=carry)


def _growth(replays, inputs, parting: Parting) -> tuple[tuple[int, float], ...]:
    """Replays some further steps, for the distance of the parameters before each."""
    growth = []
    for _ in range(GROWTH_STEPS):
        params = [{"params": one.state.params} for one in inputs]
        norms = named_arrays(params[0])
        arrays, pairs = compare_inputs(*params), zip(inputs, replays, strict=True)
        growth.append((inputs[0].step, group_distance(arrays, "params", norms)))
        if any(one.step >= replay.setup.steps for one, replay in pairs):
            break
        for one in replays:
            one.advance()
        inputs = [one.inputs() for one in replays]
    return tuple(growth)
