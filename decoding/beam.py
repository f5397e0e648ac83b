"""Beam search with the length and coverage penalties of GNMT.

Wu et al. (2016), "Google's Neural Machine Translation System", section 7,
equation 14:

    s(Y, X) = log P(Y|X) / lp(Y) + cp(X; Y)
    lp(Y)   = ((5 + |Y|) / 6) ^ alpha
    cp(X;Y) = beta * sum_i log(min(sum_j p_ij, 1))

|Y| counts the end symbol. Live hypotheses have equal lengths and are ranked by
log P(Y|X) alone; finished ones are ranked by s. Deviations from the paper: nothing is
pruned by its distance from the best, and a hypothesis finishes only if it is among
the N best continuations, so that a beam of size 1 is greedy decoding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from decoding.config import DecodingConfig
from decoding.hypotheses import (
    DecodingConstraints,
    Hypotheses,
    StepFn,
    blockwise_top_k,
    expand_beams,
    gather_beams,
)


class LiveBeams(NamedTuple):
    """Unfinished hypotheses; a log probability of -inf marks a missing one.

    Attributes:
      attention: attention to each source token, summed over the target so far.
    """

    tokens: Int[Array, "B N L"]
    log_prob: Float[Array, "B N"]
    last_token: Int[Array, "B N"]
    attention: Float[Array, "B N S"]


class Candidates(NamedTuple):
    """Continuations of live hypotheses by one token, best first."""

    log_prob: Float[Array, "B C"]
    parent: Int[Array, "B C"]
    token: Int[Array, "B C"]


class BeamState(NamedTuple):
    """Loop state of a beam search: decoding state, live and finished hypotheses."""

    step: Int[Array, ""]
    state: PyTree
    live: LiveBeams
    finished: Hypotheses
    done: Bool[Array, "B"]


def beam_search(
    step_fn: StepFn,
    context: PyTree,
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    config: DecodingConfig,
    *,
    source_mask: Bool[Array, "B S"] | None = None,
) -> Hypotheses:
    """Returns the `n_best` distinct continuations of `first_token`, best first.

    Each example stops on its own, so its result does not depend on the batch: with
    `early_stopping` when N hypotheses have finished, else when no live hypothesis can
    enter the `n_best` any more. The search stops when every example has.

    Args:
      step_fn: step of a model; returns attention too for a coverage penalty.
      state: decoding state with one hypothesis an example.
      source_mask: source tokens to cover; required for a coverage penalty.

    Raises:
      ValueError: see `init_beams`.
    """
    n_best, eos_id = config.n_best, constraints.eos_id

    def is_unfinished(loop: BeamState):
        return (loop.step < constraints.max_steps) & ~loop.done.all()

    def advance(loop: BeamState) -> BeamState:
        step, state, live, finished, done = loop
        state, logits, *attention = step_fn(context, state, live.last_token)
        if config.coverage_penalty:
            live = live._replace(attention=live.attention + attention[0])
        logits, allowed = constraints.restrict(step, logits, live.tokens)
        candidates = top_continuations(live.log_prob, logits, allowed)
        finished = update_finished(
            finished, done, candidates, live, step, eos_id, config, source_mask
        )
        live, parents = advance_live(candidates, live, step, eos_id)
        done |= is_final(finished, live, step, constraints, config)
        return BeamState(step + 1, gather_beams(state, parents), live, finished, done)

    loop = init_beams(state, first_token, constraints, config, source_mask)
    finished = jax.lax.while_loop(is_unfinished, advance, loop).finished
    tokens, scores, lengths = (leaf[:, :n_best] for leaf in finished)
    tokens = jnp.where(lengths[..., None] > 0, tokens, eos_id)
    return Hypotheses(tokens, scores, lengths)


def init_beams(
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    config: DecodingConfig,
    source_mask: Bool[Array, "B S"] | None,
) -> BeamState:
    """Returns the loop state with one empty live hypothesis an example.

    Raises:
      ValueError: `n_best` is not in 1 to `beam_size`, or `source_mask` is missing.
    """
    n_best, beam_size, eos_id = config.n_best, config.beam_size, constraints.eos_id
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"{n_best=} is not in 1 to {beam_size=}")
    if config.coverage_penalty and source_mask is None:
        raise ValueError("a coverage penalty needs source_mask")
    shape = first_token.shape[0], beam_size
    covered = source_mask.shape[1] if config.coverage_penalty else 0
    missing = jnp.full(shape, -jnp.inf)
    tokens = jnp.full((*shape, constraints.max_steps), eos_id, jnp.int32)
    last_token = jnp.repeat(first_token.astype(jnp.int32)[:, None], beam_size, axis=1)
    attention = jnp.zeros((*shape, covered))
    return BeamState(
        step=jnp.zeros((), jnp.int32),
        state=expand_beams(state, beam_size, related=True),
        live=LiveBeams(tokens, missing.at[:, 0].set(0.0), last_token, attention),
        finished=Hypotheses(tokens, missing, jnp.zeros(shape, jnp.int32)),
        done=jnp.zeros(shape[0], bool),
    )


def is_final(
    finished: Hypotheses,
    live: LiveBeams,
    step: Int[Array, ""],
    constraints: DecodingConstraints,
    config: DecodingConfig,
) -> Bool[Array, "B"]:
    """Returns which examples are done after a step; see `beam_search`."""
    best = live.log_prob.max(axis=1)
    if config.early_stopping:
        return (finished.scores[:, -1] > -jnp.inf) | (best == -jnp.inf)
    # The best log P over the lp of the length that favours it most: the next for
    # alpha < 0, the longest for alpha > 0. Coverage can only lower it.
    lengths = (step + 2, constraints.max_length)
    bounds = [
        best / length_penalty(length, config.length_penalty) for length in lengths
    ]
    return jnp.maximum(*bounds) <= finished.scores[:, config.n_best - 1]


def top_continuations(
    log_prob: Float[Array, "B N"],
    logits: Float[Array, "B N V"],
    allowed: Bool[Array, "B #N V"],
    penalties: Float[Array, "B V"] | None = None,
) -> Candidates:
    """Returns the 2N best continuations, of which at least N do not end.

    The softmax covers all tokens, allowed or not. The logits of each hypothesis are
    searched first, so that only the candidates are normalised.

    Args:
      penalties: what the log probability of each token is lowered by.
    """
    count = 2 * logits.shape[1]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    if penalties is not None:
        logits = logits - penalties[:, None]
    count_each = min(count, logits.shape[-1])
    best, tokens = blockwise_top_k(logits, count_each, allowed)
    scores = best + (log_prob - log_z)[..., None]
    scores, indices = jax.lax.top_k(scores.reshape(scores.shape[0], -1), count)
    token = jnp.take_along_axis(tokens.reshape(scores.shape[0], -1), indices, axis=1)
    return Candidates(scores, indices // best.shape[-1], token)


def update_finished(
    finished: Hypotheses,
    done: Bool[Array, "B"],
    candidates: Candidates,
    live: LiveBeams,
    step: Int[Array, ""],
    eos_id: int,
    config: DecodingConfig,
    source_mask: Bool[Array, "B S"] | None,
) -> Hypotheses:
    """Returns the N best finished hypotheses, best first.

    New ones are those of the N best continuations that end; examples that are done
    get none.
    """
    beam_size = live.last_token.shape[1]
    log_prob, parent, token = (leaf[:, :beam_size] for leaf in candidates)
    score = log_prob / length_penalty(step + 1, config.length_penalty)
    if config.coverage_penalty:
        coverage = config.coverage_penalty * log_coverage(live.attention, source_mask)
        score += jnp.take_along_axis(coverage, parent, axis=1)
    ends = (token == eos_id) & (log_prob > -jnp.inf)
    tokens = gather_beams(live.tokens, parent)  # from `step` on all are end symbols
    scores = jnp.where(ends & ~done[:, None], score, -jnp.inf)
    ended = Hypotheses(tokens, scores, jnp.where(ends, step + 1, 0))
    both = jax.tree.map(lambda *two: jnp.concatenate(two, axis=1), finished, ended)
    _, indices = jax.lax.top_k(both.scores, beam_size)
    return gather_beams(both, indices)


def length_penalty(length: Int[Array, "*#B"], alpha: float) -> Float[Array, "*#B"]:
    """Returns the length penalty lp: 1 for alpha = 0, about the length for 1."""
    return ((5.0 + length) / 6.0) ** alpha


def log_coverage(
    attention: Float[Array, "B N S"], mask: Bool[Array, "B S"]
) -> Float[Array, "B N"]:
    """Returns the coverage cp / beta of attention summed over the target."""
    clipped = jnp.clip(attention, jnp.finfo(jnp.float32).tiny, 1.0)
    return jnp.log(clipped).sum(axis=-1, where=mask[:, None])


def advance_live(
    candidates: Candidates, live: LiveBeams, step: Int[Array, ""], eos_id: int
) -> tuple[LiveBeams, Int[Array, "B N"]]:
    """Returns the N best continuations that do not end, and their parents."""
    beam_size = live.last_token.shape[1]
    scores = jnp.where(candidates.token == eos_id, -jnp.inf, candidates.log_prob)
    scores, indices = jax.lax.top_k(scores, beam_size)
    parents = jnp.take_along_axis(candidates.parent, indices, axis=1)
    token = jnp.take_along_axis(candidates.token, indices, axis=1)
    tokens, attention = gather_beams((live.tokens, live.attention), parents)
    tokens = tokens.at[:, :, step].set(token)
    return LiveBeams(tokens, scores, token, attention), parents
