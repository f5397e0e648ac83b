"""Effective context lengths that were computed of the runs of a report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from analysis.report.runs import Run, read_object
from utils.errors import UserError
from utils.paths import canonical_path

NAME = "effective-context.json"  # of analysis/effective_context/__main__.py


@dataclasses.dataclass(frozen=True)
class Context:
    """How far a run reaches, in tokens.

    Attributes:
      lengths: by ratio r of hardest places; "at least" where more may still help.
      first, last: context in tokens and the loss with it, least and most.
    """

    run: int
    lengths: dict[str, str]
    first: tuple[int, float]
    last: tuple[int, float]


def contexts(runs: Sequence[Run], files: Sequence[str] = ()) -> list[Context]:
    """Of the runs that a file tells of.

    Args:
      files: of effective_context.py, or the folders they are in; looked for as well
        are those in a run's directory and in the one above it.

    Raises UserError for a file that is none.
    """
    given = [_file(Path(name).expanduser()) for name in files]
    near = [
        folder / NAME
        for run in runs
        for folder in (run.path, run.path / "plots", run.path.parent)
    ]
    found: dict[int, Context] = {}
    for path in dict.fromkeys([*given, *near]):
        if path.exists():
            for number, context in _read(path, runs):
                found.setdefault(number, context)
    return [found[number] for number in sorted(found)]


def _file(path: Path) -> Path:
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"--context={path}: there is no such file")
    return path


def _read(path: Path, runs: Sequence[Run]) -> list[tuple[int, Context]]:
    figures = read_object(path, "lengths", "runs")
    places = {canonical_path(run.path): number for number, run in enumerate(runs)}
    lengths, found = figures["lengths"], []
    for name, told in figures["runs"].items():
        number = places.get(canonical_path(Path(name)))
        if number is None:
            continue
        reach = {
            ratio: f"{'at least ' * one['is_longest']}{one['length']}"
            for ratio, one in told["recl"].items()
        }
        ends = [(lengths[i], told["loss"][i]) for i in (0, -1)]
        found.append((number, Context(number, reach, *ends)))
    return found
