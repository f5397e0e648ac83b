"""Greedy decoding over models whose distributions are known."""

import jax
import jax.numpy as jnp
import numpy as np

from decoding.constraints import DecodingConstraints
from decoding.greedy import greedy

END, V = 1, 6


def chain(context, state, token):
    """A model that counts: after token n comes n + 1, after the last END."""
    following = jnp.where(token[:, 0] + 1 < V, token[:, 0] + 1, END)
    logits = jax.nn.one_hot(following, V)[:, None]
    return state + 1, logits + 0.5 * jax.nn.one_hot(0, V) * context


def run(first, limits, max_steps=5, forbidden=(), context=0.0):
    return np.asarray(
        greedy(
            chain,
            context,
            jnp.zeros((len(first), 1)),
            jnp.asarray(first),
            DecodingConstraints(
                jnp.asarray(limits), max_steps, END, forbidden=forbidden
            ),
        )
    ).tolist()


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
    found = greedy(
        counted, 0.0, jnp.zeros((2, 1)), first, DecodingConstraints(limits, 50, END)
    )
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert len(calls) == 2
