"""A comparison of runs as one HTML page that needs nothing beside itself.

The same runs give the same page, byte for byte: there is no clock in it.
"""

from pathlib import Path

import jinja2

from analysis.report.comparison import Comparison
from analysis.report.content import Content
from analysis.report.tables import importance_rows, not_tested, pair_rows, seed_rows

TEMPLATE = "page.html.jinja"


def render(content: Content) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        content=content,
        maps=attention_maps(content.comparison),
        pairs=pair_rows(content.pairs),
        not_tested=not_tested(content.pairs),
        seeds=seed_rows(content.systems) if content.has_seeds else [],
        importances=[importance_rows(sweep) for sweep in content.sweeps],
    )


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
