"""Pictures of where a translating model looks: a target token a row."""

import contextlib
import dataclasses
import functools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from experiment.restore import TrainedRun

LENGTH = range(6, 15)  # target tokens: enough to see a pattern, few enough to read
DIGITS = 4  # of a weight in the file
END = "<eos>"  # whatever the tokenizer calls it
SPACE = "\N{OPEN BOX}"

# Where the usual font has no sign for a character; whichever is installed.
FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic")


@dataclasses.dataclass(frozen=True)
class AttentionMap:
    """Attention over one source sentence, averaged over heads.

    Attributes:
      weights: a row a target token, a column a source token.
      layer: where in the model; the sharpest of all that look at the source.
      layers: how many there are.
      heads: how many were averaged.
    """

    source: list[str]
    target: list[str]
    weights: list[list[float]]
    layer: str
    layers: int
    heads: int


def write(run: TrainedRun, split: str) -> Path | None:
    """Draws plots/attention-<split>-<step>.png; the numbers stand beside it in JSON.

    Returns None where the run is no Seq2Seq or has no samples of the split.
    """
    name = run.name(split)
    samples = run.directory.path / "samples" / f"{name}.jsonl"
    if run.experiment.task.model_class != "Seq2Seq" or not samples.exists():
        return None
    with samples.open(encoding="utf8") as file:
        sentences = [json.loads(line) for line in file]
    if not sentences:
        return None
    found = attention_map(run, moderate_sample(run, sentences))
    if found is None:
        return None
    numbers = run.directory.write_json(
        f"plots/attention-{name}.json", dataclasses.asdict(found)
    )
    picture = numbers.with_suffix(".png")
    draw(found, run.experiment.cfg.model.name, picture)
    return picture


def moderate_sample(run: TrainedRun, samples: list[dict]) -> dict:
    """The first whose reference is neither short nor long, or the one nearest to it.

    References, not hypotheses, so that all models draw the same sentence.
    """
    encode = run.experiment.task.target.encode

    def excess(sample: dict) -> int:
        length = len(encode(sample["reference"])) + 1
        return max(LENGTH[0] - length, length - LENGTH[-1], 0)

    return min(samples, key=excess)


def attention_map(run: TrainedRun, sample: dict) -> AttentionMap | None:
    """The model on a source and its own hypothesis; None if it sows no weights."""
    task = run.experiment.task
    source = [*task.source.encode(sample["source"]), task.source.eos]
    target = [*task.target.encode(sample["hypothesis"]), task.target.eos]
    layers = {
        name: weights.reshape(-1, *weights.shape[-2:])
        for name, weights in cross_attention(run, source, target).items()
    }
    if not layers:
        return None
    layer = min(layers, key=lambda name: entropy(layers[name].mean(axis=0)))
    return AttentionMap(
        source=legible(task.source, source),
        target=legible(task.target, target),
        weights=layers[layer].mean(axis=0).astype(float).round(DIGITS).tolist(),
        layer=layer,
        layers=len(layers),
        heads=len(layers[layer]),
    )


def cross_attention(
    run: TrainedRun, source: list[int], target: list[int]
) -> dict[str, np.ndarray]:
    """Weights [..., T, S] by the name of their layer; row t belongs to target[t]."""
    task, model = run.experiment.task, run.experiment.model
    length = len(target)
    # Never as long as the source: by its shape alone can cross-attention be told.
    padded = length + (length == len(source))
    target_in = np.full((1, padded), task.target.pad, np.int32)
    target_in[0, :length] = [task.target.bos, *target[:-1]]
    inputs = (
        np.asarray([source], np.int32),
        np.ones((1, len(source)), bool),
        target_in,
        np.arange(padded)[None] < length,
        task.initial_carry(model, 1, train=False),
    )
    seen = watch(model, run.variables, *inputs)
    return {
        layer_name(path): np.asarray(weights, np.float32)[..., :length, :]
        for path, weights in jax.tree_util.tree_leaves_with_path(seen)
        if weights.ndim >= 3 and weights.shape[-2:] == (padded, len(source))
    }


@functools.partial(jax.jit, static_argnums=0)
def watch(model, variables: PyTree, *inputs: PyTree) -> PyTree:
    """What a model sows while it reads, as a tree with the model's names."""
    _, seen = model.apply(variables, *inputs, train=False, mutable=["intermediates"])
    return seen.get("intermediates", {})


def legible(tokenizer, ids: list[int]) -> list[str]:
    """A sentence's pieces: white space can be seen, and the end is named alike."""
    pieces = [piece if piece.strip() else SPACE for piece in tokenizer.pieces(ids)]
    return [*pieces[:-1], END]


def layer_name(path: tuple) -> str:
    """The modules on the way to what was sown, without the name it was sown under."""
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return "/".join(names[:-1])


def entropy(weights: np.ndarray) -> float:
    """Mean over rows of -sum p log p: small where attention is sharp."""
    logarithms = np.log(np.where(weights > 0, weights, 1.0))
    return float(-(weights * logarithms).sum(axis=-1).mean())


@contextlib.contextmanager
def legible_fonts() -> Iterator[None]:
    """Pictures drawn here have the fonts of all scripts that are installed."""
    import matplotlib
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    settings = {
        "font.family": ["DejaVu Sans", *(font for font in FONTS if font in installed)],
        "text.parse_math": False,  # a dollar is a dollar
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def draw(found: AttentionMap, model: str, path: Path) -> None:
    """Writes the picture. A character no font has is drawn as a box."""
    from matplotlib.figure import Figure

    rows, columns = len(found.target), len(found.source)
    with legible_fonts():
        figure = Figure(figsize=(1.5 + 0.36 * columns, 1.2 + 0.32 * rows))
        axes = figure.add_subplot()
        image = axes.imshow(found.weights, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.set_xticks(range(columns), found.source, rotation=90)
        axes.set_yticks(range(rows), found.target)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_title(title(found, model), fontsize=9)
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
        figure.savefig(path, dpi=120, bbox_inches="tight")


def title(found: AttentionMap, model: str) -> str:
    """Such as `rnn, decoder`; with the choice of the layer and of heads."""
    layer = f"{model}, {found.layer}"
    if found.layers > 1:
        layer += f"\nsharpest of {found.layers} layers"
    return layer + (f", mean of {found.heads} heads" if found.heads > 1 else "")
