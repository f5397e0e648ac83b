"""Sampling over tables of logits: filters, frequencies, random keys, constraints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.config import MAX_TEMPERATURE, DecodingConfig
from decoding.sampling import filter_logits, sample
from helpers.prefix_tables import (
    END,
    LENGTH,
    V,
    everything,
    log_prob,
    node,
    search,
    tables,
)

SIZE = 150  # of a vocabulary with several blocks
MANY = 4000
CHI_SQUARE = 23.5  # of 4 degrees of freedom: exceeded once in 10,000


def draw(context, seed=0, ids=None, limits=None, prefix=None, **options):
    rows = len(context[0])
    ids = np.arange(rows) if ids is None else ids
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), ids)

    limits = jnp.full(rows, LENGTH) if limits is None else jnp.asarray(limits)
    found = search(
        by_keys, (*context, keys), limits, prefix, tuple(sorted(options.items()))
    )
    return jax.device_get(found)


def by_keys(step, context, *call):
    *tables, keys = context
    return sample(step, tuple(tables), *call, keys=keys)


def filtered_probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Returns filtered probabilities, in NumPy."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")[: top_k or len(logits)]
    mass = np.exp(scaled[order] - scaled.max())
    mass /= mass.sum()
    number = 1 + int((np.cumsum(mass)[:-1] < top_p).sum())
    left = np.zeros(len(logits))
    left[order[:number]] = mass[:number] / mass[:number].sum()
    return left


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": SIZE + 9},
        {"top_p": 0.5},
        {"top_p": 0.95},
        {"top_p": 1e-6},
        {"temperature": 1.3, "top_k": 20, "top_p": 0.8},
        {"temperature": MAX_TEMPERATURE},
        {"temperature": MAX_TEMPERATURE, "top_k": 3},
        {"top_p": 1e-50},
    ],
    ids=str,
)
def test_filters_keep_exactly_the_right_tokens(options):
    logits = 3 * jax.random.normal(jax.random.key(0), (2, 3, SIZE))
    left, tokens = jax.device_get(filter_logits(DecodingConfig(**options), logits))
    for at in np.ndindex(2, 3):
        expected = filtered_probabilities(np.asarray(logits[at]), **options)
        ours = np.zeros(SIZE)
        ours[tokens[at]] = jax.nn.softmax(left[at])
        np.testing.assert_array_equal(ours > 0, expected > 0)
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_ties_are_broken_by_token_id():
    left, tokens = filter_logits(DecodingConfig(top_p=0.5), jnp.zeros(8))
    assert tokens[left > -np.inf].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}], ids=str
)
def test_token_frequencies_agree_with_probabilities(options):
    context = tables(1, spread=1.0)
    found = draw(context, n_best=MANY, **options)
    expected = MANY * filtered_probabilities(context[0][0, 0], **options)
    counts = np.bincount(found.tokens[0, :, 0], minlength=V)
    assert not counts[expected == 0].any()
    there = expected > 0
    excess = (counts - expected)[there] ** 2 / expected[there]
    assert excess.sum() < CHI_SQUARE
    second = found.tokens[0, found.tokens[0, :, 0] == 2, 1]
    expected = len(second) * filtered_probabilities(
        context[0][0, 3], **options
    )  # after token 2
    counts = np.bincount(second, minlength=V)
    excess = (counts - expected)[expected > 0] ** 2 / expected[expected > 0]
    assert len(second) > 100
    assert excess.sum() < CHI_SQUARE


@pytest.mark.parametrize("temperature", [0.0, 1e-50, 1e-38, 1e-12, 1e-9])
def test_a_temperature_of_zero_or_about_zero_is_greedy(temperature):
    rows = 24
    context, limits = tables(rows), np.arange(rows) % LENGTH + 1
    found = draw(context, limits=limits, n_best=2, temperature=temperature)
    for row, limit in enumerate(limits):
        expected = []
        while expected[-1:] != [END]:
            logits = context[0][row][node(tokens=expected)]
            is_last = len(expected) == limit - 1
            expected.append(END if is_last else int(logits.argmax()))
        for one in range(2):
            length = found.lengths[row, one]
            assert found.tokens[row, one, :length].tolist() == expected


def test_a_seed_gives_the_same_tokens_and_another_others():
    context = tables(8)
    one, again, other = (draw(context, seed, n_best=3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.tokens, again.tokens)
    assert (one.tokens != other.tokens).any(axis=(1, 2)).mean() > 0.5


def test_tokens_do_not_depend_on_the_batch():
    logits, attention = tables(3)
    found = draw((logits, attention), limits=[4, 2, 3], n_best=3)
    order = np.asarray([2, 0, 1, 1])
    permuted = draw(
        (logits[order], attention[order]),
        ids=order,
        limits=np.asarray([4, 2, 3])[order],
        n_best=3,
    )
    for ours, theirs in zip(permuted, found, strict=True):
        np.testing.assert_array_equal(ours, theirs[order])


def test_examples_and_samples_are_independent():
    logits, attention = (np.repeat(table, 50, axis=0) for table in tables(1))
    found = draw((logits, attention), n_best=50)
    for axis in (0, 1):
        assert len(np.unique(found.tokens.take(0, axis=axis), axis=0)) > 10


def test_scores_are_log_probabilities_of_the_unfiltered_model():
    context = tables(4)
    found = draw(context, n_best=5, temperature=2.0, top_k=4)
    for row, one in np.ndindex(4, 5):
        words = found.tokens[row, one, : found.lengths[row, one]]
        assert words.tolist().index(END) == len(words) - 1
        assert (found.tokens[row, one, len(words) :] == END).all()
        expected = log_prob(context[0][row], words.tolist())
        np.testing.assert_allclose(found.scores[row, one], expected, atol=1e-5)


def test_samples_satisfy_the_constraints():
    prefix = (jnp.asarray([[2], [0]]), jnp.asarray([[True], [False]]))
    limits = np.asarray([4, 3])
    constraints = {"min_length": 2, "forbidden": (0, 3)}
    found = draw(tables(2), n_best=200, limits=limits, prefix=prefix, **constraints)
    for row, begin in enumerate([(2,), ()]):
        allowed = set(everything(limits[row], prefix=begin, **constraints))
        words = {
            tuple(tokens[:length].tolist())
            for tokens, length in zip(
                found.tokens[row], found.lengths[row], strict=True
            )
        }
        assert words <= allowed
        assert len(words) > 2
