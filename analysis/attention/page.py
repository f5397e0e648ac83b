"""Attention maps of a model as one HTML page that loads no other file.

Users pick text, layer and head, and hover over a word. The selection is in the URL,
#text=0&layer=1&head=2&word=3, so that it can be linked to; `head` may be mean, and all
numbers count from 0.
"""

import json
from pathlib import Path

import jinja2

from analysis.attention.extract import AttentionMap, TextAttention

TEMPLATE = "page.html.jinja"
MAX_COLUMNS = 64  # of a longer memory, the nearest
UNIT = 1000  # weights are integers, in thousandths, which keeps the page small


def content(title: str, texts: list[TextAttention]) -> dict:
    """Returns the data of the page, as JSON values."""
    return {
        "title": title,
        "unit": UNIT,
        "texts": [
            {"title": text.title, "maps": [map_content(one) for one in text.maps]}
            for text in texts
        ],
    }


def map_content(attention: AttentionMap) -> dict:
    """Returns a map's data; `weights` [H][T][S] and `distances` in thousandths."""
    weights = attention.weights[..., -MAX_COLUMNS:] * UNIT
    return {
        "layer": attention.layer,
        "kind": attention.kind,
        "rows": attention.rows,
        "columns": attention.columns[-MAX_COLUMNS:],
        "weights": weights.round().astype(int).tolist(),
        "entropies": attention.entropies.round(3).tolist(),
        "distances": (attention.weights_by_distance * UNIT).round(2).tolist(),
    }


def render(data: dict) -> str:
    """Renders the page; its JSON cannot close the script element."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    document = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    document = document.replace("<", "\\u003c")
    template = environment.get_template(TEMPLATE)
    return template.render(title=data["title"], document=document)
