"""How much context models make use of, from their losses: RECL, as figures.

Relative effective context length (Dai et al. 2019, appendix C): of a group of models,
the shortest context of each of which more would gain it less than one per cent,
counted at the places where with so little context the best of the group does worst.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError

RATIOS = (0.1, 0.5, 1.0)  # r, as in the paper's table 8
THRESHOLD = 0.01  # of the relative gain


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
