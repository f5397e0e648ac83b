"""Knockouts of a run as a page, as Markdown, as JSON values and as lines of text."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from analysis.attention import render
from analysis.formatting import render_template
from analysis.knockout.effects import Effect, effect_content
from analysis.knockout.evaluation import Subject
from analysis.report.tables import title_and_decimals
from utils import strict_json
from utils.text_tables import align_columns

TEMPLATE = Path(__file__).with_name("page.html.jinja")
PAGE, NUMBERS, TABLE = "knockout.html", "knockout.json", "knockout.md"
ATTENTION_PAGE, ATTENTION_NUMBERS = "attention.html", "attention.json"
NUM_PRINTED = 10  # knockouts on the terminal
NUM_RANKED = 25  # rows of the ranking that the page shows at first
BAR_WIDTH = 220  # pixels
MAX_OPACITY = 0.55  # of a cell's colour, on which text is legible
KIND_TITLES = {
    "layers": "Layers",
    "distance": "Bands of distance",
    "alignment": "Weights of the attention to the annotations",
}
UNITS = {"words": "word", "examples": "text", "tokens": "token"}


def result_content(
    subject: Subject, effects: Sequence[Effect], whole, width: int, context: dict | None
) -> dict:
    """Returns the content of knockout.json.

    Args:
      effects: effects of all knockouts, in order of their size.
      whole: the outcome without a knockout.
      context: as `measure_context` returns it.
    """
    run = subject.run
    names = effects[0].scores if effects else ()
    return {
        "title": f"{run.experiment.cfg.model.name} at step {run.step}",
        "task": run.experiment.cfg.task,
        "split": subject.split,
        "blocks": len(whole.blocks.total),
        "unit": UNITS[subject.task.unit],
        "weight": int(whole.blocks.weight.sum()),
        "width": width,
        "whole": {"loss": whole.blocks.mean} | {n: whole.scores[n] for n in names},
        "knockouts": [effect_content(effect) for effect in effects],
        "context": context,
    }


def write_report(content: dict, output: Path) -> list[Path]:
    """Writes page, numbers and table to a folder, and links an attention page there."""
    output.mkdir(parents=True, exist_ok=True)
    layers = link_attention_page(content["title"], output)
    paths = [output / name for name in (PAGE, NUMBERS, TABLE)]
    page = render_template(TEMPLATE, **page_values(content, layers))
    document = strict_json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    for path, text in zip(paths, (page, document, markdown(content)), strict=True):
        path.write_text(text, encoding="utf8")
    return paths


def link_attention_page(title: str, output: Path) -> list[str]:
    """Links this page from the attention page of the same model, if there is one.

    Returns the layers of that page's first text; none without a page.
    """
    path = output / ATTENTION_NUMBERS
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf8"))
    if content["title"] != title:
        return []
    page = render.render_page(content, knockout_page=PAGE)
    (output / ATTENTION_PAGE).write_text(page, encoding="utf8")
    return [one["layer"] for one in content["texts"][0]["maps"]]


# --- Text ---


def format_table(content: dict, number: int = NUM_PRINTED) -> str:
    """Formats the largest effects as a table for a terminal."""
    rows = [header(content), *map(row_cells, content["knockouts"][:number])]
    return "\n".join(align_columns(rows, "<" + ">" * (len(rows[0]) - 1)))


def markdown(content: dict) -> str:
    """Formats all effects, and the context lengths, as Markdown."""
    rows = [header(content), *map(row_cells, content["knockouts"])]
    lines = [f"# Knockouts of {content['title']}", "", summary(content), ""]
    lines += _markdown_table(rows)
    if content["context"]:
        lines += ["", "## Effective context length, tokens", ""]
        lines += _markdown_table(context_rows(content["context"]))
        lines += ["", closeness(content["context"])]
    return "\n".join(lines) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]


def summary(content: dict) -> str:
    """Returns a sentence with the split and the scores of the whole model."""
    whole = content["whole"]
    scores = [f"loss {whole['loss']:.4f} nats per {content['unit']}"]
    for name, value in whole.items():
        if name != "loss":
            title, decimals = title_and_decimals(name)
            scores.append(f"{title} {value:.{decimals}f}")
    return (
        f"Split {content['split']}, {content['weight']} {content['unit']}s; "
        f"the whole model: {', '.join(scores)}."
    )


def header(content: dict) -> list[str]:
    """Returns the titles of the columns of a ranking."""
    names = [name for name in content["whole"] if name != "loss"]
    return [
        *("switched off", "loss", "change", "95% interval"),
        *(f"change of {title_and_decimals(name)[0]}" for name in names),
    ]


def row_cells(one: dict) -> list[str]:
    """Returns the cells of a knockout in a ranking."""
    loss = one["loss"]
    cells = [
        one["name"],
        f"{loss['value']:.4f}",
        f"{loss['change']:+.4f}",
        format_interval(loss),
    ]
    for name, score in one["scores"].items():
        decimals = title_and_decimals(name)[1]
        cell = "—"
        if "change" in score:
            cell = f"{score['change']:+.{decimals}f}"
        cells.append(f"{cell} {format_interval(score, decimals)}".strip())
    return cells


def format_interval(score: dict, decimals: int = 4) -> str:
    """Formats a 95% interval; empty without one, of too few blocks."""
    if "low" not in score:
        return ""
    return f"[{score['low']:+.{decimals}f}, {score['high']:+.{decimals}f}]"


def closeness(context: dict) -> str:
    """Returns a sentence with the context that the whole model's perplexity needs."""
    percent = f"{100 * context['threshold']:g}%"
    length = context["within"]
    if length is None:
        longest = context["lengths"][-1]
        return (
            f"Even with a context of {longest} tokens in each attention, perplexity is "
            f"not within {percent} of the whole model's."
        )
    return (
        f"With a context of {length} tokens or more in each attention, perplexity is "
        f"within {percent} of the whole model's."
    )


def context_rows(context: dict) -> list[list[str]]:
    """Returns a table of context lengths with a column for each ratio r."""
    rows = [["", *(f"r = {ratio}" for ratio in context["causal"])]]
    titles = {"causal": "attention cut (causal)", "recl": "text cut (RECL)"}
    for key, title in titles.items():
        cells = [
            f"{'≥ ' if one['is_longest'] else ''}{one['length']}"
            for one in context[key].values()
        ]
        rows.append([title, *cells])
    return rows


# --- Page ---


def page_values(content: dict, attention_layers: Sequence[str]) -> dict:
    """Returns the values of the page's template.

    Args:
      attention_layers: layers of the attention page that is linked to; none: no page.
    """
    ranking = content["knockouts"]
    bars = bar_rows(ranking)
    context = content["context"]
    return {
        "title": content["title"],
        "summary": summary(content),
        "unit": content["unit"],
        "attention_page": ATTENTION_PAGE if attention_layers else None,
        "heat": heat_rows(ranking, attention_layers),
        "groups": {
            title: bar_rows([one for one in _in_order(ranking) if one["kind"] == kind])
            for kind, title in KIND_TITLES.items()
        },
        "header": header(content),
        "ranking": bars[:NUM_RANKED],
        "rest": bars[NUM_RANKED:],
        "context": context,
        "context_rows": context_rows(context) if context else [],
        "closeness": closeness(context) if context else "",
        "context_chart": context_chart(context, content["whole"]["loss"])
        if context
        else None,
        "bar_width": BAR_WIDTH,
    }


def _in_order(knockouts: Sequence[dict]) -> list[dict]:
    """Sorts knockouts by site and distance instead of their effect."""

    def key(one):
        part = one["part"]
        ends = tuple(part) if isinstance(part, list | tuple) else ()
        return _layer_order(one["site"]), ends

    return sorted(knockouts, key=key)


def heat_rows(knockouts: Sequence[dict], attention_layers: Sequence[str]) -> list[dict]:
    """Returns a row of cells for each attention with heads, in the model's order."""
    heads = [one for one in knockouts if one["kind"] == "heads"]
    largest = max((abs(one["loss"]["change"]) for one in heads), default=0) or 1
    rows: dict[str, dict[int, dict]] = {}
    for one in sorted(heads, key=lambda one: (_layer_order(one["site"]), one["part"])):
        change, href = one["loss"]["change"], None
        if one["site"] in attention_layers:
            layer = attention_layers.index(one["site"])
            href = f"{ATTENTION_PAGE}#text=0&layer={layer}&head={one['part'] - 1}"
        rows.setdefault(one["site"], {})[one["part"]] = {
            "title": f"{one['name']}: {change:+.4f} {format_interval(one['loss'])}",
            "text": f"{change:+.3f}",
            "opacity": f"{MAX_OPACITY * abs(change) / largest:.3f}",
            "sign": "worse" if change > 0 else "better",
            "is_certain": _is_certain(one),
            "href": href,
        }
    width = max((max(cells) for cells in rows.values()), default=0)
    return [
        {"site": site, "cells": [cells.get(h) for h in range(1, width + 1)]}
        for site, cells in rows.items()
    ]


def _layer_order(site: str) -> tuple:
    """Sorts encoder before decoder, and layers by number."""
    parts = re.split(r"(\d+)", site)
    return not site.startswith("encoder"), parts[::2], list(map(int, parts[1::2]))


def bar_rows(knockouts: Sequence[dict]) -> list[dict]:
    """Returns the cells of knockouts, each with a bar on one common scale."""
    ends = [0.0]
    for one in knockouts:
        loss = one["loss"]
        ends += [loss["change"], loss.get("low", 0.0), loss.get("high", 0.0)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round((value - low) / span * (BAR_WIDTH - 8) + 4, 1)

    rows = []
    for one in knockouts:
        loss = one["loss"]
        start, end = sorted((place(0.0), place(loss["change"])))
        rows.append(
            {
                "cells": row_cells(one),
                "zero": place(0.0),
                "start": start,
                "width": max(round(end - start, 1), 1.0),
                "whisker": (place(loss["low"]), place(loss["high"]))
                if "low" in loss
                else None,
                "sign": "worse" if loss["change"] > 0 else "better",
                "is_certain": _is_certain(one),
            }
        )
    return rows


def _is_certain(one: dict) -> bool:
    loss = one["loss"]
    return "low" in loss and (loss["low"] > 0 or loss["high"] < 0)


def context_chart(context: dict, whole_loss: float) -> dict:
    """Returns the points of the loss against the context of attention, in pixels."""
    lengths, losses = context["lengths"], context["loss"]
    low, high = min(*losses, whole_loss), max(*losses, whole_loss)
    span = (high - low) or 1.0

    def x(length: float) -> float:
        return round(64 + (length / lengths[-1]) * 400, 1)

    def y(loss: float) -> float:
        return round(196 - (loss - low) / span * 176, 1)

    return {
        "points": [
            {"x": x(length), "y": y(loss), "length": length, "loss": f"{loss:.4f}"}
            for length, loss in zip(lengths, losses, strict=True)
        ],
        "whole": y(whole_loss),
        "ticks": [{"y": y(value), "text": f"{value:.3f}"} for value in (low, high)],
    }
