"""A model whose next token depends on all tokens before it, given by tables.

Searches over it can be compared with exhaustive search in plain Python.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from decoding.config import DecodingConfig
from decoding.hypotheses import DecodingConstraints

END, V, LENGTH, SOURCE = 1, 5, 4, 3
FIRST = 3  # token before the hypotheses
NODES = sum(V**depth for depth in range(LENGTH + 1))


def tables(rows, seed=0, spread=2.0):
    """Returns logits and attention after every prefix, for each example."""
    random = np.random.default_rng(seed)
    logits = spread * random.standard_normal((rows, NODES, V))
    attention = random.dirichlet(np.full(SOURCE, 0.5), (rows, NODES))
    return logits.astype(np.float32), attention.astype(np.float32)


def start(rows):
    """Returns the decoding state before the first token: prefix and its length."""
    return {"prefix": jnp.zeros((rows, 1), jnp.int32), "number": jnp.asarray(0)}


def step(context, state, token):
    """Decoding step of the model; returns a state, logits, and attention."""
    logits, attention = context
    longer = jnp.where(state["number"] == 0, 0, state["prefix"] * V + token + 1)
    at = jnp.clip(longer, 0, NODES - 1)[..., None]
    after = {"prefix": longer, "number": state["number"] + 1}
    found = [jnp.take_along_axis(jnp.asarray(t), at, axis=1) for t in context]
    del logits, attention
    return after, *found


def without_attention(context, state, token):
    """Decoding step without attention."""
    return step(context, state, token)[:2]


@functools.partial(jax.jit, static_argnums=(0, 4))
def search(method, context, limits, prefix, options):
    """Searches the tables; compiled once for equal options.

    Args:
      options: keywords of `DecodingConstraints` and of `DecodingConfig`, as pairs.
    """
    keys = ("min_length", "forbidden")
    options = dict(options)
    kept = {key: options.pop(key) for key in keys if key in options}
    constraints = DecodingConstraints(limits, LENGTH, END, prefix=prefix, **kept)
    rows = len(limits)
    return method(
        step,
        context,
        start(rows),
        jnp.full(rows, FIRST),
        constraints,
        DecodingConfig(**options),
    )


def node(tokens):
    """Returns the index of the tables for the continuation of a prefix."""
    at = 0
    for token in tokens:
        at = at * V + token + 1
    return at


def log_prob(row, tokens):
    """Returns the log probability of tokens under the logits of one example."""
    total = 0.0
    for number, token in enumerate(tokens):
        logits = row[node(tokens[:number])].astype(np.float64)
        total += logits[token] - math.log(np.exp(logits).sum())
    return total


def everything(limit=LENGTH, min_length=0, forbidden=(), prefix=()):
    """Yields all sequences with an end symbol that satisfy the constraints."""
    words = [token for token in range(V) if token != END and token not in forbidden]
    for length in range(limit):
        for tokens in itertools.product(words, repeat=length):
            if length >= min_length and tokens[: len(prefix)] == prefix:
                yield (*tokens, END)
