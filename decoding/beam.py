"""Beam search, scored as in GNMT.

Wu et al. (2016), "Google's Neural Machine Translation System", section 7,
equation 14:

    s(Y, X) = log P(Y|X) / lp(Y) + cp(X; Y)
    lp(Y)   = ((5 + |Y|) / 6) ^ alpha
    cp(X;Y) = beta * sum_i log(min(sum_j p_ij, 1))

|Y| counts the end. Hypotheses that go on have one length, so they are ranked by
log P(Y|X) alone; those that ended are ranked by s. Deviations from the paper:
nothing is pruned by its distance from the best, and what ended is kept only if it
is among the N best continuations, so that a beam of 1 is greedy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from decoding.blockwise_top_k import blockwise_top_k
from decoding.constraints import DecodingConstraints
from decoding.hypotheses import Hypotheses, Step, expand_beams, gather_beams


class Scoring(NamedTuple):
    """What ended hypotheses are ranked by.

    Attributes:
      length_penalty: alpha; 0 ranks by log P, 1 about by its mean a token.
      coverage_penalty: beta; 0 does not ask for attention.
    """

    length_penalty: float = 0.0
    coverage_penalty: float = 0.0

    def lengths(self, length: Int[Array, "*#B"]) -> Float[Array, "*#B"]:
        """lp."""
        return ((5.0 + length) / 6.0) ** self.length_penalty

    def coverage(
        self, attention: Float[Array, "B N S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "B N"]:
        """cp of attention summed over a target; padding has none to ask for."""
        seen = jnp.clip(attention, jnp.finfo(jnp.float32).tiny, 1.0)
        return self.coverage_penalty * jnp.log(seen).sum(axis=-1, where=mask[:, None])


class Live(NamedTuple):
    """Hypotheses that go on; those with a log_prob of -inf are none.

    Attributes:
      attention: that each source token has had so far.
    """

    tokens: Int[Array, "B N L"]
    log_prob: Float[Array, "B N"]
    last: Int[Array, "B N"]
    attention: Float[Array, "B N S"]


class Candidates(NamedTuple):
    """Continuations of live hypotheses by a token, best first."""

    log_prob: Float[Array, "B C"]
    parent: Int[Array, "B C"]
    token: Int[Array, "B C"]


class Loop(NamedTuple):
    """What a step of the search leaves to the next."""

    number: Int[Array, ""]
    state: PyTree
    live: Live
    finished: Hypotheses
    done: Bool[Array, "B"]


def beam_search(
    step: Step,
    context: PyTree,
    state: PyTree,
    first: Int[Array, "B"],
    rules: DecodingConstraints,
    *,
    beam_size: int,
    n_best: int = 1,
    scoring: Scoring = Scoring(),  # noqa: B008, it never changes
    early_stopping: bool = False,
    source_mask: Bool[Array, "B S"] | None = None,
) -> Hypotheses:
    """The `n_best` of what follows `first`, best first, all different.

    A row stops on its own, so what others find does not matter to it: with
    `early_stopping` when N hypotheses have ended, else when none that goes on can
    come among the `n_best` any more. The search stops when every row has.

    Args:
      step: for a coverage penalty one that gives attention too.
      state: of one hypothesis a row.
      beam_size: N.
      source_mask: which source tokens want attention; for a coverage penalty.
    """
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"{n_best=} is not in 1 to {beam_size=}")
    if scoring.coverage_penalty and source_mask is None:
        raise ValueError("a coverage penalty needs source_mask")
    if not scoring.coverage_penalty:
        source_mask = jnp.zeros((len(first), 0), bool)

    def unfinished(loop: Loop):
        return (loop.number < rules.max_steps) & ~loop.done.all()

    def advance(loop: Loop) -> Loop:
        number, state, live, finished, done = loop
        state, logits, *seen = step(context, state, live.last)
        if scoring.coverage_penalty:
            live = live._replace(attention=live.attention + seen[0])
        allowed = rules.allowed(number, logits.shape[-1])
        candidates = continuations(live.log_prob, logits, allowed)
        ended = end_some(candidates, live, number, rules.end, scoring, source_mask)
        finished = best_of(finished, ended, done)
        live, parents = go_on(candidates, live, number, rules.end)
        done |= is_decided(
            live, finished, number, rules, scoring, n_best, early_stopping
        )
        return Loop(number + 1, gather_beams(state, parents), live, finished, done)

    loop = begin(state, first, rules, beam_size, source_mask)
    found = jax.lax.while_loop(unfinished, advance, loop).finished
    tokens, scores, lengths = (leaf[:, :n_best] for leaf in found)
    tokens = jnp.where(lengths[..., None] > 0, tokens, rules.end)
    return Hypotheses(tokens, scores, lengths)


def begin(
    state: PyTree,
    first: Int[Array, "B"],
    rules: DecodingConstraints,
    beam_size: int,
    source_mask: Bool[Array, "B S"],
) -> Loop:
    """Before the first step: one live hypothesis a row, and nothing ended."""
    shape = (len(first), beam_size)
    nothing = jnp.full(shape, -jnp.inf)
    tokens = jnp.full((*shape, rules.max_steps), rules.end, jnp.int32)
    last = jnp.repeat(first.astype(jnp.int32)[:, None], beam_size, axis=1)
    live = Live(
        tokens,
        nothing.at[:, 0].set(0.0),
        last,
        jnp.zeros((*shape, source_mask.shape[1])),
    )
    finished = Hypotheses(tokens, nothing, jnp.zeros(shape, jnp.int32))
    done = jnp.zeros(shape[0], bool)
    return Loop(
        jnp.zeros((), jnp.int32),
        expand_beams(state, beam_size, related=True),
        live,
        finished,
        done,
    )


def continuations(
    log_prob: Float[Array, "B N"],
    logits: Float[Array, "B N V"],
    allowed: Bool[Array, "B V"],
) -> Candidates:
    """The 2N best: each hypothesis ends in one way, so N of them go on.

    The softmax is over all tokens, allowed or not, as the model has it. A
    hypothesis' logits are searched first, and only what is found is normalised.
    """
    count = 2 * logits.shape[1]
    total = jax.nn.logsumexp(logits, axis=-1)
    most = min(count, logits.shape[-1])
    best, tokens = blockwise_top_k(logits, most, allowed[:, None])
    scores = best + (log_prob - total)[..., None]
    scores, places = jax.lax.top_k(scores.reshape(len(scores), -1), count)
    token = jnp.take_along_axis(tokens.reshape(len(scores), -1), places, axis=1)
    return Candidates(scores, places // best.shape[-1], token)


def end_some(
    candidates: Candidates,
    live: Live,
    number: Int[Array, ""],
    end: int,
    scoring: Scoring,
    source_mask: Bool[Array, "B S"],
) -> Hypotheses:
    """Those of the N best continuations that end, with a score; others have -inf."""
    count = live.last.shape[1]
    log_prob, parent, token = (leaf[:, :count] for leaf in candidates)
    score = log_prob / scoring.lengths(number + 1)
    if scoring.coverage_penalty:
        coverage = scoring.coverage(live.attention, source_mask)
        score += jnp.take_along_axis(coverage, parent, axis=1)
    exists = (token == end) & (log_prob > -jnp.inf)
    score = jnp.where(exists, score, -jnp.inf)
    tokens = gather_beams(
        live.tokens, parent
    )  # all places from `number` on hold the end
    return Hypotheses(tokens, score, jnp.where(exists, number + 1, 0))


def best_of(
    finished: Hypotheses, ended: Hypotheses, done: Bool[Array, "B"]
) -> Hypotheses:
    """The N best of both, best first; rows that are done stay as they are."""
    count = finished.scores.shape[1]
    ended = ended._replace(
        scores=jnp.where(done[:, None], -jnp.inf, ended.scores),
    )
    both = jax.tree.map(lambda *two: jnp.concatenate(two, axis=1), finished, ended)
    _, places = jax.lax.top_k(both.scores, count)
    return gather_beams(both, places)


def go_on(
    candidates: Candidates, live: Live, number: Int[Array, ""], end: int
) -> tuple[Live, Int[Array, "B N"]]:
    """The N best continuations that do not end, and whose they are."""
    count = live.last.shape[1]
    scores = jnp.where(candidates.token == end, -jnp.inf, candidates.log_prob)
    scores, places = jax.lax.top_k(scores, count)
    parents = jnp.take_along_axis(candidates.parent, places, axis=1)
    token = jnp.take_along_axis(candidates.token, places, axis=1)
    tokens, attention = gather_beams((live.tokens, live.attention), parents)
    tokens = tokens.at[:, :, number].set(token)
    return Live(tokens, scores, token, attention), parents


def is_decided(
    live: Live,
    finished: Hypotheses,
    number: Int[Array, ""],
    rules: DecodingConstraints,
    scoring: Scoring,
    n_best: int,
    early_stopping: bool,
) -> Bool[Array, "B"]:
    """Whether a row has found what it looks for.

    A live hypothesis scores at most its log P so far over the lp of the length that
    suits it best: the longest for alpha > 0, the next for alpha < 0. Coverage can
    only lower it.
    """
    best = live.log_prob.max(axis=1)
    if early_stopping:
        return (finished.scores[:, -1] > -jnp.inf) | (best == -jnp.inf)
    soonest = best / scoring.lengths(number + 2)
    latest = best / scoring.lengths(rules.longest)
    return jnp.maximum(soonest, latest) <= finished.scores[:, n_best - 1]
