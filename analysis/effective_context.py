"""How much context models make use of: RECL (Dai et al. 2019, appendix C).

python -m analysis.effective_context --runs=runs/a,runs/b,runs/c

The relative effective context length of each model of a group: the shortest context
of which more would gain it less than one per cent, counted where all models of the
group find little. Runs must share text and vocabulary. Writes effective-context.json
and .png to --output.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

import cli
from errors import UserError

RATIOS = (0.1, 0.5, 1.0)  # r, as in the paper's table 8
THRESHOLD = 0.01  # of the relative gain
NAME = "effective-context"

RUNS = flags.DEFINE_list("runs", None, "Run directories of a group.", required=True)
SPLIT = flags.DEFINE_string("split", "validation", "Split whose tokens are predicted.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last or a step.")
LENGTHS = flags.DEFINE_list(
    "lengths",
    [str(32 * i) for i in range(1, 11)],
    "Context lengths in tokens, a step apart.",
)
PLACES = flags.DEFINE_integer("places", 1024, "Tokens predicted, all over the split.")
ROWS = flags.DEFINE_integer("rows", 64, "Windows read side by side.")
OUTPUT = flags.DEFINE_string("output", ".", "Folder for the figures.")


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far a model reaches, for one ratio of hardest places.

    Attributes:
      length: the RECL, in tokens.
      is_longest: whether more than the longest length tried may still gain.
      gains: relative, from each length to the next.
    """

    length: int
    is_longest: bool
    gains: list[float]


def relative_gains(losses: np.ndarray, ratio: float) -> np.ndarray:
    """What each model gains by each step of context, [models, lengths - 1].

        b(c, t)    = min_i l_i(c, t)
        T          = the top r of all places t with the largest b(c, t)
        f_i(c, c') = 1/|T| sum_(t in T) min(b(c, t), l_i(c', t))
        g_i(c, c') = (exp f_i(c, c) - exp f_i(c, c')) / exp f_i(c, c)

    Args:
      losses: l_i(c, t) in nats, [models, lengths, places].
      ratio: r.
    """
    count = max(1, round(ratio * losses.shape[2]))
    gains = []
    for short in range(losses.shape[1] - 1):
        baseline = losses[:, short].min(axis=0)
        hardest = np.argsort(-baseline, kind="stable")[:count]
        before = baseline[hardest].mean()  # f_i(c, c), the same for every model
        after = np.minimum(baseline, losses[:, short + 1])[:, hardest].mean(axis=1)
        gains.append(1 - np.exp(after - before))
    return np.stack(gains, axis=1)


def reaches(losses: np.ndarray, lengths: Sequence[int], ratio: float) -> list[Reach]:
    """The first c of each model with g(c, c + step) < 0.01."""
    found = []
    for gains in relative_gains(losses, ratio):
        small = np.flatnonzero(gains < THRESHOLD)
        place = int(small[0]) if len(small) else len(lengths) - 1
        found.append(Reach(lengths[place], not len(small), gains.tolist()))
    return found


def parse_lengths(texts: Sequence[str]) -> list[int]:
    """Of --lengths. Raises UserError where they are not a step apart."""
    told = f"--lengths={','.join(texts)}"
    try:
        lengths = [int(text) for text in texts]
    except ValueError as error:
        raise UserError(f"{told}: whole numbers are needed") from error
    steps = set(np.diff(lengths).tolist())
    if len(lengths) < 2 or lengths[0] < 1 or len(steps) > 1 or min(steps) < 1:
        raise UserError(f"{told}: two or more that rise by one step, such as 32,64,96")
    return lengths


def measure(
    workdirs: Sequence[str],
    lengths: Sequence[int],
    *,
    split: str = "validation",
    checkpoint: str = "best",
    places: int = 1024,
    rows: int = 64,
) -> np.ndarray:
    """l_i(c, t) of each run, [runs, lengths, places].

    Raises UserError for a run of another task, of other data or vocabulary than the
    first, and for a split too short for the longest context.
    """
    from analysis.context_losses import context_losses, spread_places
    from data.dataset import open_dataset
    from trained_run import check_data, open_run

    losses, hashes = [], {}
    for workdir in workdirs:
        run = open_run(workdir, checkpoint)
        cfg = run.experiment.cfg
        if run.experiment.task.model_class != "LanguageModel":
            raise UserError(f"{workdir} is of {cfg.task}: a text model is needed")
        dataset = open_dataset(cfg.data, run.experiment.tokenizers)
        check_data(run.directory, dataset)
        hashes[workdir] = dataset.hashes
        if dataset.hashes != hashes[workdirs[0]]:
            raise UserError(
                f"{workdir} has {dataset.hashes} and {workdirs[0]} "
                f"{hashes[workdirs[0]]}: a group shares data and vocabulary"
            )
        text = dataset.evaluation_batches(split, rows=1).text.tokens
        if len(text) <= lengths[-1]:
            raise UserError(
                f"--lengths up to {lengths[-1]}: {split} has {len(text)} tokens"
            )
        found = context_losses(
            run.experiment.evaluation_model,
            run.variables,
            text,
            spread_places(len(text), lengths[-1], places),
            lengths,
            rows=rows,
            segment_length=cfg.eval.segment_length or cfg.data.segment_length,
        )
        losses.append(found)
    return np.stack(losses)


def report(names: Sequence[str], lengths: Sequence[int], losses: np.ndarray) -> dict:
    """Figures of a group, as they are written."""
    found = {ratio: reaches(losses, lengths, ratio) for ratio in RATIOS}
    return {
        "lengths": list(lengths),
        "places": losses.shape[2],
        "threshold": THRESHOLD,
        "runs": {
            name: {
                "loss": losses[i].mean(axis=1).tolist(),
                "recl": {
                    str(ratio): dataclasses.asdict(found[ratio][i]) for ratio in RATIOS
                },
            }
            for i, name in enumerate(names)
        },
    }


def table(figures: dict) -> str:
    """A line a run: its RECL for each r, its loss with least and most context."""
    lengths, runs = figures["lengths"], figures["runs"]
    width = max(len("run"), *map(len, runs))
    titles = [f"r={ratio}" for ratio in RATIOS]
    titles += [f"loss@{lengths[0]}", f"loss@{lengths[-1]}"]
    lines = ["  ".join([f"{'run':{width}}", *(f"{title:>10}" for title in titles)])]
    for name, run in runs.items():
        cells = [
            f"{'>=' if reach['is_longest'] else ''}{reach['length']}"
            for reach in run["recl"].values()
        ]
        cells += [f"{run['loss'][place]:.4f}" for place in (0, -1)]
        lines.append("  ".join([f"{name:{width}}", *(f"{cell:>10}" for cell in cells)]))
    return "\n".join(lines)


def draw(figures: dict, path: Path) -> None:
    """Loss against context, and what each step of it gains at the hardest places."""
    from matplotlib.figure import Figure

    lengths = figures["lengths"]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    loss, gain = figure.subplots(1, 2)
    for name, run in figures["runs"].items():
        loss.plot(lengths, run["loss"], marker="o", markersize=3, label=name)
        gains = run["recl"][str(RATIOS[0])]["gains"]
        gain.plot(lengths[:-1], gains, marker="o", markersize=3, label=name)
    gain.axhline(figures["threshold"], color="0.5", linewidth=0.8, linestyle="--")
    loss.set(xlabel="context, tokens", ylabel="loss, nats a token")
    title = f"relative gain of the next step, r = {RATIOS[0]}"
    gain.set(xlabel="context, tokens", ylabel=title)
    loss.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Prints the table and where the files are."""
    lengths = parse_lengths(LENGTHS.value)
    for flag in (PLACES, ROWS):
        if flag.value < 1:
            raise UserError(f"--{flag.name}={flag.value}: at least 1 is needed")
    names = list(dict.fromkeys(RUNS.value))
    losses = measure(
        names,
        lengths,
        split=SPLIT.value,
        checkpoint=CHECKPOINT.value,
        places=PLACES.value,
        rows=ROWS.value,
    )
    figures = report(names, lengths, losses)
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"split": SPLIT.value, **figures}, indent=1)
    (output / f"{NAME}.json").write_text(document + "\n", encoding="utf8")
    draw(figures, output / f"{NAME}.png")
    print(table(figures))
    print(output / f"{NAME}.json")
    print(output / f"{NAME}.png")


if __name__ == "__main__":
    cli.start(main)
