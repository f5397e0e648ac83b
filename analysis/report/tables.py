"""Tables that every form of a report has, as rows of text by title."""

from collections.abc import Sequence

from analysis.report.runs import Run
from analysis.report.score_table import SCORES, duration, number
from analysis.report.sweep_results import SweepResults
from analysis.report.systems import Pair, System
from analysis.report.training_cost import AXES

TableRow = dict[str, str]

CHECKPOINTS = 8  # of a learning curve, where it is told in words


def seed_rows(systems: Sequence[System]) -> list[TableRow]:
    """A row a system: mean and deviation of each score over its seeds."""
    names = dict.fromkeys(name for system in systems for name in system.scores)
    known = [name for name in SCORES if name in names]
    names = [*known, *(name for name in names if name not in known)]
    rows = []
    for system in systems:
        row = {"system": system.label, "seeds": ", ".join(map(str, system.seeds))}
        for name in names:
            row[title_of(name)] = mean_and_deviation(name, system.scores.get(name))
        rows.append(row)
    return rows


def mean_and_deviation(name: str, found: tuple[float, float | None] | None) -> str:
    """Such as `96.2 ± 0.4`."""
    if found is None:
        return ""
    mean, deviation = found
    digits = SCORES.get(name, ("", 3))[1]
    text = number(mean, digits)
    return text if deviation is None else f"{text} ± {number(deviation, digits)}"


def pair_rows(pairs: Sequence[Pair]) -> list[TableRow]:
    """A row a score of a pair, whose names stand in the first."""
    rows = []
    for pair in pairs:
        both = f"{pair.first} and {pair.second}"
        for name, found in pair.tested.items():
            digits = SCORES.get(name, ("", 3))[1] + 1
            ends = [f"{end:+.{digits}f}" for end in found.interval]
            row = {
                "systems": both,
                "score": title_of(name),
                "difference": f"{found.difference:+.{digits}f}",
                "bootstrap p": p_value(found.bootstrap),
                "randomisation p": p_value(found.randomisation),
                "95% interval": " to ".join(ends),
            }
            rows.append(row)
            both = ""
    return rows


def not_tested(pairs: Sequence[Pair]) -> list[str]:
    """A line a reason, with the pairs it holds of."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        for reason in pair.left_out:
            found.setdefault(reason, []).append(f"{pair.first} and {pair.second}")
    return [
        f"Not tested ({'; '.join(who) if len(who) < len(pairs) else 'all pairs'}): "
        f"{reason}."
        for reason, who in found.items()
    ]


def importance_rows(sweep: SweepResults) -> list[TableRow]:
    """A row a key that the trials differ in."""
    return [
        {
            "key": key,
            "importance": "too few trials" if share is None else f"{share:.2f}",
            "best trial": str(sweep.best["point"].get(key, "")),
        }
        for key, share in sweep.importances.items()
    ]


def curve_rows(run: Run) -> list[TableRow]:
    """Some validations of a run, evenly spread, the last among them."""
    lines = run.metrics.get("validation", [])
    count = min(CHECKPOINTS, len(lines))
    chosen = [lines[(i + 1) * len(lines) // count - 1] for i in range(count)]
    rows = []
    for line in chosen:
        row = {"run": run.label, "step": f"{line['step']:,}"}
        for axis in list(AXES)[1:]:
            at = run.spent.at(line["step"], axis) if run.spent else None
            row[AXES[axis]] = "" if at is None else spent_words(at, axis)
        for name, (title, digits) in SCORES.items():
            if name in line:
                value = line[name]
                row[title] = "not finite" if value is None else number(value, digits)
        rows.append(row)
    return rows


def spent_words(value: float, axis: str) -> str:
    """Of tokens, seconds or FLOPs."""
    if axis == "seconds":
        return duration(value)
    return f"{value:.3g}" if axis == "flops" else f"{value:,.0f}"


def p_value(value: float | None) -> str:
    """To four places."""
    return "too few" if value is None else f"{value:.4f}"


def title_of(name: str) -> str:
    """Of a score."""
    return SCORES.get(name, (name.replace("_", " "),))[0]
