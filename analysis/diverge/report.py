"""Report of a comparison, for the terminal."""

from collections.abc import Iterable

from analysis.diverge.evidence import ArrayDifference, Changed, Comparison, Difference
from analysis.diverge.programs import ProgramComparison
from analysis.diverge.replay import Replayed
from analysis.diverge.verdict import Evidence, judge
from training.observe.fingerprint import RESOLUTION
from utils.text_tables import align_columns

MAX_LINES = 8  # of a list
MAX_GROWTH = 5  # distances of a line


def format_report(evidence: Evidence, names: tuple[str, str], notes=()) -> str:
    """Returns the lines of a report, of which the last is the verdict.

    Args:
      names: of the runs A and B.
      notes: lines before the verdict, such as the reason why nothing was replayed.
    """
    lines = [f"{letter}  {name}" for letter, name in zip("AB", names, strict=True)]
    lines += _section("config", evidence.config, "the same keys")
    lines += _section("environment", evidence.environment, "the same")
    lines += _section("data", evidence.data, "the same hashes")
    for one in evidence.records:
        lines += _describe_records(one)
    if evidence.replayed:
        lines += _describe_replay(evidence.replayed)
    if evidence.programs:
        lines += _describe_programs(evidence.programs)
    return "\n".join([*lines, *notes, f"verdict: {judge(evidence)}"])


def _section(title: str, changes: Iterable[Changed], otherwise: str) -> list[str]:
    changes = list(map(str, changes))
    if not changes:
        return [f"{title}: {otherwise}"]
    more = (
        [f"... and {len(changes) - MAX_LINES} more"] if len(changes) > MAX_LINES else []
    )
    return [f"{title}:", *(f"  {line}" for line in [*changes[:MAX_LINES], *more])]


def _describe_records(found: Comparison) -> list[str]:
    title = {"log": "log", "fingerprint": "fingerprints", "checkpoint": "checkpoints"}
    name = title[found.source]
    if not found.steps:
        return [f"{name}: no step that both recorded"]
    if found.first is None:
        return [f"{name}: equal at {_count(found.steps)} up to step {found.last}"]
    return [f"{name}: {_describe_difference(found.first)}", *_growth(found.growth)]


def _count(steps: tuple[int, ...]) -> str:
    return "one step" if len(steps) == 1 else f"{len(steps)} steps"


def _describe_difference(found: Difference) -> str:
    word = "before" if found.arrays else "at"
    equal = f"equal {word} step {found.equal}, " if found.equal else ""
    lines = [f"{equal}different {word} step {found.step}", *_table(found.arrays)]
    lines += [f"  {one}" for one in found.values[:MAX_LINES]]
    return "\n".join(lines)


def _table(arrays: tuple[ArrayDifference, ...], title: str = "array") -> list[str]:
    """Formats the first differences of arrays, in order of computation."""
    if not arrays:
        return []
    rows = [(title, "relative", "largest", "elements")]
    for one in arrays[:MAX_LINES]:
        largest = "" if one.largest is None else f"{one.largest:.2e}"
        count = "" if one.count is None else f"{one.count:,}"
        is_bound = one.largest is None and one.relative <= RESOLUTION
        relative = f"{'<= ' if is_bound else ''}{one.relative:.1e}"
        rows.append((one.name, relative, largest, count))
    lines = [f"  {line}" for line in align_columns(rows, "<>>>")]
    more = len(arrays) - MAX_LINES
    return [*lines, f"  ... and {more} more"] if more > 0 else lines


def _growth(growth: Iterable[tuple[int, float]]) -> list[str]:
    shown = list(growth)
    if len(shown) > MAX_GROWTH:
        shown = [*shown[: MAX_GROWTH - 1], shown[-1]]
    text = ", ".join(f"{x:.1e} before step {step}" for step, x in shown)
    return [f"  relative distance of the parameters: {text}"] if text else []


def _describe_replay(found: Replayed) -> list[str]:
    origin = f"checkpoint {found.start}" if found.start else "the first state"
    parting = found.parting
    if parting is None:
        lines = [f"replay: from {origin}, equal up to the inputs of step {found.last}"]
        for letter, one in zip("AB", found.mismatches, strict=True):
            if one:
                lines += [f"  records of {letter}: {_describe_difference(one)}"]
        return lines
    lines = [f"replay: from {origin}, the inputs of step {parting.step} differ"]
    return [*lines, *_table(parting.arrays), *_growth(parting.growth)]


def _describe_programs(found: ProgramComparison) -> list[str]:
    lines = ["operations of the step before:"]
    if found.is_equal:
        return [*lines, "  all are the same, with equal results"]
    if one := found.first:
        lines.append(f"  first result that differs: {one.operation}")
        if one.constants:
            lines.append(
                f"    its constant is {one.constants[0]} in A, {one.constants[1]} in B"
            )
        lines.append(f"    largest difference {one.array.largest:.2e}")
    if found.split:
        lines.append(f"  first operation that differs: {found.split[0]} in A")
        lines.append(f"    {found.split[1]} in B")
    lines += _table(found.modules, "output of the forward pass")
    lines.append(f"  loss: {found.loss[0]:.9g} in A, {found.loss[1]:.9g} in B")
    lines.append(f"  all gradients: relative difference {found.gradient_distance:.1e}")
    lines += _table(found.gradients, "gradient, from the last to the first")
    lines.append(f"  all updates: relative difference {found.update_distance:.1e}")
    return lines
