"""Looks of a model as PNG files: a file a layer, a map a head."""

from pathlib import Path

import numpy as np

from analysis.attention.extract import Look, View
from analysis.attention.maps import legible_fonts

SHOWN = 48  # columns: of a long memory the nearest
CELL = 0.24  # inches


def write(views: list[View], output: Path) -> list[Path]:
    """maps/<text>-<layer>.png, distances.png and entropies.png, where there are any."""
    (output / "maps").mkdir(parents=True, exist_ok=True)
    written = []
    with legible_fonts():
        for number, view in enumerate(views, start=1):
            for look in view.looks:
                name = f"{number}-{look.layer.replace('/', '-')}.png"
                written.append(output / "maps" / name)
                draw_heads(look, written[-1])
        looks = views[-1].looks  # the one that remembers most
        if any(look.behind for look in looks):
            written.append(output / "distances.png")
            draw_distances(looks, written[-1])
        written.append(output / "entropies.png")
        draw_entropies(views, written[-1])
    return written


def draw_heads(look: Look, path: Path) -> None:
    """A map a head, side by side; all are one image, which is drawn much faster."""
    from matplotlib.figure import Figure

    weights, columns = look.weights[..., -SHOWN:], look.columns[-SHOWN:]
    heads, num_rows, num_columns = weights.shape
    maps = np.full((num_rows, heads, num_columns + 1), np.nan)
    maps[..., :-1] = np.swapaxes(weights, 0, 1)
    maps = maps.reshape(num_rows, -1)[:, :-1]  # a map and a gap, without the last gap
    figure = Figure(figsize=(CELL * maps.shape[1], CELL * num_rows))
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False)
    axes.imshow(maps, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    firsts = np.arange(heads) * (num_columns + 1)
    places = firsts[:, None] + np.arange(num_columns)
    axes.set_xticks(places.flatten(), columns * heads, rotation=90, fontsize=8)
    axes.set_yticks(range(num_rows), look.rows, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for head, (first, entropy) in enumerate(zip(firsts, look.entropies, strict=True)):
        told = f"head {head + 1}, entropy {entropy:.2f}"
        axes.text(first - 0.5, num_rows + 0.2, told, fontsize=8, va="center")
    axes.text(-0.5, num_rows + 1.2, f"{look.layer} ({look.kind})", fontsize=8)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def draw_distances(looks: list[Look], path: Path) -> None:
    """How much weight words get by how far before the written one they stand."""
    from matplotlib.figure import Figure

    looks = [look for look in looks if look.behind]
    figure = Figure(figsize=(4.2 * len(looks), 3.4), layout="constrained")
    for look, axes in zip(
        looks, figure.subplots(1, len(looks), squeeze=False)[0], strict=True
    ):
        for head, weights in enumerate(look.distances, start=1):
            away = np.arange(1, len(weights) + 1)
            axes.plot(away, weights, linewidth=1, label=f"head {head}")
        # To the left of the line a word may be of the text itself.
        axes.axvline(len(look.rows), color="0.5", linewidth=0.8, linestyle="--")
        axes.set(xlabel="distance, tokens", ylabel="mean weight", yscale="log")
        axes.set_title(look.layer, fontsize=9)
        axes.yaxis.set_major_formatter("{x:g}")  # powers would be formulas
        axes.yaxis.set_minor_formatter("")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def draw_entropies(views: list[View], path: Path) -> None:
    """Mean over texts of each head's entropy, a row a layer."""
    from matplotlib.figure import Figure

    names = [look.layer for look in views[0].looks]
    values = np.stack([[look.entropies for look in view.looks] for view in views])
    values = values.mean(axis=0)  # [layers, H]
    size = (1.2 + 0.6 * values.shape[1] + 2.5, 1.2 + 0.35 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(values, cmap="Blues", vmin=0.0, aspect="auto")
    axes.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="head", title="entropy, nats")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value > 0.6 * values.max() else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    figure.savefig(path, dpi=100)
