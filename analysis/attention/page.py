"""Looks of a model as one HTML page that needs nothing beside itself.

A person picks text, layer and head and hovers over a word. What is picked stands in
the address, #text=0&layer=1&head=2&word=3, so that a view can be linked to; `head` may
be mean, and all numbers begin at 0.
"""

import json
from pathlib import Path

import jinja2

from analysis.attention.extract import Look, View

TEMPLATE = "page.html.jinja"
SHOWN = 64  # columns: of a long memory the nearest
UNIT = 1000  # weights are whole numbers of thousandths: a page stays small


def content(title: str, views: list[View]) -> dict:
    """What the page shows, as JSON."""
    return {
        "title": title,
        "unit": UNIT,
        "texts": [
            {"title": view.title, "looks": [look_content(look) for look in view.looks]}
            for view in views
        ],
    }


def look_content(look: Look) -> dict:
    """One layer's; `weights` [H][T][S] and `distances` [H][d - 1] in thousandths."""
    weights = look.weights[..., -SHOWN:] * UNIT
    return {
        "layer": look.layer,
        "kind": look.kind,
        "rows": look.rows,
        "columns": look.columns[-SHOWN:],
        "weights": weights.round().astype(int).tolist(),
        "entropies": look.entropies.round(3).tolist(),
        "distances": (look.distances * UNIT).round(2).tolist(),
    }


def render(found: dict) -> str:
    """The page; its JSON cannot end the element that it stands in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    document = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    document = document.replace("<", "\\u003c")
    template = environment.get_template(TEMPLATE)
    return template.render(title=found["title"], document=document)
