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

from decoding.beam_axis import (
    Hypotheses,
    StepFn,
    blockwise_top_k,
    expand_beams,
    gather_beams,
)
from decoding.constraints import DecodingConstraints


class Scoring(NamedTuple):
    """Penalties in the score of finished hypotheses.

    Attributes:
      length_penalty: alpha; 0 ranks by log P, 1 roughly by its mean per token.
      coverage_penalty: beta; 0 needs no attention from the model.
    """

    length_penalty: float = 0.0
    coverage_penalty: float = 0.0

    def length_divisor(self, length: Int[Array, "*#B"]) -> Float[Array, "*#B"]:
        """Returns the length penalty lp of hypotheses with `length` tokens."""
        return ((5.0 + length) / 6.0) ** self.length_penalty

    def coverage(
        self, attention: Float[Array, "B N S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "B N"]:
        """Returns the coverage penalty cp of attention summed over the target."""
        clipped = jnp.clip(attention, jnp.finfo(jnp.float32).tiny, 1.0)
        log_coverage = jnp.log(clipped).sum(axis=-1, where=mask[:, None])
        return self.coverage_penalty * log_coverage


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
    *,
    beam_size: int,
    n_best: int = 1,
    scoring: Scoring = Scoring(),  # noqa: B008, it is immutable
    early_stopping: bool = False,
    source_mask: Bool[Array, "B S"] | None = None,
) -> Hypotheses:
    """Returns the `n_best` distinct continuations of `first_token`, best first.

    Each example stops on its own, so its result does not depend on the batch: with
    `early_stopping` when N hypotheses have finished, else when no live hypothesis can
    enter the `n_best` any more. The search stops when every example has.

    Args:
      step_fn: step of a model; returns attention too for a coverage penalty.
      state: decoding state with one hypothesis an example.
      beam_size: number of live hypotheses an example (N).
      source_mask: source tokens to cover; required for a coverage penalty.

    Raises:
      ValueError: `n_best` is not in 1 to `beam_size`, or `source_mask` is missing.
    """
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"{n_best=} is not in 1 to {beam_size=}")
    if scoring.coverage_penalty and source_mask is None:
        raise ValueError("a coverage penalty needs source_mask")
    if not scoring.coverage_penalty:
        source_mask = jnp.zeros((len(first_token), 0), bool)

    def is_unfinished(loop: BeamState):
        return (loop.step < constraints.max_steps) & ~loop.done.all()

    def advance(loop: BeamState) -> BeamState:
        step, state, live, finished, done = loop
        state, logits, *attention = step_fn(context, state, live.last_token)
        if scoring.coverage_penalty:
            live = live._replace(attention=live.attention + attention[0])
        allowed = constraints.allowed(step, logits.shape[-1])
        candidates = top_continuations(live.log_prob, logits, allowed)
        ended = finish_beams(
            candidates, live, step, constraints.eos_id, scoring, source_mask
        )
        finished = merge_finished(finished, ended, done)
        live, parents = advance_live(candidates, live, step, constraints.eos_id)
        done |= is_done(
            live, finished, step, constraints, scoring, n_best, early_stopping
        )
        return BeamState(step + 1, gather_beams(state, parents), live, finished, done)

    loop = init_beams(state, first_token, constraints, beam_size, source_mask)
    finished = jax.lax.while_loop(is_unfinished, advance, loop).finished
    tokens, scores, lengths = (leaf[:, :n_best] for leaf in finished)
    tokens = jnp.where(lengths[..., None] > 0, tokens, constraints.eos_id)
    return Hypotheses(tokens, scores, lengths)


def init_beams(
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    beam_size: int,
    source_mask: Bool[Array, "B S"],
) -> BeamState:
    """Returns the loop state with one live hypothesis an example, none finished."""
    shape = (len(first_token), beam_size)
    missing = jnp.full(shape, -jnp.inf)
    tokens = jnp.full((*shape, constraints.max_steps), constraints.eos_id, jnp.int32)
    last_token = jnp.repeat(first_token.astype(jnp.int32)[:, None], beam_size, axis=1)
    attention = jnp.zeros((*shape, source_mask.shape[1]))
    return BeamState(
        step=jnp.zeros((), jnp.int32),
        state=expand_beams(state, beam_size, related=True),
        live=LiveBeams(tokens, missing.at[:, 0].set(0.0), last_token, attention),
        finished=Hypotheses(tokens, missing, jnp.zeros(shape, jnp.int32)),
        done=jnp.zeros(shape[0], bool),
    )


def top_continuations(
    log_prob: Float[Array, "B N"],
    logits: Float[Array, "B N V"],
    allowed: Bool[Array, "B V"],
) -> Candidates:
    """Returns the 2N best continuations, of which at least N do not end.

    The softmax covers all tokens, allowed or not. The logits of each hypothesis are
    searched first, so that only the candidates are normalised.
    """
    count = 2 * logits.shape[1]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    count_each = min(count, logits.shape[-1])
    best, tokens = blockwise_top_k(logits, count_each, allowed[:, None])
    scores = best + (log_prob - log_z)[..., None]
    scores, indices = jax.lax.top_k(scores.reshape(len(scores), -1), count)
    token = jnp.take_along_axis(tokens.reshape(len(scores), -1), indices, axis=1)
    return Candidates(scores, indices // best.shape[-1], token)


def finish_beams(
    candidates: Candidates,
    live: LiveBeams,
    step: Int[Array, ""],
    eos_id: int,
    scoring: Scoring,
    source_mask: Bool[Array, "B S"],
) -> Hypotheses:
    """Returns the scored N best continuations; those that do not end have -inf."""
    beam_size = live.last_token.shape[1]
    log_prob, parent, token = (leaf[:, :beam_size] for leaf in candidates)
    score = log_prob / scoring.length_divisor(step + 1)
    if scoring.coverage_penalty:
        coverage = scoring.coverage(live.attention, source_mask)
        score += jnp.take_along_axis(coverage, parent, axis=1)
    ends = (token == eos_id) & (log_prob > -jnp.inf)
    score = jnp.where(ends, score, -jnp.inf)
    tokens = gather_beams(live.tokens, parent)  # from `step` on all are end symbols
    return Hypotheses(tokens, score, jnp.where(ends, step + 1, 0))


def merge_finished(
    finished: Hypotheses, ended: Hypotheses, done: Bool[Array, "B"]
) -> Hypotheses:
    """Returns the N best of both, best first; examples that are done do not change."""
    beam_size = finished.scores.shape[1]
    ended = ended._replace(scores=jnp.where(done[:, None], -jnp.inf, ended.scores))
    both = jax.tree.map(lambda *two: jnp.concatenate(two, axis=1), finished, ended)
    _, indices = jax.lax.top_k(both.scores, beam_size)
    return gather_beams(both, indices)


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


def is_done(
    live: LiveBeams,
    finished: Hypotheses,
    step: Int[Array, ""],
    constraints: DecodingConstraints,
    scoring: Scoring,
    n_best: int,
    early_stopping: bool,
) -> Bool[Array, "B"]:
    """Returns whether the search of each example has ended.

    The score of a live hypothesis is bounded by its log P so far over the lp of the
    length that favours it most: the longest for alpha > 0, the next for alpha < 0.
    Coverage can only lower it.
    """
    best = live.log_prob.max(axis=1)
    if early_stopping:
        return (finished.scores[:, -1] > -jnp.inf) | (best == -jnp.inf)
    next_length = best / scoring.length_divisor(step + 2)
    max_length = best / scoring.length_divisor(constraints.max_length)
    return jnp.maximum(next_length, max_length) <= finished.scores[:, n_best - 1]
