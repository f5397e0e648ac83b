"""Attention maps as an HTML page and as PNG files.

The page loads no other file. Users pick text, layer and head, and hover over a word.
The selection is in the URL, #text=0&layer=1&head=2&word=3, so that it can be linked to;
`head` may be mean, and all numbers count from 0.
"""

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from analysis.attention.extract import (
    AttentionMap,
    SampleMap,
    TextAttention,
    choose_sample,
    sample_map,
)
from analysis.formatting import render_template
from experiment.restore import TrainedRun
from utils import strict_json

TEMPLATE = Path(__file__).with_name("page.html.jinja")
UNIT = 1000  # weights of the page are integers, in thousandths, which keeps it small
PAGE_COLUMNS = 64  # shown on the page; of a longer memory, the nearest
PLOT_COLUMNS = 48  # shown in a picture
CELL = 0.24  # inches

# Fallbacks for characters that the default font lacks, where they are installed.
FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic")


def page_content(title: str, texts: list[TextAttention]) -> dict:
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
    weights = attention.weights[..., -PAGE_COLUMNS:] * UNIT
    return {
        "layer": attention.layer,
        "kind": attention.kind,
        "rows": attention.rows,
        "columns": attention.columns[-PAGE_COLUMNS:],
        "weights": weights.round().astype(int).tolist(),
        "entropies": attention.entropies.round(3).tolist(),
        "distances": (attention.weights_by_distance * UNIT).round(2).tolist(),
    }


def render_page(data: dict, knockout_page: str | None = None) -> str:
    """Renders the page; its JSON cannot close the script element.

    Args:
      knockout_page: name of a page of `analysis.knockout` in the same folder.
    """
    document = strict_json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    document = document.replace("<", "\\u003c")
    return render_template(
        TEMPLATE, title=data["title"], document=document, knockout_page=knockout_page
    )


def find_knockout_page(title: str, folder: Path) -> str | None:
    """Returns the name of a model's page of `analysis.knockout`; None without one."""
    numbers = folder / "knockout.json"
    if not numbers.exists():
        return None
    content = json.loads(numbers.read_text(encoding="utf8"))
    return "knockout.html" if content["title"] == title else None


@contextlib.contextmanager
def fallback_fonts() -> Iterator[None]:
    """Context in which matplotlib falls back to the installed FONTS."""
    installed = set(font_manager.get_font_names())
    settings = {
        "font.family": ["DejaVu Sans", *(font for font in FONTS if font in installed)],
        "text.parse_math": False,  # a dollar sign is no formula
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def write_sample_map(run: TrainedRun, split: str) -> Path | None:
    """Plots plots/attention-<split>-<step>.png, with the numbers in a JSON file.

    Returns None where the run has no finite attention or no samples of the split, and
    for language models, whose samples are not pairs.
    """
    name = run.name(split)
    samples = run.directory.path / "samples" / f"{name}.jsonl"
    if run.experiment.task.model_class == "LanguageModel" or not samples.exists():
        return None
    with samples.open(encoding="utf8") as file:
        sentences = [json.loads(line) for line in file]
    if not sentences:
        return None
    attention = sample_map(run, choose_sample(run, sentences))
    if attention is None:
        return None
    numbers = run.directory.write_json(
        f"plots/attention-{name}.json", dataclasses.asdict(attention)
    )
    picture = numbers.with_suffix(".png")
    plot_sample(attention, run.experiment.cfg.model.name, picture)
    return picture


def plot_sample(attention: SampleMap, model: str, path: Path) -> None:
    """Plots a sample's map. Characters that no font has appear as boxes."""
    size = (1.5 + 0.36 * len(attention.source), 1.2 + 0.32 * len(attention.target))
    with fallback_fonts():
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        labels = attention.target, attention.source
        image = show_weights(axes, attention.weights, *labels)
        axes.set_title(sample_title(attention, model), fontsize=9)
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
        figure.savefig(path, dpi=120, bbox_inches="tight")


def show_weights(axes, weights, rows, columns, *, ticks=None, aspect="equal", **text):
    """Shows weights in shades of blue, with labels of rows and, above, of columns."""
    image = axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect=aspect)
    ticks = range(len(columns)) if ticks is None else ticks
    axes.set_xticks(ticks, columns, rotation=90, **text)
    axes.set_yticks(range(len(rows)), rows, **text)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return image


def sample_title(attention: SampleMap, model: str) -> str:
    """Formats a title such as `rnn, decoder`, with how layer and heads were chosen."""
    title = f"{model}, {attention.layer}"
    if attention.layers > 1:
        title += f"\nsharpest of {attention.layers} layers"
    return title + (f", mean of {attention.heads} heads" if attention.heads > 1 else "")


def write_plots(texts: list[TextAttention], output: Path) -> list[Path]:
    """Writes maps/<text>-<layer>.png, distances.png and entropies.png."""
    (output / "maps").mkdir(parents=True, exist_ok=True)
    paths = []
    with fallback_fonts():
        for number, text in enumerate(texts, start=1):
            for attention in text.maps:
                name = f"{number}-{attention.layer.replace('/', '-')}.png"
                paths.append(output / "maps" / name)
                plot_heads(attention, paths[-1])
        maps = texts[-1].maps  # its memory is the longest
        if any(attention.offset for attention in maps):
            paths.append(output / "distances.png")
            plot_distances(maps, paths[-1])
        paths.append(output / "entropies.png")
        plot_entropies(texts, paths[-1])
    return paths


def plot_heads(attention: AttentionMap, path: Path) -> None:
    """Plots the maps of all heads side by side, as one image, which is much faster."""
    weights = attention.weights[..., -PLOT_COLUMNS:]
    columns = attention.columns[-PLOT_COLUMNS:]
    heads, num_rows, num_columns = weights.shape
    image = np.full((num_rows, heads, num_columns + 1), np.nan)
    image[..., :-1] = np.swapaxes(weights, 0, 1)
    image = image.reshape(num_rows, -1)[:, :-1]  # gaps between maps, none at the end
    figure = Figure(figsize=(CELL * image.shape[1], CELL * num_rows))
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False)
    firsts = np.arange(heads) * (num_columns + 1)
    ticks = (firsts[:, None] + np.arange(num_columns)).flatten()
    style = {"ticks": ticks, "aspect": "auto", "fontsize": 8}
    show_weights(axes, image, attention.rows, columns * heads, **style)
    entropies = attention.entropies
    for head, (first, entropy) in enumerate(zip(firsts, entropies, strict=True)):
        text = f"head {head + 1}, entropy {entropy:.2f}"
        axes.text(first - 0.5, num_rows + 0.2, text, fontsize=8, va="center")
    title = f"{attention.layer} ({attention.kind})"
    axes.text(-0.5, num_rows + 1.2, title, fontsize=8)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def plot_distances(maps: list[AttentionMap], path: Path) -> None:
    """Plots each head's mean weight against the distance in tokens."""
    maps = [attention for attention in maps if attention.offset]
    figure = Figure(figsize=(4.2 * len(maps), 3.4), layout="constrained")
    subplots = figure.subplots(1, len(maps), squeeze=False)[0]
    for attention, axes in zip(maps, subplots, strict=True):
        for head, weights in enumerate(attention.weights_by_distance, start=1):
            distances = np.arange(1, len(weights) + 1)
            axes.plot(distances, weights, linewidth=1, label=f"head {head}")
        # To the right of the line, all tokens are in the memory.
        axes.axvline(len(attention.rows), color="0.5", linewidth=0.8, linestyle="--")
        axes.set(xlabel="distance, tokens", ylabel="mean weight", yscale="log")
        axes.set_title(attention.layer, fontsize=9)
        axes.yaxis.set_major_formatter("{x:g}")  # powers of ten would be formulas
        axes.yaxis.set_minor_formatter("")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def plot_entropies(texts: list[TextAttention], path: Path) -> None:
    """Plots each head's entropy, averaged over texts, with a row for each layer."""
    names = [attention.layer for attention in texts[0].maps]
    heads = max(len(attention.weights) for attention in texts[0].maps)
    values = np.full((len(texts), len(names), heads), np.nan)  # a layer may have fewer
    for text, rows in zip(texts, values, strict=True):
        for attention, row in zip(text.maps, rows, strict=True):
            row[: len(attention.weights)] = attention.entropies
    values = values.mean(axis=0)  # [layers, H]
    size = (1.2 + 0.6 * values.shape[1] + 2.5, 1.2 + 0.35 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(values, cmap="Blues", vmin=0.0, aspect="auto")
    axes.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="head", title="entropy, nats")
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        color = "white" if value > 0.6 * np.nanmax(values) else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    figure.savefig(path, dpi=100)
