"""Relative effective context length (RECL; Dai et al. 2019, appendix C).

For a group of models: the shortest context of each beyond which a longer one reduces
the model's loss by less than one per cent, averaged over those positions at which the
best model of the group is worst with that context.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree

from utils.errors import UserError
from utils.memory import bounded_jit
from utils.text_tables import align_columns

RATIOS = (0.1, 0.5, 1.0)  # r, as in the paper's table 8
THRESHOLD = 0.01  # of the relative gain


def evenly_spaced(num_tokens: int, longest: int, count: int) -> np.ndarray:
    """Returns up to `count` positions, evenly spaced, each after `longest` tokens."""
    count = min(count, num_tokens - longest)
    return longest + np.arange(count, dtype=np.int64) * (num_tokens - longest) // count


def context_losses(
    model: nn.Module,
    variables: PyTree,
    text: np.ndarray,
    positions: np.ndarray,
    lengths: Sequence[int],
    *,
    batch_size: int,
    segment_length: int,
) -> np.ndarray:
    """Computes l(c, t) = -log P(x_t | x_(t-c) .. x_(t-1)) in nats, [lengths, T].

    The model reads every window of c tokens from an empty carry, so it knows no token
    before the window. A model with a memory reads it in segments as in an evaluation,
    the last of full length; a model without reads it at once.

    Args:
      text: a split's token ids, concatenated.
      positions: t; each at least the largest of `lengths`.
      batch_size: windows that are read in parallel.
    """
    carry = model.initial_carry(batch_size, train=False)
    has_memory = bool(jax.tree.leaves(carry))
    losses = np.zeros((len(lengths), len(positions)))
    for row, length in enumerate(lengths):
        splits = segment_starts(length, segment_length if has_memory else length)
        for first in range(0, len(positions), batch_size):
            chunk = positions[first : first + batch_size]
            filled = np.resize(chunk, batch_size)  # repeats the last, smaller chunk
            window = text[filled[:, None] + np.arange(-length, 0)].astype(np.int32)
            *segments, last = np.split(window, splits, axis=1)
            state = carry
            for segment in segments:
                state = _next_carry(model, variables, segment, state)
            labels = text[filled].astype(np.int32)[:, None]
            values = _last_losses(model, variables, last, labels, state)
            losses[row, first : first + batch_size] = values[: len(chunk)]
    return losses


def segment_starts(length: int, segment_length: int) -> list[int]:
    """Returns where a window is split; only its first segment may be shorter."""
    first = length % segment_length or segment_length
    return list(range(first, length, segment_length))


@functools.partial(bounded_jit, static_argnums=0)
def _next_carry(model, variables, tokens, carry):
    return model.apply(variables, tokens, carry, train=False)[1]


@functools.partial(bounded_jit, static_argnums=0)
def _last_losses(model, variables, tokens, labels, carry):
    """Returns the loss of the token after each row of a segment."""

    def loss(model):
        hidden, _ = model(tokens, carry, train=False)
        return -model.log_prob(hidden[:, -1:], labels)[:, 0]

    return nn.apply(loss, model)(variables)


@dataclasses.dataclass(frozen=True)
class RECL:
    """The effective context length of a model for one ratio of hardest positions."""

    length: int  # in tokens
    is_longest: bool  # contexts longer than the longest one tried may still help
    gains: list[float]  # relative, from each length to the next


def relative_gains(losses: np.ndarray, ratio: float) -> np.ndarray:
    """Computes each model's gain by each step of context, [models, lengths - 1].

        b(c, t)    = min_i l_i(c, t)
        T          = the top r of all positions t with the largest b(c, t)
        f_i(c, c') = 1/|T| sum_(t in T) min(b(c, t), l_i(c', t))
        g_i(c, c') = (exp f_i(c, c) - exp f_i(c, c')) / exp f_i(c, c)

    Args:
      losses: l_i(c, t) in nats, [models, lengths, positions].
      ratio: r.
    """
    count = max(1, round(ratio * losses.shape[2]))
    gains = []
    for short in range(losses.shape[1] - 1):
        baseline = losses[:, short].min(axis=0)
        hardest = np.argsort(-baseline, kind="stable")[:count]
        before = baseline[hardest].mean()  # f_i(c, c), equal for all models
        after = np.minimum(baseline, losses[:, short + 1])[:, hardest].mean(axis=1)
        gains.append(1 - np.exp(after - before))
    return np.stack(gains, axis=1)


def recl(losses: np.ndarray, lengths: Sequence[int], ratio: float) -> list[RECL]:
    """Returns the first c of each model with g(c, c + step) < 0.01."""
    results = []
    for gains in relative_gains(losses, ratio):
        small = np.flatnonzero(gains < THRESHOLD)
        index = int(small[0]) if len(small) else len(lengths) - 1
        results.append(RECL(lengths[index], not len(small), gains.tolist()))
    return results


def parse_lengths(texts: Sequence[str]) -> list[int]:
    """Parses --lengths. Raises UserError where they are not evenly spaced."""
    flag = f"--lengths={','.join(texts)}"
    try:
        lengths = [int(text) for text in texts]
    except ValueError as error:
        raise UserError(f"{flag} must be integers") from error
    steps = set(np.diff(lengths).tolist())
    if len(lengths) < 2 or lengths[0] < 1 or len(steps) > 1 or min(steps) < 1:
        raise UserError(f"{flag} must be at least two in equal steps, such as 32,64,96")
    return lengths


def summarize(names: Sequence[str], lengths: Sequence[int], losses: np.ndarray) -> dict:
    """Returns the content of effective-context.json for a group of runs."""
    by_ratio = {ratio: recl(losses, lengths, ratio) for ratio in RATIOS}
    return {
        "lengths": list(lengths),
        "places": losses.shape[2],
        "threshold": THRESHOLD,
        "runs": {
            name: {
                "loss": losses[i].mean(axis=1).tolist(),
                "recl": {
                    str(ratio): dataclasses.asdict(values[i])
                    for ratio, values in by_ratio.items()
                },
            }
            for i, name in enumerate(names)
        },
    }


def format_table(summary: dict) -> str:
    """Formats a line per run: RECL by ratio, loss with least and most context."""
    lengths = summary["lengths"]
    rows = [["run", *(f"r={ratio}" for ratio in RATIOS)]]
    rows[0] += [f"loss@{lengths[i]}" for i in (0, -1)]
    for name, run in summary["runs"].items():
        cells = [
            f"{'>=' if result['is_longest'] else ''}{result['length']}"
            for result in run["recl"].values()
        ]
        rows.append([name, *cells, *(f"{run['loss'][i]:.4f}" for i in (0, -1))])
    return "\n".join(align_columns(rows, "<" + ">" * (len(RATIOS) + 2)))


def plot(summary: dict, path: Path) -> None:
    """Plots the loss by context length, and the gains at the hardest positions."""
    from matplotlib.figure import Figure

    lengths = summary["lengths"]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    loss, gain = figure.subplots(1, 2)
    for name, run in summary["runs"].items():
        loss.plot(lengths, run["loss"], marker="o", markersize=3, label=name)
        gains = run["recl"][str(RATIOS[0])]["gains"]
        gain.plot(lengths[:-1], gains, marker="o", markersize=3, label=name)
    gain.axhline(summary["threshold"], color="0.5", linewidth=0.8, linestyle="--")
    loss.set(xlabel="context, tokens", ylabel="loss, nats per token")
    title = f"relative gain of the next step, r = {RATIOS[0]}"
    gain.set(xlabel="context, tokens", ylabel=title)
    loss.legend(fontsize=8)
    figure.savefig(path, dpi=120)
