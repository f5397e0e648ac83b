"""Table of published figures, with the runs kept in docs/results/ beside them.

`docs/results/published.toml` names the figures, and explains its keys.
"""

import dataclasses
import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path

from analysis.report.runs import Run, read_run
from analysis.report.score_cards import seed_statistics
from analysis.report.tables import TableRow
from models.registry import ARCHITECTURES
from utils.errors import UserError

NOT_TRAINED = "not trained yet"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A score, and the published values of it.

    Attributes:
      title: what is scored.
      score: key of a score card.
      rung: rung of scripts/reproduce.sh, and the folder of its kept runs.
      published: `model` (an architecture or "any"), `value` and `source` of each.
      digits: number of decimals of the published values.
      lower: whether lower is better.
    """

    title: str
    score: str
    rung: str
    published: Sequence[dict]
    digits: int
    split: str = "test"
    lower: bool = False

    def is_as_good(self, value: float, goal: float) -> bool:
        """Returns whether a value, rounded as the published ones, is as good."""
        value = round(value, self.digits)
        return value <= goal if self.lower else value >= goal


def read_figures(path: Path) -> list[Figure]:
    """Reads the figures of a file. Raises UserError where one lacks a key."""
    try:
        with path.open("rb") as file:
            return [Figure(**figure) for figure in tomllib.load(file)["figures"]]
    except (TypeError, KeyError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} is no list of published figures: {error}") from error


def published_rows(path: Path) -> list[TableRow]:
    """Returns a row for each figure of a file, beside which the runs are kept."""
    return [figure_row(figure, path.parent) for figure in read_figures(path)]


def figure_row(figure: Figure, folder: Path) -> TableRow:
    """Formats a figure, the scores of each architecture, and which are reached."""
    row = {"figure": figure.title, "published": format_published(figure)}
    values, cells = {}, {}
    for model in ARCHITECTURES:
        runs = kept_runs(folder / figure.rung, model)
        if runs:
            values[model], cells[model] = score_cell(runs, figure)
    row |= {model: cells.get(model, "") for model in ARCHITECTURES}
    row["reached"] = describe_success(figure, values)
    return row | {"rung": figure.rung}


def format_published(figure: Figure) -> str:
    """Formats the published values with the architectures and sources."""
    parts = []
    for one in figure.published:
        model = "" if one["model"] == "any" else f"{one['model']}, "
        parts.append(f"{one['value']} ({model}{one['source']})")
    return "; ".join(parts)


def kept_runs(folder: Path, name: str) -> list[Run]:
    """Returns the kept runs NAME and NAME-SEED of a folder."""
    paths = [folder / name, *folder.glob(f"{name}-[0-9]*")]
    return [read_run(str(path)) for path in sorted(paths) if path.is_dir()]


def score_cell(runs: Sequence[Run], figure: Figure) -> tuple[float, str]:
    """Returns the mean of runs that differ in their seed, and its cell.

    The cell has the deviation, the number of seeds and the median minutes of training.
    """
    cards = [run.results[figure.split] for run in runs]
    mean, deviation = seed_statistics(cards)[figure.score]
    text = f"{mean:.{figure.digits}f}"
    if deviation is not None:
        text += f" ± {deviation:.{figure.digits}f}"
    minutes = statistics.median(run.seconds for run in runs) / 60
    seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    return mean, f"{text} ({seeds}, {minutes:.0f} min)"


def describe_success(figure: Figure, values: dict[str, float]) -> str:
    """Says of each published value whether its architecture reaches it."""
    if not values:
        return NOT_TRAINED
    parts = []
    for one in figure.published:
        model = one["model"]
        if model == "any":
            model = (min if figure.lower else max)(values, key=values.get)
        if model not in values:
            parts.append(f"{model}: {NOT_TRAINED}")
        elif figure.is_as_good(values[model], one["value"]):
            parts.append(f"{model}: yes")
        else:
            short = abs(one["value"] - round(values[model], figure.digits))
            parts.append(f"{model}: no, by {short:.{figure.digits}f}")
    return "; ".join(parts)
