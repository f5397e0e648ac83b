"""Log probabilities of tokens as an HTML page that loads no other file.

The view and the selected token are in the URL, #view=difference&line=0&token=3.
"""

from pathlib import Path

import numpy as np

from analysis.formatting import render_template
from analysis.token_scores.comparison import Comparison
from analysis.token_scores.scoring import ScoredLine, ScoredRun
from analysis.token_scores.tokens import show
from data.tokenizers.base import UNK
from utils import strict_json

TEMPLATE = Path(__file__).with_name("page.html.jinja")
NUM_DIGITS = 3  # of log probabilities, in nats
LOWEST = -10  # nats: the end of the scale of log probabilities
SCALES = (0.5, 1, 2, 4, 8)  # nats: ends of the scale of differences
MOST_SHARE = 0.95  # of the differences are within the scale


def page_content(
    runs: list[ScoredRun], comparison: Comparison | None, top: int
) -> dict:
    """Returns the data of the page, as JSON values.

    Texts of tokens are indices in `labels`, since most occur many times.
    """
    labels: dict[str, int] = {}
    content = {
        "title": " and ".join(run.name for run in runs),
        "lowest": LOWEST,
        "top": top,
        "runs": [run_content(run, labels) for run in runs],
        "sources": [line.source for line in runs[0].lines],
    }
    if comparison is not None:
        differences = comparison.differences
        content |= {
            "unit": comparison.unit,
            "scale": difference_scale(np.concatenate(differences)),
            "differences": [_round(one) for one in differences],
        }
        if comparison.unit == "word":
            content["spans"] = comparison.spans
    return content | {"labels": list(labels)}


def run_content(run: ScoredRun, labels: dict[str, int]) -> dict:
    """Returns a run's data, and adds the texts of its tokens to `labels`."""
    return {
        "name": run.name,
        "context": run.context,
        "totals": run.totals,
        "lines": [line_content(run, line, labels) for line in run.lines],
    }


def line_content(run: ScoredRun, line: ScoredLine, labels: dict[str, int]) -> dict:
    """Returns a line's data; `top` has K pairs of label and log probability a token."""

    def index(text: str) -> int:
        return labels.setdefault(show(text), len(labels))

    scores = line.scores
    names = run.tokenizer.pieces(scores.top_ids.flatten())
    tops = zip(map(index, names), _round(scores.top_log_probs.flatten()), strict=True)
    flat = [value for pair in tops for value in pair]
    width = 2 * scores.top_ids.shape[1]
    return {
        "pieces": [index(piece.text) for piece in line.pieces],
        "names": [index(name) for name in run.tokenizer.pieces(line.ids)],
        "gaps": [i for i, piece in enumerate(line.pieces) if piece.has_gap],
        "unknown": [i for i, number in enumerate(line.ids) if number == UNK],
        "log_probs": _round(scores.log_probs),
        "ranks": scores.ranks.tolist(),
        "top": [flat[i : i + width] for i in range(0, len(flat), width)],
    }


def difference_scale(differences: np.ndarray) -> float:
    """Returns the end of the scale that holds MOST_SHARE of the differences."""
    size = np.quantile(np.abs(differences), MOST_SHARE)
    return next((scale for scale in SCALES if size <= scale), SCALES[-1])


def render_page(content: dict) -> str:
    """Renders the page; its JSON cannot close the script element."""
    document = strict_json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    document = document.replace("<", "\\u003c")
    return render_template(TEMPLATE, document=document, **summary(content))


def summary(content: dict) -> dict:
    """Returns what the page tells without a script: totals of the runs."""
    return {
        "title": content["title"],
        "runs": [
            {key: run[key] for key in ("name", "context", "totals")}
            for run in content["runs"]
        ],
        "unit": content.get("unit"),
        "lowest": content["lowest"],
        "scale": content.get("scale"),
    }


def _round(values: np.ndarray) -> list[float]:
    return (np.asarray(values, float).round(NUM_DIGITS) + 0.0).tolist()
