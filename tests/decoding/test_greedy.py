"""Greedy decoding over models whose distributions are known."""

import jax
import jax.numpy as jnp
import numpy as np

from decoding.config import DecodingConfig
from decoding.hypotheses import DecodingConstraints
from decoding.sampling import sample

END, V = 1, 6


def chain(context, state, token):
    """A model that counts: after token n comes n + 1, after the last END."""
    following = jnp.where(token[:, 0] + 1 < V, token[:, 0] + 1, END)
    logits = jax.nn.one_hot(following, V)[:, None]
    return state + 1, logits + 0.5 * jax.nn.one_hot(0, V) * context


def greedy(step, context, first, constraints):
    """Returns the tokens that sampling with a temperature of 0 finds."""
    rows = len(first)
    keys = jax.random.split(jax.random.key(0), rows)
    inputs = (context, jnp.zeros((rows, 1)), jnp.asarray(first), constraints)
    config = DecodingConfig(temperature=0.0)
    return sample(step, *inputs, config, keys=keys).tokens[:, 0]


def run(first, limits, max_steps=5, forbidden=(), context=0.0):
    limits = jnp.asarray(limits)
    rules = DecodingConstraints(limits, max_steps, END, forbidden=forbidden)
    return np.asarray(greedy(chain, context, first, rules)).tolist()


def test_it_follows_the_likeliest_token_up_to_the_end():
    assert run([2, 4], [5, 5]) == [[3, 4, 5, END, END], [5, END, END, END, END]]


def test_a_limit_ends_a_row_with_the_end():
    assert run([2, 2], [2, 1]) == [[3, END, END, END, END], [END] * 5]


def test_forbidden_tokens_are_never_chosen():
    assert run([2], [5], context=9.0)[0][0] == 0
    assert run([2], [5], context=9.0, forbidden=(0,))[0][0] == 3


def test_it_stops_when_all_rows_have_ended():
    calls = []

    def counted(context, state, token):
        jax.debug.callback(lambda: calls.append(1))
        return chain(context, state, token)

    first, limits = jnp.asarray([4, 5]), jnp.asarray([50, 50])
    found = greedy(counted, 0.0, first, DecodingConstraints(limits, 50, END))
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert len(calls) == 2
