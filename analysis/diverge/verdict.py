"""The verdict on two runs: a pure function of the evidence."""

import dataclasses
import math
from collections.abc import Iterable

from analysis.diverge.evidence import ArrayDifference, Changed, Comparison, Difference
from analysis.diverge.programs import ProgramComparison
from analysis.diverge.replay import Replayed

EQUAL, ROUNDING, DATA = "equal", "rounding", "different data"
RANDOM, PARAMETERS = "different random numbers", "different parameters"
PROGRAM = "different program"

# Largest relative difference of a loss or of all gradients that is one of rounding:
# float32 gives 1e-7 to 1e-5, and bfloat16 1e-3 to 1e-2.
MAX_ROUNDING = 1e-4
GROUPS = ("opt_state/", "params/")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything that is known of two runs.

    Attributes:
      config: keys that differ and that training depends on.
      records: log, fingerprints and checkpoints.
      replayed: None without a replay.
      programs: comparison of the step at which the replays part, if they do.
    """

    config: tuple[Changed, ...] = ()
    environment: tuple[Changed, ...] = ()
    data: tuple[Changed, ...] = ()
    records: tuple[Comparison, ...] = ()
    replayed: Replayed | None = None
    programs: ProgramComparison | None = None

    @property
    def first(self) -> Difference | None:
        """The first record that differs; of several before one step, that of arrays."""
        found = [one.first for one in self.records if one.first]
        return min(found, key=lambda one: (one.step, not one.arrays), default=None)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Kind of difference of two runs, and the reason to say so."""

    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def judge(evidence: Evidence) -> Verdict:
    """Returns the verdict on two runs for all that is known of them."""
    replayed, first = evidence.replayed, evidence.first
    if replayed and replayed.parting:
        return _judge_parting(evidence)
    mismatches = [one for one in replayed.mismatches if one] if replayed else []
    if first is None and not mismatches:
        newest = max(
            [0 if replayed is None else replayed.last - 1]
            + [one.last for one in evidence.records]
        )
        return Verdict(
            EQUAL, f"all arrays and logged values are equal up to step {newest}"
        )
    # Where no record is repeated here, the replay says nothing of either run.
    is_one_wrong = len(mismatches) == 1
    return _judge_records(
        evidence, mismatches[0] if is_one_wrong else first or mismatches[0]
    )


def _judge_parting(evidence: Evidence) -> Verdict:
    """Judges runs whose replays part."""
    parting, names = evidence.replayed.parting, _keys(evidence.config)
    step = parting.step
    if parting.has_other_batch:
        return Verdict(DATA, f"the batch of step {step} differs{names}")
    if parting.before is None:
        return _judge_first_state(evidence, parting.arrays)
    step -= 1
    found = evidence.programs
    if found is None or found.is_equal:
        size = _size(parting.arrays)
        if size <= MAX_ROUNDING:
            return Verdict(
                ROUNDING,
                f"step {step} has the same operations, and its compiled programs "
                f"differ by {size:.1e}{names}",
            )
        return Verdict(PROGRAM, f"the compiled programs of step {step} differ{names}")
    operation = found.first
    if operation and operation.is_random:
        constants = (
            f" ({' and '.join(operation.constants)})" if operation.constants else ""
        )
        return Verdict(
            RANDOM,
            f"the inputs of step {step} are equal; its first result that differs is of "
            f"random numbers{constants}{names}",
        )
    if operation and operation.constants:
        return Verdict(
            PROGRAM,
            f"step {step} has the constant {operation.constants[0]} in A and "
            f"{operation.constants[1]} in B: {operation.operation}{names}",
        )
    if found.size <= MAX_ROUNDING:
        return Verdict(
            ROUNDING,
            f"the operations of step {step} are not the same, but its results differ "
            f"by {found.size:.1e} only{names}",
        )
    where = (
        operation.operation if operation else " in A and ".join(found.split) + " in B"
    )
    return Verdict(
        PROGRAM, f"the first operation of step {step} that differs is {where}{names}"
    )


def _judge_first_state(
    evidence: Evidence, arrays: Iterable[ArrayDifference]
) -> Verdict:
    """Judges runs that begin with other states."""
    names = [one.name for one in arrays if not one.name.startswith("batch/")]
    keys, size = {one.name for one in evidence.config}, _size(arrays)
    causes = _causes(evidence)
    count = f"{len(names)} arrays differ before step 1, first {names[0]}{causes}"
    if size <= MAX_ROUNDING:
        return Verdict(ROUNDING, f"the first states differ by {size:.1e}: {count}")
    if "seed" in keys and not keys & {"init_from", "init_params_pattern"}:
        return Verdict(
            RANDOM, f"the first parameters are drawn with another seed: {count}"
        )
    return Verdict(PARAMETERS, f"the runs begin with other parameters: {count}")


def _judge_records(evidence: Evidence, found: Difference) -> Verdict:
    """Judges a record that differs from the other run's, or from a replay."""
    arrays, replayed = found.arrays, evidence.replayed
    between = f"between steps {found.equal} and {found.step}"
    if found.step <= found.equal + 1:
        between = f"after step {found.equal}" if arrays else f"in step {found.step}"
    if any(one.name.startswith("batch/") for one in arrays[:1]):
        keys = _keys(evidence.config)
        return Verdict(DATA, f"the batch of step {found.step} differs{keys}")
    if found.step == 1 and arrays:
        return _judge_first_state(evidence, arrays)
    subject = _subject(evidence)
    if len(arrays) == 1 and arrays[0].is_single:
        return Verdict(
            PARAMETERS,
            f"changed outside of the program, {between}: {describe_array(arrays[0])}"
            f"{subject}",
        )
    size = _size(arrays) if arrays else _value_size(found.values)
    is_reproduced = bool(replayed) and any(
        checked and not mismatch
        for checked, mismatch in zip(replayed.checked, replayed.mismatches, strict=True)
    )
    is_same = not (evidence.environment or evidence.config)
    has_matched = found.equal > 1  # after a step of the same program
    # Compiled otherwise, as the trial of a population is, a program differs at once.
    is_other_run = is_reproduced and is_same and has_matched
    if size <= MAX_ROUNDING and not is_other_run:
        causes = (subject if is_same else "") + _causes(evidence)
        return Verdict(ROUNDING, f"{between} the runs come apart by {size:.1e}{causes}")
    if has_matched and is_same:
        worst = max(arrays, key=lambda one: one.relative, default=None)
        most = f", most of all {describe_array(worst)}" if worst else ""
        return Verdict(
            PARAMETERS, f"changed outside of the program, {between}{most}{subject}"
        )
    if [one.name for one in evidence.config] == ["seed"]:
        return Verdict(RANDOM, f"{between} the runs part{_causes(evidence)}")
    # The moments of an optimizer are means of gradients.
    moments = [one for one in arrays if one.name.startswith("opt_state/")]
    worst = max(moments or arrays, key=lambda one: one.distance, default=None)
    most = f", most of all {describe_array(worst)}" if worst else ""
    text = f"{between} the runs come apart by {size:.1e}{most}{subject}"
    return Verdict(PROGRAM, text + _causes(evidence))


def _subject(evidence: Evidence) -> str:
    """Tells which run's records its replay does not repeat."""
    replayed = evidence.replayed
    if not replayed:
        return ""
    first, second = (one is None for one in replayed.mismatches)
    if first != second:
        repeated, other = "AB" if first else "BA"
        return f"; a replay repeats the records of {repeated}, not of {other}"
    return "; a replay here repeats the records of neither run"


def _keys(config: Iterable[Changed]) -> str:
    """Returns the keys that differ, as the end of a sentence."""
    text = "; ".join(map(str, config))
    return f" ({text})" if text else ""


def _causes(evidence: Evidence) -> str:
    """Returns the keys and the environment that differ, as the end of a sentence."""
    return _keys([*evidence.config, *evidence.environment])


def _size(arrays: Iterable[ArrayDifference]) -> float:
    """Returns the relative distance of the parameters or of the optimizer state.

    The smaller one counts: a rule such as Adam's divides by the size of the gradient,
    so that rounding may change the sign of an update.
    """
    sizes = []
    for group in GROUPS:
        members = [one for one in arrays if one.name.startswith(group)]
        norm = math.hypot(*(one.norm for one in members))
        distance = math.hypot(*(one.distance for one in members))
        if members:
            sizes.append(distance / norm if norm else math.inf)
    return min(sizes, default=math.inf)


def _value_size(values: tuple[Changed, ...]) -> float:
    """Returns the largest relative difference of logged values."""
    sizes = [
        abs(one.first - one.second) / max(abs(one.first), abs(one.second))
        for one in values
        if isinstance(one.first, float | int) and isinstance(one.second, float | int)
    ]
    return max(sizes) if len(sizes) == len(values) else math.inf


def describe_array(one: ArrayDifference) -> str:
    """Describes the difference of an array in a few words."""
    place = f"[{', '.join(map(str, one.place))}]" if one.place else ""
    if one.bit is not None:
        return f"bit {one.bit} of {one.name}{place}"
    if one.largest is None:
        return f"{one.name} by {one.relative:.1e} of its norm"
    return f"{one.name} by {one.relative:.1e} of its norm, {place} by {one.largest:.1e}"
