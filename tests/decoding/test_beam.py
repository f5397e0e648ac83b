"""Beam search over tables of logits, against exhaustive search in plain Python."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.beam import beam_search
from decoding.config import MAX_LENGTH_PENALTY, DecodingConfig
from decoding.hypotheses import DecodingConstraints, blockwise_top_k
from decoding.sampling import sample
from helpers.prefix_tables import (
    END,
    FIRST,
    LENGTH,
    SOURCE,
    V,
    everything,
    log_prob,
    node,
    search,
    start,
    step,
    tables,
    without_attention,
)

ROWS = 3
ALL = sum(
    (V - 1) ** length for length in range(LENGTH)
)  # number of possible hypotheses
LIMITS = np.full(ROWS, LENGTH)
MASK = np.asarray([[True] * SOURCE, [True, True, False], [True, False, False]])


def find(context, limits=LIMITS, prefix=None, **options):
    options = {"beam_size": 4, "n_best": 4, "source_mask": None} | options
    mask = options.pop("source_mask")
    method = beam_search if mask is None else with_mask
    found = search(
        method, context, jnp.asarray(limits), prefix, tuple(sorted(options.items()))
    )
    return jax.device_get(found)


def with_mask(*call):
    return beam_search(*call, source_mask=jnp.asarray(MASK))


def hypotheses(found, row):
    """Returns tokens and score of the hypotheses of an example that exist."""
    return [
        (tuple(tokens[:length].tolist()), score)
        for tokens, score, length in zip(*(leaf[row] for leaf in found), strict=True)
        if length
    ]


def score(context, row, tokens, alpha=0.0, beta=0.0):
    """Equation 14 of Wu et al. (2016), in loops."""
    logits, attention = (table[row] for table in context)
    total = log_prob(logits, tokens) / ((5 + len(tokens)) / 6) ** alpha
    for source in range(SOURCE):
        if beta and MASK[row, source]:
            seen = sum(
                float(attention[node(tokens[:number])][source])
                for number in range(len(tokens))
            )
            total += beta * math.log(min(seen, 1.0))
    return total


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.0, 0.0), (4.0, 0.0), (-1.0, 0.0), (0.8, 0.7)]
)
def test_a_beam_that_holds_everything_is_exhaustive_search(alpha, beta):
    context = tables(ROWS)
    options = {"source_mask": MASK} if beta else {}
    penalties = {"length_penalty": alpha, "coverage_penalty": beta}
    found = find(context, beam_size=ALL, n_best=ALL, **penalties, **options)
    for row in range(ROWS):
        expected = {t: score(context, row, t, alpha, beta) for t in everything()}
        assert len(expected) == ALL
        ours = hypotheses(found, row)
        assert {tokens for tokens, _ in ours} == set(expected)
        ranked = sorted(expected.values(), reverse=True)
        np.testing.assert_allclose([s for _, s in ours], ranked, atol=1e-5)
        for tokens, value in ours:
            np.testing.assert_allclose(value, expected[tokens], atol=1e-5)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_length_penalties_rank_as_exact_arithmetic(sign):
    largest = math.log(MAX_LENGTH_PENALTY) / math.log((5 + LENGTH) / 6)
    context, alpha = tables(ROWS), sign * largest
    found = find(context, beam_size=ALL, n_best=1, length_penalty=alpha)
    for row in range(ROWS):
        scores = {t: score(context, row, t, alpha) for t in everything()}
        assert hypotheses(found, row)[0][0] == max(scores, key=scores.get)


def test_length_and_coverage_penalties_change_what_is_best():
    best = set()
    context = tables(ROWS)
    for alpha, beta in [(0.0, 0.0), (4.0, 0.0), (0.8, 0.7)]:
        options = {"source_mask": MASK} if beta else {}
        penalties = {"length_penalty": alpha, "coverage_penalty": beta}
        found = find(context, beam_size=ALL, n_best=ALL, **penalties, **options)
        best.add(tuple(hypotheses(found, row)[0][0] for row in range(ROWS)))
    assert len(best) == 3


@pytest.mark.parametrize(
    ("alpha", "end", "goes_on", "length"), [(4.0, 0.6, 0.3, 4), (-1.0, 0.4, 0.5, 2)]
)
def test_the_search_continues_while_a_live_hypothesis_could_win(
    alpha, end, goes_on, length
):
    """Rewarded length favours the longest, punished length the next to end."""
    logits, attention = tables(1)
    logits[:] = -50.0
    logits[0, node(()), [END, 2]] = np.log([end, goes_on])
    logits[0, node(()), 3] = np.log(1 - end - goes_on)
    words = (*[2] * (length - 1), END)
    for number in range(1, length):
        logits[0, node(words[:number]), words[number]] = 0.0
    limits = np.asarray([LENGTH])
    found = find(
        (logits, attention), limits, beam_size=2, n_best=1, length_penalty=alpha
    )
    ((tokens, value),) = hypotheses(found, 0)
    assert tokens == words
    assert math.log(end) < value  # which ended at once
    np.testing.assert_allclose(
        value, math.log(goes_on) / ((5 + length) / 6) ** alpha, atol=1e-5
    )


def plain_beam(row, beam, alpha, early, limit=LENGTH):
    """Beam search in lists, without any bound: until nothing goes on."""
    live, finished = [((), 0.0)], []
    for number in range(limit):
        last = number == limit - 1
        options = [
            ((*tokens, token), total + log_prob(row[0], (*tokens, token))
             - log_prob(row[0], tokens))
            for tokens, total in live
            for token in ([END] if last else range(V))
        ]  # fmt: skip
        options.sort(key=lambda option: -option[1])
        penalty = ((6 + number) / 6) ** alpha
        finished += [(t, s / penalty) for t, s in options[:beam] if t[-1] == END]
        finished = sorted(finished, key=lambda option: -option[1])[:beam]
        live = [option for option in options if option[0][-1] != END][:beam]
        if early and len(finished) == beam:
            break
    return finished


@pytest.mark.parametrize(
    ("alpha", "early"),
    [  # each penalty, with early stopping or without; the other half is slow
        pytest.param(alpha, early, marks=[pytest.mark.slow] * (early != (alpha > 0)))
        for alpha in (0.0, 1.5, -1.0)
        for early in (False, True)
    ],
)
def test_a_narrow_beam_equals_a_plain_python_beam(alpha, early):
    """The bound behind early_stopping=False changes how long it takes alone."""
    rows, beam = 24, 3
    context = tables(rows, seed=1, spread=1.0)
    for n_best in (1, beam):
        found = find(
            context,
            np.full(rows, LENGTH),
            beam_size=beam,
            n_best=n_best,
            length_penalty=alpha,
            early_stopping=early,
        )
        for row in range(rows):
            expected = plain_beam((context[0][row],), beam, alpha, early)
            ours = hypotheses(found, row)
            assert [t for t, _ in ours] == [t for t, _ in expected[:n_best]], row
            scores = [s for _, s in expected[:n_best]]
            np.testing.assert_allclose([s for _, s in ours], scores, atol=1e-5)


def test_early_stopping_may_return_worse_hypotheses():
    context = tables(24, seed=1, spread=1.0)
    early, late = (
        find(
            context,
            np.full(24, LENGTH),
            beam_size=2,
            n_best=2,
            length_penalty=3.0,
            early_stopping=early,
        )
        for early in (True, False)
    )
    assert (late.scores[:, 0] >= early.scores[:, 0]).all()
    assert (late.scores[:, 0] > early.scores[:, 0]).any()


@pytest.mark.parametrize("early", [False, True])
def test_a_beam_of_one_is_greedy(early):
    rows = 24
    context = tables(rows, seed=2)
    limits = np.arange(rows) % LENGTH + 1
    found = find(context, limits, beam_size=1, n_best=1, early_stopping=early)
    expected = sample(
        without_attention,
        context,
        start(rows),
        jnp.full(rows, FIRST),
        DecodingConstraints(jnp.asarray(limits), LENGTH, END),
        DecodingConfig(temperature=0.0),
        keys=jax.random.split(jax.random.key(0), rows),
    )
    np.testing.assert_array_equal(found.tokens, expected.tokens)


def calls_of(limits, context, early):
    calls = []

    def counted(*inputs):
        jax.debug.callback(lambda: calls.append(1))
        return step(*inputs)

    rows = len(limits)
    rules = DecodingConstraints(jnp.asarray(limits), LENGTH, END)
    found = beam_search(
        counted,
        context,
        start(rows),
        jnp.full(rows, FIRST),
        rules,
        DecodingConfig(beam_size=1, early_stopping=early),
    )
    jax.block_until_ready(found)
    jax.effects_barrier()
    return len(calls)


def test_it_stops_when_every_row_has_ended():
    logits, attention = tables(2)
    logits = logits.copy()
    logits[:, node(()), END] = 50.0  # both rows end at once
    assert calls_of([LENGTH] * 2, (logits, attention), False) == 1
    logits[1, node(()), END] = -50.0  # one goes on
    logits[1, node(()), 2] = 50.0
    logits[1, node((2,)), END] = 50.0
    assert calls_of([LENGTH] * 2, (logits, attention), False) == 2


@pytest.mark.parametrize("early", [False, True])
def test_tokens_do_not_depend_on_the_batch(early):
    logits, attention = tables(ROWS, seed=3, spread=1.0)
    limits = np.asarray([4, 2, 3])
    options = {"length_penalty": 1.0, "early_stopping": early}
    found = find((logits, attention), limits, **options)
    order = np.asarray([2, 0, 1, 1])
    permuted = find((logits[order], attention[order]), limits[order], **options)
    for ours, theirs in zip(permuted, found, strict=True):
        np.testing.assert_array_equal(ours, theirs[order])


def test_hypotheses_are_distinct_sorted_and_padded_with_ends():
    found = find(tables(ROWS), beam_size=ALL, n_best=ALL)
    for row in range(ROWS):
        ours = hypotheses(found, row)
        assert len({tokens for tokens, _ in ours}) == len(ours) == ALL
        assert all(tokens.index(END) == len(tokens) - 1 for tokens, _ in ours)
        scores = [value for _, value in ours]
        assert scores == sorted(scores, reverse=True)
    after = np.arange(LENGTH) >= found.lengths[..., None]
    assert (found.tokens[after] == END).all()


def test_missing_hypotheses_are_marked():
    found = find(tables(ROWS), np.asarray([1, 2, 2]), beam_size=8, n_best=8)
    assert [len(hypotheses(found, row)) for row in range(ROWS)] == [1, 5, 5]
    missing = found.lengths == 0
    assert (found.scores[missing] == -np.inf).all()
    assert (found.tokens[missing] == END).all()


@pytest.mark.parametrize(
    "rules",
    [{"min_length": 2}, {"forbidden": (0, 4)}, {"min_length": 3, "forbidden": (2,)}],
    ids=str,
)
def test_limits_and_forbidden_tokens_are_kept(rules):
    context, limits = tables(ROWS), np.asarray([4, 3, 1])
    found = find(context, limits, beam_size=ALL, n_best=ALL, **rules)
    for row in range(ROWS):
        words = {
            tokens: score(context, row, tokens)
            for tokens in everything(limits[row], forbidden=rules.get("forbidden", ()))
            if len(tokens) > rules.get("min_length", 0) or len(tokens) == limits[row]
        }
        ours = dict(hypotheses(found, row))
        assert ours.keys() == words.keys()
        for tokens, value in ours.items():
            np.testing.assert_allclose(value, words[tokens], atol=1e-5)


def test_hypotheses_begin_with_their_row_s_prefix():
    context = tables(ROWS)
    tokens = jnp.asarray([[2, 0], [4, 0], [0, 0]])
    mask = jnp.asarray([[True, True], [True, False], [False, False]])
    found = find(
        context, prefix=(tokens, mask), beam_size=ALL, n_best=ALL, forbidden=(0,)
    )
    for row, prefix in enumerate([(2, 0), (4,), ()]):
        free = everything(LENGTH - len(prefix), forbidden=(0,))
        expected = {(*prefix, *rest) for rest in free}
        ours = dict(hypotheses(found, row))
        assert ours.keys() == expected
        for words, value in ours.items():
            np.testing.assert_allclose(value, score(context, row, words), atol=1e-5)


def test_a_prefix_may_be_longer_than_the_limit_but_not_than_the_room():
    context = tables(ROWS)
    tokens = jnp.full((ROWS, 2), 2)
    prefix = (tokens, jnp.ones((ROWS, 2), bool))
    found = find(context, np.full(ROWS, 1), prefix, beam_size=2, n_best=2)
    for row in range(ROWS):
        assert [words for words, _ in hypotheses(found, row)] == [(2, 2, END)]
    long = jnp.full((ROWS, LENGTH), 2)
    with pytest.raises(ValueError, match="leaves no room for an end"):
        DecodingConstraints(jnp.asarray(LIMITS), LENGTH, END, prefix=(long, long == 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_best": 5}, "n_best=5 is not in 1 to beam_size=4"),
        ({"coverage_penalty": 1.0}, "needs source_mask"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find(tables(1), np.asarray([LENGTH]), **options)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("values", [3, 10**6])
@pytest.mark.parametrize("size", [100, 1000, 1024])
def test_blockwise_top_k_equals_the_top_of_a_sorted_vocabulary(size, values, count):
    """With few different values, of equal ones the first."""
    draw = np.random.default_rng(size)
    scores = draw.integers(0, values, (2, 3, size)).astype(np.float32)
    scores[1, 1, 5:] = -np.inf
    allowed = draw.random((2, 1, size)) < 0.8
    allowed[1] |= np.arange(size) < 5
    for mask in (None, allowed):
        expected = scores if mask is None else np.where(mask, scores, -np.inf)
        best, tokens = jax.jit(functools.partial(blockwise_top_k, count=count))(
            jnp.asarray(scores), allowed=mask
        )
        order = np.argsort(-expected, axis=-1, kind="stable")[..., :count]
        there = np.asarray(best) > -np.inf
        np.testing.assert_array_equal(np.asarray(tokens)[there], order[there])
        expected = np.take_along_axis(expected, order, axis=-1)
        np.testing.assert_array_equal(best, expected)
        assert np.asarray(tokens).max() < size
