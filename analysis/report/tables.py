"""Tables of a report as text, and its learning curves."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from analysis.report.charts import Chart, Point, Series, make_chart, round_ticks
from analysis.report.comparison import Comparison, System, SystemPair
from analysis.report.runs import UNITS, Run, axes
from analysis.report.score_cards import ScoreCard
from analysis.report.sweep_results import SweepResults
from utils.text_tables import align_columns

TableRow = dict[str, str]  # text by column title

SCORES = {  # title and number of decimals by name
    "bleu": ("BLEU", 1),
    "bleu_moses_lowercase": ("BLEU, Moses, lower case", 1),
    "bleu_compound_split": ("BLEU, compounds split", 1),
    "chrf": ("chrF", 1),
    "ter": ("TER", 1),
    "rouge1": ("ROUGE-1", 2),
    "rouge2": ("ROUGE-2", 2),
    "rougeL": ("ROUGE-L", 2),
    "rougeLsum": ("ROUGE-Lsum", 2),
    "exact_match": ("exact match, %", 1),
    "token_f1": ("F1 of words", 2),
    "answer_accuracy": ("answers, %", 1),
    "entity_f1": ("F1 of entities", 2),
    "dialogue_accuracy": ("whole dialogues, %", 1),
    "f1": ("F1", 2),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "strict_f1": ("F1, strict", 2),
    "strict_precision": ("precision, strict", 2),
    "strict_recall": ("recall, strict", 2),
    "official_f1": ("macro-F1, official", 2),
    "micro_f1": ("micro-F1", 2),
    "micro_precision": ("micro-precision", 2),
    "micro_recall": ("micro-recall", 2),
    "accuracy": ("accuracy, %", 2),
    "macro_f1": ("macro-F1", 2),
    "matthews": ("Matthews", 2),
    "intent_accuracy": ("intent accuracy, %", 2),
    "sentence_accuracy": ("sentence accuracy, %", 2),
    "pearson": ("Pearson", 2),
    "spearman": ("Spearman", 2),
    "mean_squared_error": ("mean squared error", 3),
    "token_accuracy": ("tag accuracy, %", 2),
    "masked_accuracy": ("masked accuracy, %", 2),
    "next_sentence_accuracy": ("next-sentence accuracy, %", 2),
    "next_sentence_loss": ("next-sentence loss", 3),
    "loss": ("loss", 3),
    "perplexity": ("perplexity", 2),
    "bits_per_token": ("bits/token", 3),
    "word_perplexity": ("word perplexity", 2),
    "bits_per_character": ("bits/character", 3),
    "bits_per_byte": ("bits/byte", 3),
}
INTERVALS = {  # titles
    "bleu": "95% interval",
    "loss": "95% interval of the loss",
    **{
        name: f"95% interval of {SCORES[name][0].removesuffix(', %')}"
        for name in (
            *("f1", "official_f1", "micro_f1", "accuracy", "pearson"),
            *("intent_accuracy", "masked_accuracy", "next_sentence_accuracy"),
            *("rouge1", "rouge2", "rougeL", "token_f1", "answer_accuracy"),
            *("entity_f1", "dialogue_accuracy"),
        )
    },
}
COSTS = (  # titles
    *("parameters", *(f"{unit}/s" for unit in UNITS), "mfu", "peak memory, MiB"),
    *("training FLOPs", "training time", "steps", "scored step"),
)
BASELINES = {
    "copy": "copy the source",
    "lead_10": "first 10 words",
    "most_frequent_target": "most frequent target",
    "nearest_neighbour": "nearest neighbour",
    "unigram": "unigram",
    "majority": "most frequent class",
    "most_frequent_tag": "most frequent tag",
    "mean": "mean grade",
    "naive_bayes": "naive Bayes",
}
MAX_CURVE_ROWS = 8  # validations listed of a learning curve


POWERS = {  # titles of an axis in powers of 1000
    **{
        unit: [f"training {unit}, {n}" for n in ("thousands", "millions", "billions")]
        for unit in UNITS
    },
    "flops": [f"training {prefix}FLOPs" for prefix in "KMGTPEZ"],
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table of scores."""

    label: str
    run: int | None  # its index; None for a baseline
    cells: TableRow  # text by title, the same titles in every row

    @property
    def named_cells(self) -> TableRow:
        return {"model": self.label, **self.cells}

    def select(self, is_wanted: Callable[[str], bool]) -> "Row":
        """Returns the row with some of its columns."""
        cells = {title: cell for title, cell in self.cells.items() if is_wanted(title)}
        return dataclasses.replace(self, cells=cells)


def score_rows(comparison: Comparison) -> list[Row]:
    """Returns the runs, then the baselines, without empty columns."""
    cards = comparison.cards
    other = {name for card in cards for name in card.values} - set(SCORES)
    names = [*SCORES, *sorted(other)]
    rows = [
        Row(run.label, number, run_cells(run, cards[number], names))
        for number, run in enumerate(comparison.runs)
    ]
    # Runs may count other units, and one without a log counts none.
    blank = dict.fromkeys((title for row in rows for title in row.cells), "")
    rows = [dataclasses.replace(row, cells=blank | row.cells) for row in rows]
    for label, values in baselines(comparison):
        rows.append(Row(label, None, blank | score_cells(values, names)))
    filled = {title for title in blank if any(row.cells[title] for row in rows)}
    return [row.select(lambda title: title in filled) for row in rows]


def run_cells(run: Run, card: ScoreCard, names: Sequence[str]) -> TableRow:
    """Formats the scores and costs of a run, by title."""
    memory = None if run.peak_memory is None else run.peak_memory / 2**20
    costs = {
        "parameters": (run.about.get("parameters"), "{:,}".format),
        f"{run.unit}/s": (run.median(f"{run.unit}_per_second"), "{:,.0f}".format),
        "mfu": (run.median("mfu"), "{:.0%}".format),
        "peak memory, MiB": (memory, "{:,.0f}".format),
        "training FLOPs": (run.cost_at(run.steps, "flops"), "{:.2e}".format),
        "training time": (run.seconds, format_duration),
        "steps": (run.steps, "{:,}".format),
        "scored step": (card.content["step"], "{:,}".format),
    }
    return score_cells(card.values, names, card.content["scores"]) | {
        title: "" if value is None else formatter(value)
        for title, (value, formatter) in costs.items()
    }


def score_cells(
    scores: dict[str, float], names: Sequence[str], intervals: dict | None = None
) -> TableRow:
    """Formats scores by title, blank where one is missing; `intervals` are by score."""
    cells = {}
    for name in names:
        cells[title_of(name)] = format_score(scores.get(name), name)
        if name in INTERVALS:
            interval = (intervals or {}).get(name, {})
            ends = [format_score(interval.get(end), name) for end in ("low", "high")]
            cells[INTERVALS[name]] = " to ".join(ends) if all(ends) else ""
    return cells


def baselines(comparison: Comparison) -> list[tuple[str, dict[str, float]]]:
    """Returns labels and scores; a baseline that differs between runs names them."""
    names = {name for card in comparison.cards for name in card.baselines}
    rows = []
    for name in [*BASELINES, *sorted(names - set(BASELINES))]:
        by_run = [
            tuple(sorted(card.baselines.get(name, {}).items()))
            for card in comparison.cards
        ]
        for scores in filter(None, dict.fromkeys(by_run)):
            label = BASELINES.get(name, name.replace("_", " "))
            if len(set(by_run)) > 1:
                runs = zip(comparison.runs, by_run, strict=True)
                label += f" ({', '.join(run.label for run, x in runs if x == scores)})"
            rows.append((label, dict(scores)))
    return rows


def format_console_table(rows: Sequence[Row]) -> str:
    """Formats the rows for a console: labels aligned left, numbers right."""
    head = list(rows[0].named_cells)
    table = [head, *(list(row.named_cells.values()) for row in rows)]
    return "\n".join(align_columns(table, "<" + ">" * (len(head) - 1)))


def seed_rows(systems: Sequence[System]) -> list[TableRow]:
    """Formats mean and standard deviation over the seeds, a row for each system."""
    present = dict.fromkeys(name for system in systems for name in system.scores)
    names = dict.fromkeys([*(name for name in SCORES if name in present), *present])
    rows = []
    for system in systems:
        row = {"system": system.label, "seeds": ", ".join(map(str, system.seeds))}
        for name in names:
            cells = [format_score(x, name) for x in system.scores.get(name, ())]
            row[title_of(name)] = " ± ".join(filter(None, cells))
        rows.append(row)
    return rows


def pair_rows(pairs: Sequence[SystemPair]) -> list[TableRow]:
    """Formats a row for each tested score; the first of a pair names the systems."""
    rows = []
    for pair in pairs:
        systems = f"{pair.first} and {pair.second}"
        for name, test in pair.tested.items():
            title, digits = title_and_decimals(name)
            digits, bootstrap = digits + 1, test.bootstrap
            row = {
                "systems": systems,
                "score": title,
                "difference": f"{test.difference:+.{digits}f}",
                "bootstrap p": "too few" if bootstrap is None else f"{bootstrap:.4f}",
                "randomisation p": f"{test.randomisation:.4f}",
                "95% interval": " to ".join(f"{x:+.{digits}f}" for x in test.interval),
            }
            rows.append(row)
            systems = ""
    return rows


def untested_lines(pairs: Sequence[SystemPair]) -> list[str]:
    """Formats each reason why scores were not tested, with the pairs it applies to."""
    reasons: dict[str, list[str]] = {}
    for pair in pairs:
        for reason in pair.left_out:
            reasons.setdefault(reason, []).append(f"{pair.first} and {pair.second}")
    return [
        f"Not tested ({'; '.join(names) if len(names) < len(pairs) else 'all pairs'}): "
        f"{reason}."
        for reason, names in reasons.items()
    ]


def importance_rows(sweep: SweepResults) -> list[TableRow]:
    """Formats the importance of each key that the trials vary."""
    return [
        {
            "key": key,
            "importance": "too few trials" if share is None else f"{share:.2f}",
            "best trial": str(sweep.best["point"].get(key, "")),
        }
        for key, share in sweep.importances.items()
    ]


def curve_rows(run: Run) -> list[TableRow]:
    """Formats some validations of a run, evenly spaced and with the last one."""
    lines = run.metrics.get("validation", [])
    count = min(MAX_CURVE_ROWS, len(lines))
    chosen = [lines[(i + 1) * len(lines) // count - 1] for i in range(count)]
    rows = []
    for line in chosen:
        row = {"run": run.label, "step": f"{line['step']:,}"}
        for axis, title in list(axes(run.unit).items())[1:]:
            cost = run.cost_at(line["step"], axis)
            row[title] = "" if cost is None else format_cost(cost, axis)
        for name in filter(line.__contains__, SCORES):
            row[title_of(name)] = format_score(line[name], name) or "not finite"
        rows.append(row)
    return rows


def title_and_decimals(score: str) -> tuple[str, int]:
    """Returns the column title of a score and its number of decimals."""
    return SCORES.get(score, (score.replace("_", " "), 3))


def title_of(score: str) -> str:
    """Returns the column title of a score."""
    return title_and_decimals(score)[0]


def format_score(value: float | None, score: str) -> str:
    """Formats a score with its number of decimals."""
    digits = title_and_decimals(score)[1]
    return "" if value is None else format_number(value, digits)


def format_number(value: float, digits: int) -> str:
    """Formats with a number of decimals; from a million on with three digits in all."""
    is_huge = math.isfinite(value) and abs(value) >= 1e6
    return f"{value:.2e}" if is_huge else f"{value:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """Formats seconds such as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_cost(value: float, axis: str) -> str:
    """Formats tokens, seconds or FLOPs of training."""
    if axis == "seconds":
        return format_duration(value)
    return f"{value:.3g}" if axis == "flops" else f"{value:,.0f}"


def curve_points(run: Run, metric: str, axis: str) -> list[Point]:
    """Returns a metric of the validation split against one of `axes`."""
    points = [
        (run.cost_at(line["step"], axis), line[metric])
        for line in run.metrics.get("validation", [])
        if line.get(metric) is not None
    ]
    return [(x, value) for x, value in points if x is not None]


def learning_curves(
    runs: Sequence[Run], metric: str, axis: str = "step"
) -> Chart | None:
    """Charts a metric of the validation split; None where no run has it."""
    curves = [curve_points(run, metric, axis) for run in runs]
    largest = max((x for curve in curves for x, _ in curve), default=0)
    size, x_title = axis_unit(round_ticks(0, largest)[-1], axis)
    series = [
        Series(number, run.label, [(x / size, y) for x, y in curve])
        for number, (run, curve) in enumerate(zip(runs, curves, strict=True))
    ]
    return make_chart(curve_title(metric, runs[0].unit), x_title, series, x_start=0)


def curve_title(metric: str, unit: str) -> str:
    """Returns the title of a chart; a loss may be of classes or of grades."""
    if metric != "loss":
        return f"validation {title_of(metric)}"
    is_tokens = unit == "tokens"
    return f"validation loss{', nats' * is_tokens} per {unit.removesuffix('s')}"


def axis_unit(largest: float, axis: str) -> tuple[float, str]:
    """Returns the unit that keeps an axis's labels short, and the axis's title."""
    titles = POWERS.get(axis)
    if titles is None or largest < 1000:
        return 1.0, axes(axis if axis in UNITS else UNITS[0])[axis]
    power = min(int(math.log10(largest * (1 + 1e-9)) // 3), len(titles))
    return 1000.0**power, titles[power - 1]
