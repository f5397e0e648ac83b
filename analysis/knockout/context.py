"""Causal effective context length of a language model with self-attention.

RECL (`analysis/effective_context`) cuts the text; here the text stays and attention is
cut: with context c every self-attention masks the keys at distance c or more. The rest
is RECL's definition (Dai et al. 2019, appendix C) for a group of one model: with
l(c, t) the loss of token t,

    f(c, c') = mean of min(l(c, t), l(c', t)) over the top r of positions by l(c, t)
    g(c, c + step) = 1 - exp(f(c, c + step) - f(c, c))

the length is the smallest c with g(c, c + step) < 0.01. `shortest_sufficient` compares
with the whole model instead of the next step. Information still passes from
layer to layer: N layers connect a token with up to N (c - 1) tokens before it. So the
length says how far attention looks, RECL how much text the model needs.
"""

import numpy as np

from analysis import effective_context
from analysis.effective_context import RATIOS, THRESHOLD, recl
from analysis.knockout.candidates import mask_distances
from analysis.knockout.evaluation import Subject
from utils.errors import UserError

NUM_LENGTHS = 8  # by default
ROWS = 64  # windows of RECL that are read in parallel


def measure_context(
    subject: Subject,
    width: int,
    lengths: list[int],
    num_positions: int,
    whole_loss: float,
) -> dict | None:
    """Measures causal effective context length and RECL at the same positions.

    Args:
      lengths: contexts in tokens, in equal steps; []: up to all keys that there are.
      num_positions: number of predicted tokens.
      whole_loss: mean loss of the whole model, in nats.

    Returns the content of "context" in knockout.json; None where the part of the split
    has no token after so much context.

    Raises:
      UserError: a length is more than the keys that there are.
    """
    [(stack, num_keys)] = subject.sites.distance.items()
    lengths = lengths or default_lengths(num_keys)
    if lengths[-1] > num_keys:
        raise UserError(
            f"--lengths up to {lengths[-1]} exceed the {num_keys} keys of segment and "
            "memory"
        )
    positions = choose_positions(subject.batches, lengths[-1], num_positions)
    if not len(positions):
        return None
    knockouts = [mask_distances(subject.sites, stack, length) for length in lengths]
    outcomes = list(subject.outcomes(knockouts, width, positions))
    causal = np.stack([outcome.position_losses for outcome in outcomes])
    experiment = subject.run.experiment
    cut = effective_context.context_losses(
        experiment.evaluation_model,
        subject.run.variables,
        subject.batches.text.tokens,
        positions,
        lengths,
        batch_size=min(ROWS, len(positions)),
        segment_length=subject.batches.length,
    )
    losses = [outcome.blocks.mean for outcome in outcomes]
    return {
        "lengths": lengths,
        "positions": len(positions),
        "threshold": THRESHOLD,
        "loss": losses,
        "within": shortest_sufficient(lengths, losses, whole_loss),
        "causal": _by_ratio(causal, lengths),
        "recl": _by_ratio(cut, lengths),
    }


def shortest_sufficient(
    lengths: list[int], losses: list[float], whole_loss: float
) -> int | None:
    """Returns the context from which on perplexity is within 1% of the whole model's.

    That is exp(l(c) - l) - 1 < 0.01 for mean losses of all tokens, with this c and all
    larger ones. None if there is no such c.
    """
    found = None
    for length, loss in zip(reversed(lengths), reversed(losses), strict=True):
        if np.expm1(loss - whole_loss) >= THRESHOLD:
            break
        found = length
    return found


def default_lengths(num_keys: int) -> list[int]:
    """Returns up to NUM_LENGTHS contexts in equal steps, the longest at most all."""
    step = -(-num_keys // NUM_LENGTHS)
    return list(range(step, num_keys + 1, step))


def choose_positions(batches, longest: int, count: int) -> np.ndarray:
    """Returns positions of labels after at least `longest` tokens, evenly spaced.

    Tokens count that the model has read in the same row of batches or, of windows, in
    the same window.
    """
    found = []
    starts = batches.label_positions(0)[:, :1]
    for k in range(len(batches)):
        labels, weights = batches.label_positions(k), batches[k]["weights"]
        depth = labels - starts
        if getattr(batches, "stride", None):
            depth = np.broadcast_to(np.arange(labels.shape[1]), labels.shape)
        found.append(labels[(depth + 1 >= longest) & (weights > 0)])
    positions = np.sort(np.concatenate(found))
    positions = positions[positions >= longest]
    count = min(count, len(positions))
    return positions[np.arange(count) * len(positions) // max(count, 1)]


def _by_ratio(losses: np.ndarray, lengths: list[int]) -> dict:
    """Returns the length and whether it is only a lower bound, by ratio r."""
    found = {}
    for ratio in RATIOS:
        [one] = recl(losses[None], lengths, ratio)
        found[str(ratio)] = {"length": one.length, "is_longest": one.is_longest}
    return found
