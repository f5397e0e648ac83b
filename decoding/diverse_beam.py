"""Diverse beam search with Hamming diversity (Vijayakumar et al. 2018, section 3).

The N beams are G groups of N / G. At each step group after group continues its
hypotheses as a beam search does, by log probabilities from which

    lambda * (number of live hypotheses of the groups before that chose the token now)

is subtracted; a hypothesis is ranked in its group by their sum over its tokens. The
first group is a plain beam search of size N / G. As in the authors' program, finished
hypotheses are ranked by the score of the model without that penalty, in their group
and over all groups.

Tokens that are forced, by a prefix or a length limit, cost nothing. A hypothesis that
ends leaves its group, so that the end symbol costs nothing either. Groups that found
the same hypothesis return it once.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from decoding.beam import (
    LiveBeams,
    advance_live,
    init_beams,
    is_final,
    top_continuations,
    update_finished,
)
from decoding.config import DecodingConfig
from decoding.hypotheses import (
    NOT_FORCED,
    DecodingConstraints,
    Hypotheses,
    StepFn,
    gather_beams,
)


class Group(NamedTuple):
    """Beam of one group.

    Attributes:
      live: unfinished hypotheses; their log probabilities include the penalty.
      penalty: sum of the penalties of each live hypothesis, 0 or more.
    """

    live: LiveBeams
    penalty: Float[Array, "B N"]
    finished: Hypotheses
    done: Bool[Array, "B"]


class DiverseState(NamedTuple):
    """Loop state of a diverse beam search; the decoding state has all groups' beams."""

    step: Int[Array, ""]
    state: PyTree
    groups: tuple[Group, ...]


def diverse_beam_search(
    step_fn: StepFn,
    context: PyTree,
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    config: DecodingConfig,
    *,
    source_mask: Bool[Array, "B S"] | None = None,
) -> Hypotheses:
    """Returns the `n_best` distinct continuations of all groups, best first.

    An example stops when every group has, see `decoding.beam.beam_search`, whose
    arguments these are.

    Raises:
      ValueError: `beam_groups` does not divide `beam_size`; see `init_beams`.
    """
    num_groups, size = config.beam_groups, config.beam_size // config.beam_groups
    if size * num_groups != config.beam_size:
        raise ValueError(f"{num_groups} groups do not divide {config.beam_size} beams")
    own = dataclasses.replace(
        config, beam_size=size, n_best=min(config.n_best, size), beam_groups=1
    )
    whole = init_beams(state, first_token, constraints, config, source_mask)

    def is_unfinished(loop: DiverseState):
        done = jnp.stack([group.done for group in loop.groups])
        return (loop.step < constraints.max_steps) & ~done.all()

    def advance(loop: DiverseState) -> DiverseState:
        step, state, groups = loop
        beams = [group.live for group in groups]
        live = jax.tree.map(lambda *each: jnp.concatenate(each, axis=1), *beams)
        state, logits, *attention = step_fn(context, state, live.last_token)
        logits, allowed = constraints.restrict(step, logits, live.tokens)
        allowed = jnp.broadcast_to(allowed, logits.shape)
        is_free = constraints.forced_token(step) == NOT_FORCED
        weight = config.diversity_penalty * is_free[:, None]
        penalties = jnp.zeros((logits.shape[0], logits.shape[-1]))
        rules = step, constraints, own, source_mask
        after, parents = [], []
        for index, group in enumerate(groups):
            part = slice(index * size, (index + 1) * size)
            if config.coverage_penalty:
                seen = group.live.attention + attention[0][:, part]
                group = group._replace(live=group.live._replace(attention=seen))
            scores = logits[:, part], allowed[:, part], penalties
            group, chosen = advance_group(group, *scores, *rules)
            penalties = penalize_last_tokens(penalties, group.live, weight)
            after.append(group)
            parents.append(chosen + index * size)
        state = gather_beams(state, jnp.concatenate(parents, axis=1))
        return DiverseState(step + 1, state, tuple(after))

    beams = whole.live, jnp.zeros(whole.live.log_prob.shape), whole.finished
    group = Group(*jax.tree.map(lambda leaf: leaf[:, :size], beams), whole.done)
    loop = DiverseState(whole.step, whole.state, (group,) * num_groups)
    groups = jax.lax.while_loop(is_unfinished, advance, loop).groups
    return merge_groups(
        [group.finished for group in groups], config.n_best, constraints.eos_id
    )


def advance_group(
    group: Group,
    logits: Float[Array, "B N V"],
    allowed: Bool[Array, "B N V"],
    penalties: Float[Array, "B V"],
    step: Int[Array, ""],
    constraints: DecodingConstraints,
    config: DecodingConfig,
    source_mask: Bool[Array, "B S"] | None,
) -> tuple[Group, Int[Array, "B N"]]:
    """Continues the hypotheses of a group by one token; returns their parents too.

    Args:
      penalties: what the log probability of each token is lowered by.
      config: that of the group alone.
    """
    live, penalty, finished, done = group
    candidates = top_continuations(live.log_prob, logits, allowed, penalties)

    def total_penalty(parent, token):
        pairs = (penalty, parent), (penalties, token)
        return sum(jnp.take_along_axis(*pair, axis=1) for pair in pairs)

    lowered = total_penalty(candidates.parent, candidates.token)
    by_model = candidates._replace(log_prob=candidates.log_prob + lowered)
    eos_id = constraints.eos_id
    finished = update_finished(
        finished, done, by_model, live, step, eos_id, config, source_mask
    )
    live, parents = advance_live(candidates, live, step, eos_id)
    penalty = total_penalty(parents, live.last_token)
    best = live._replace(log_prob=live.log_prob + penalty)
    done |= is_final(finished, best, step, constraints, config)
    return Group(live, penalty, finished, done), parents


def penalize_last_tokens(
    penalties: Float[Array, "B V"], live: LiveBeams, weight: Float[Array, "B 1"]
) -> Float[Array, "B V"]:
    """Adds a weight to the penalty of a token, for each hypothesis that chose it."""
    rows = jnp.arange(penalties.shape[0])[:, None]
    amounts = jnp.where(live.log_prob > -jnp.inf, weight, 0.0)
    return penalties.at[rows, live.last_token].add(amounts)


def merge_groups(finished: list[Hypotheses], n_best: int, eos_id: int) -> Hypotheses:
    """Returns the `n_best` distinct hypotheses of all groups, best first."""
    every = jax.tree.map(lambda *each: jnp.concatenate(each, axis=1), *finished)
    tokens, lengths = every.tokens, every.lengths
    same = (tokens[:, :, None] == tokens[:, None]).all(axis=-1)
    same &= lengths[:, :, None] == lengths[:, None]
    is_copy = jnp.tril(same, -1).any(axis=-1)  # of one of a group before
    scores = jnp.where(is_copy, -jnp.inf, every.scores)
    scores, indices = jax.lax.top_k(scores, n_best)
    tokens, lengths = gather_beams((tokens, lengths), indices)
    is_missing = scores == -jnp.inf
    tokens = jnp.where(is_missing[..., None], eos_id, tokens)
    return Hypotheses(tokens, scores, jnp.where(is_missing, 0, lengths))
