"""Differences of what two runs recorded: configs, environments, logs and arrays.

Arrays that differ "before step k" are inputs of step k, counted from 1: its batch, or
the carry, parameters and optimizer state after step k - 1, which a checkpoint of step
k - 1 has, too. A log line of step k depends on the inputs of steps up to k.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from analysis.diverge.records import (
    intact_checkpoints,
    read_checkpoint,
    without_machine_fields,
)
from training.observe.fingerprint import (
    Digest,
    Fingerprints,
    equals,
    in_order,
    locate_flipped_bit,
    relative_distance,
)
from training.run_dir import flatten_config
from utils import strict_json
from utils.paths import DATA_PLACES

# Keys that training does not depend on, but for its log and its checkpoints.
RECORD_KEYS = ("every.", "keep.", "eval.", "decode.", "track", "on_stall", "stall_")
ENVIRONMENT = (
    *("platform", "devices", "processes", "threads", "xla_flags", "commit"),
    "versions",
)
DATA = ("hashes", "corpus", "examples", "dropped")


@dataclasses.dataclass(frozen=True)
class Changed:
    """A named value that differs between the runs A and B."""

    name: str
    first: object
    second: object

    def __str__(self) -> str:
        return f"{self.name} is {_show(self.first)} in A and {_show(self.second)} in B"


def _show(value) -> str:
    text = "missing" if value is None else strict_json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclasses.dataclass(frozen=True)
class ArrayDifference:
    """Difference of an array of A and the same of B.

    Attributes:
      relative: ||a - b|| / max(||a||, ||b||); inf if one has values not finite.
      norm: max(||a||, ||b||).
      largest: largest absolute difference; None where only digests are known.
      place: index of that element.
      count: number of elements that differ; None where only digests are known.
      bit: the flipped bit, 0 to 31, where it is the only difference.
    """

    name: str
    relative: float
    norm: float
    largest: float | None = None
    place: tuple[int, ...] | None = None
    count: int | None = None
    bit: int | None = None

    @property
    def distance(self) -> float:
        """L2 norm of the difference, ||a - b||."""
        return self.relative * self.norm if self.norm else math.inf

    @property
    def is_single(self) -> bool:
        """Whether one element differs and all others are equal."""
        return self.bit is not None or self.count == 1


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first record that differs.

    Attributes:
      source: "log", "fingerprint" or "checkpoint".
      step: the step whose inputs differ; of a log, the step whose line does.
      equal: the newest step whose inputs are known to be equal; 0 if there is none.
      arrays: arrays that differ, in order of computation.
      values: logged values that differ.
    """

    source: str
    step: int
    equal: int
    arrays: tuple[ArrayDifference, ...] = ()
    values: tuple[Changed, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A kind of record, compared at the steps that both runs recorded.

    Attributes:
      steps: those steps; see `Difference`.
      growth: relative distance of the parameters at each later step, where known.
    """

    source: str
    steps: tuple[int, ...]
    first: Difference | None = None
    growth: tuple[tuple[int, float], ...] = ()

    @property
    def last(self) -> int:
        """The newest step that both runs recorded; 0 without one."""
        if not self.steps:
            return 0
        return self.steps[-1] if self.source == "log" else self.steps[-1] - 1


def compare_configs(first: dict, second: dict) -> tuple[list[Changed], list[Changed]]:
    """Returns the keys that differ: those that training depends on, and others."""
    places = {f"data.{key}" for key in DATA_PLACES}
    found = [
        one
        for one in _changed(flatten_config(first), flatten_config(second))
        if one.name not in places
    ]
    others = [one for one in found if one.name.startswith(RECORD_KEYS)]
    return [one for one in found if one not in others], others


def compare_environments(first: dict, second: dict) -> list[Changed]:
    """Returns what differs of versions, devices, flags and commit."""
    return _changed(*(flatten_config(_part(a, ENVIRONMENT)) for a in (first, second)))


def compare_data(first: dict, second: dict) -> list[Changed]:
    """Returns what differs of the hashes and sizes of data and vocabulary."""
    return _changed(*(flatten_config(_part(a, DATA)) for a in (first, second)))


def _part(about: dict, keys: Iterable[str]) -> dict:
    return {key: about[key] for key in keys if key in about}


def _changed(first: Mapping, second: Mapping) -> list[Changed]:
    return [
        Changed(name, first.get(name), second.get(name))
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]


def compare_logs(first: Iterable[dict], second: Iterable[dict]) -> Comparison:
    """Compares logged values, where both lines sum up the same steps."""
    ours, theirs = _windows(first), _windows(second)
    shared = sorted(ours.keys() & theirs.keys(), key=lambda key: key[::-1])
    equal, steps = 0, tuple(sorted({step for _, _, step in shared}))
    for key in shared:
        step = key[-1]
        values = _changed(ours[key], theirs[key])
        if values:
            difference = Difference("log", step, equal, values=tuple(values))
            return Comparison("log", steps, difference)
        equal = step
    return Comparison("log", steps)


def _windows(rows: Iterable[dict]) -> dict[tuple, dict]:
    """Returns logged values by split, first step of the window and its last step."""
    newest, found = {}, {}
    for row in rows:
        values = without_machine_fields(row)
        split, step = values.pop("split"), values.pop("step")
        start = newest.get(split, 0) if split == "train" else 0
        newest[split] = step
        found[split, start, step] = values
    return found


def compare_fingerprints(first: Fingerprints, second: Fingerprints) -> Comparison:
    """Compares the digests of the steps that both runs recorded."""
    shared = tuple(step for step in first.rows if step in second.rows)
    equal, found, growth = 0, None, []
    for step in shared:
        pair = first.digests(step), second.digests(step)
        if found is None:
            arrays = compare_digests(*pair)
            if not arrays:
                equal = step
                continue
            arrays = tuple(
                locate_bit(one, *pair, first.shape(one.name)) for one in arrays
            )
            found = Difference("fingerprint", step, equal, arrays)
        growth.append((step, group_distance(compare_digests(*pair), "params", pair[0])))
    return Comparison("fingerprint", shared, found, tuple(growth))


def compare_digests(
    first: Mapping[str, Digest], second: Mapping[str, Digest]
) -> list[ArrayDifference]:
    """Returns the arrays that differ by their digests, in order of computation."""
    return [
        ArrayDifference(
            name,
            relative_distance(first[name], second[name]),
            max(first[name].norm, second[name].norm),
        )
        for name in in_order(first)
        if name in second and not equals(first[name], second[name])
    ]


def locate_bit(
    difference: ArrayDifference,
    first: Mapping[str, Digest],
    second: Mapping[str, Digest],
    shape: tuple[int, ...],
) -> ArrayDifference:
    """Adds the place of a flipped bit to a difference, if it is the only one."""
    name = difference.name
    if name.startswith("batch/"):
        return difference
    found = locate_flipped_bit(first[name], second[name], math.prod(shape))
    if found is None:
        return difference
    index, bit = found
    place = tuple(map(int, np.unravel_index(index, shape))) if shape else ()
    return dataclasses.replace(difference, place=place, bit=bit, count=1)


def compare_checkpoints(first: Path, second: Path) -> Comparison:
    """Compares the arrays of all intact checkpoints that both runs have."""
    shared = sorted({*intact_checkpoints(first)} & {*intact_checkpoints(second)})
    steps, equal, found, growth = tuple(step + 1 for step in shared), 0, None, []
    for step in shared:
        pair = read_arrays_of(first, step), read_arrays_of(second, step)
        arrays = compare_arrays(*pair)
        if found is None and not arrays:
            equal = step + 1
            continue
        if found is None:
            found = Difference("checkpoint", step + 1, equal, tuple(arrays))
        growth.append((step + 1, group_distance(arrays, "params", pair[0])))
    return Comparison("checkpoint", steps, found, tuple(growth))


def read_arrays_of(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Reads carry and state of a checkpoint, named as in fingerprints."""
    found = read_checkpoint(folder, step)
    return {
        name.removeprefix("state/"): np.asarray(array)
        for name, array in found.items()
        if name.startswith(("state/", "carry/"))
    }


def compare_arrays(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> list[ArrayDifference]:
    """Returns the arrays that differ in a bit, in order of computation.

    Arrays that one run has alone, or in another shape or type, are left out: the
    states of two optimizers, for example.
    """
    pairs = {
        name: (first[name], second[name])
        for name in in_order(first)
        if name in second
        and (first[name].shape, first[name].dtype)
        == (second[name].shape, second[name].dtype)
    }
    found = (compare_array(name, *pair) for name, pair in pairs.items())
    return [one for one in found if one is not None]


def compare_array(
    name: str, first: np.ndarray, second: np.ndarray
) -> ArrayDifference | None:
    """Returns the difference of two arrays of one shape; None if they are equal."""
    first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)
    bits = [
        array.reshape(-1).view(f"uint{8 * array.itemsize}") for array in (first, second)
    ]
    changed = bits[0] ^ bits[1]
    places = np.flatnonzero(changed)
    if not len(places):
        return None
    values = [np.asarray(array, np.float64).reshape(-1) for array in (first, second)]
    with np.errstate(invalid="ignore"):
        distances = np.abs(values[0] - values[1])
    distances[~np.isfinite(distances)] = math.inf
    distances[changed == 0] = 0
    at = int(np.argmax(distances)) if distances.any() else int(places[0])
    norm = max(float(np.linalg.norm(value)) for value in values)
    distance = float(np.linalg.norm(distances))
    is_finite = math.isfinite(distance) and math.isfinite(norm)
    single = int(changed[places[0]])
    is_bit = len(places) == 1 and single & (single - 1) == 0
    return ArrayDifference(
        name,
        distance / norm if is_finite and norm else (math.inf if distance else 0.0),
        norm,
        largest=float(distances[at]),
        place=tuple(map(int, np.unravel_index(at, first.shape))),
        count=len(places),
        bit=single.bit_length() - 1 if is_bit else None,
    )


def group_distance(
    arrays: Iterable[ArrayDifference], group: str, norms: Mapping[str, object]
) -> float:
    """Returns the relative L2 distance of all arrays of a group together.

    Args:
      norms: all arrays or digests of one side, by name.
    """
    distance = math.hypot(
        *(one.distance for one in arrays if one.name.startswith(f"{group}/"))
    )
    norm = math.hypot(
        *(_norm(one) for name, one in norms.items() if name.startswith(f"{group}/"))
    )
    return distance / norm if norm else (math.inf if distance else 0.0)


def _norm(array: np.ndarray | Digest) -> float:
    if isinstance(array, Digest):
        return array.norm
    return float(np.linalg.norm(np.asarray(array, np.float64)))
