"""A comparison of runs as one HTML page that needs nothing beside itself.

The same runs give the same page, byte for byte: there is no clock in it.
"""

from pathlib import Path

import jinja2

from analysis.comparison import Comparison, device
from analysis.curves import learning_curves
from analysis.runs import Run
from analysis.score_table import score_rows

TEMPLATE = "report.html.jinja"
CURVES = {"loss": "validation loss, nats a token", "bleu": "validation BLEU"}


def render(comparison: Comparison) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = comparison.runs
    charts = [learning_curves(runs, name, title) for name, title in CURVES.items()]
    return environment.get_template(TEMPLATE).render(
        comparison=comparison,
        rows=score_rows(comparison),
        charts=[chart for chart in charts if chart],
        origins=[origin(run) for run in runs],
        maps=attention_maps(comparison),
    )


def origin(run: Run) -> dict[str, str]:
    """Where a run's numbers come from."""
    about = run.about
    corpus = about.get("corpus", {})
    commit = about.get("commit", "")
    return {
        "directory": str(run.path),
        "corpus": f"{run.config['data']['name']} {corpus.get('version', '')}".strip(),
        "model": run.config["model"]["name"],
        "seed": str(run.config["seed"]),
        "commit": commit[:12] + (" and changes" if commit.endswith("+") else ""),
        "device": device(run),
        "jax": about.get("versions", {}).get("jax", ""),
    }


def attention_maps(comparison: Comparison) -> list[dict]:
    """A heat map of each run that has one."""
    return [
        {
            "run": number,
            "label": run.label,
            "caption": caption(scored.attention),
            "source": scored.attention["source"],
            "rows": [
                (piece, [f"{weight:.2f}" for weight in weights])
                for piece, weights in zip(
                    scored.attention["target"], scored.attention["weights"], strict=True
                )
            ],
        }
        for number, (run, scored) in enumerate(
            zip(comparison.runs, comparison.scored, strict=True)
        )
        if scored.attention
    ]


def caption(attention: dict) -> str:
    """The layer, and what was chosen and averaged to get it."""
    text = attention["layer"]
    if attention["layers"] > 1:
        text += f", sharpest of {attention['layers']} layers"
    if attention["heads"] > 1:
        text += f", mean of {attention['heads']} heads"
    return text
