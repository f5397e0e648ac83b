"""Diverse beam search over tables of logits, against its algorithm in lists."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.beam import beam_search
from decoding.diverse_beam import diverse_beam_search
from helpers.prefix_tables import (
    END,
    LENGTH,
    SOURCE,
    V,
    everything,
    log_prob,
    node,
    search,
    tables,
)

ALL = sum((V - 1) ** length for length in range(LENGTH))
ROWS = 12


def find(context, method=diverse_beam_search, limits=None, prefix=None, **options):
    limits = np.full(len(context[0]), LENGTH) if limits is None else limits
    return jax.device_get(
        search(method, context, limits, prefix, tuple(sorted(options.items())))
    )


def covering(*arguments):
    mask = jnp.ones((len(arguments[3]), SOURCE), bool)
    return diverse_beam_search(*arguments, source_mask=mask)


def hypotheses(found, row):
    return [
        (tuple(tokens[:length].tolist()), score)
        for tokens, score, length in zip(*(leaf[row] for leaf in found), strict=True)
        if length
    ]


def plain_diverse_beam(row, groups, size, weight, alpha, early, prefix=()):
    """Algorithm 1 of Vijayakumar et al. (2018), until nothing goes on."""
    live = [[((), 0.0, 0.0)] for _ in range(groups)]  # tokens, with penalty, without
    finished, done = [[] for _ in range(groups)], [False] * groups
    for number in range(LENGTH):
        forced = [END] if number == LENGTH - 1 else prefix[number : number + 1]
        used = Counter()
        for group in range(groups):
            options = []
            for tokens, total, by_model in live[group]:
                for token in forced or range(V):
                    longer = (*tokens, token)
                    gain = log_prob(row, longer) - log_prob(row, tokens)
                    cost = 0.0 if forced else weight * used[token]
                    options.append((longer, total + gain - cost, by_model + gain))
            options.sort(key=lambda option: -option[1])
            penalty = ((6 + number) / 6) ** alpha
            if not done[group]:
                ended = [o for o in options[:size] if o[0][-1] == END]
                finished[group] += [(t, by_model / penalty) for t, _, by_model in ended]
                finished[group].sort(key=lambda option: -option[1])
                del finished[group][size:]
                done[group] = early and len(finished[group]) == size
            live[group] = [o for o in options if o[0][-1] != END][:size]
            used.update(tokens[-1] for tokens, *_ in live[group])
    best = {}
    for tokens, score in (pair for each in finished for pair in each):
        best.setdefault(tokens, score)
    return sorted(best.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize(
    ("groups", "size", "weight", "alpha", "early"),
    [
        (2, 2, 0.7, 0.0, False),
        pytest.param(3, 1, 0.4, 1.5, True, marks=pytest.mark.slow),
        pytest.param(2, 3, 2.5, -1.0, False, marks=pytest.mark.slow),
        (4, 2, 0.2, 1.0, True),
    ],
)
def test_it_equals_the_algorithm_in_lists(groups, size, weight, alpha, early):
    context = tables(ROWS, seed=1, spread=1.0)
    options = {
        "beam_size": groups * size,
        "beam_groups": groups,
        "diversity_penalty": weight,
        "length_penalty": alpha,
        "early_stopping": early,
    }
    everything = find(context, n_best=groups * size, **options)
    best = find(context, n_best=1, **options)
    plain = find(context, beam_search, n_best=groups * size, **options)
    assert (everything.tokens != plain.tokens).any()
    for row in range(ROWS):
        expected = plain_diverse_beam(
            context[0][row], groups, size, weight, alpha, early
        )
        ours = hypotheses(everything, row)
        assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in expected]
        scores = [score for _, score in expected]
        np.testing.assert_allclose([score for _, score in ours], scores, atol=1e-5)
        assert hypotheses(best, row)[0][0] == expected[0][0]


def test_groups_that_hold_everything_return_each_hypothesis_once_as_the_model_scores():
    context = tables(2)
    found = find(
        context,
        beam_size=2 * ALL,
        beam_groups=2,
        n_best=2 * ALL,
        diversity_penalty=1.5,
    )
    for row in range(2):
        ours = hypotheses(found, row)
        expected = {t: log_prob(context[0][row], t) for t in everything()}
        assert len(ours) == ALL
        assert dict(ours).keys() == expected.keys()
        for tokens, score in ours:
            np.testing.assert_allclose(score, expected[tokens], atol=1e-5)
    missing = found.lengths == 0
    assert missing.sum() == 2 * ALL
    assert (found.scores[missing] == -np.inf).all()
    assert (found.tokens[missing] == END).all()


def test_without_a_penalty_every_group_is_the_same_beam():
    context = tables(ROWS, seed=2)
    narrow = find(context, beam_search, beam_size=2, n_best=2)
    found = find(context, beam_size=6, beam_groups=3, n_best=6)
    np.testing.assert_array_equal(found.tokens[:, :2], narrow.tokens)
    np.testing.assert_allclose(found.scores[:, :2], narrow.scores, atol=1e-6)
    assert (found.lengths[:, 2:] == 0).all()


def test_a_large_penalty_gives_each_group_another_token_at_each_step():
    logits, attention = tables(ROWS, seed=3)
    logits = logits.copy()
    logits[:, :, END] = -20.0  # no hypothesis ends before the limit
    found = find(
        (logits, attention),
        beam_size=4,
        beam_groups=4,
        n_best=4,
        diversity_penalty=50.0,
    )
    assert (found.lengths == LENGTH).all()
    for step in range(LENGTH - 1):
        for tokens in found.tokens[:, :, step]:
            assert len(set(tokens.tolist())) == 4


def test_forced_tokens_cost_nothing():
    context = tables(ROWS, seed=4, spread=1.0)
    prefix = (jnp.asarray([[2, 4]] * ROWS), jnp.ones((ROWS, 2), bool))
    options = {"beam_size": 4, "beam_groups": 2, "n_best": 4}
    found = find(context, prefix=prefix, diversity_penalty=1.0, **options)
    for row in range(ROWS):
        expected = plain_diverse_beam(context[0][row], 2, 2, 1.0, 0.0, False, (2, 4))
        ours = hypotheses(found, row)
        assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in expected]
        assert all(tokens[:2] == (2, 4) for tokens, _ in ours)


def test_coverage_is_that_of_each_hypothesis():
    context = logits, attention = tables(ROWS, seed=5)
    options = {"beam_size": 4, "beam_groups": 2, "diversity_penalty": 1.0}
    found = find(context, covering, n_best=4, coverage_penalty=0.7, **options)
    for row in range(ROWS):
        for tokens, score in hypotheses(found, row):
            seen = sum(
                attention[row, node(tokens[:number])] for number in range(len(tokens))
            )
            expected = log_prob(logits[row], tokens)
            expected += 0.7 * np.log(np.minimum(seen, 1)).sum()
            np.testing.assert_allclose(score, expected, atol=1e-5)


def test_tokens_do_not_depend_on_the_batch():
    logits, attention = tables(3, seed=3, spread=1.0)
    limits, order = np.asarray([4, 2, 3]), np.asarray([2, 0, 1, 1])
    options = {"beam_size": 4, "beam_groups": 2, "n_best": 4, "early_stopping": True}
    options["diversity_penalty"] = 0.8
    found = find((logits, attention), limits=limits, **options)
    permuted = find((logits[order], attention[order]), limits=limits[order], **options)
    for ours, theirs in zip(permuted, found, strict=True):
        np.testing.assert_array_equal(ours, theirs[order])


def test_groups_must_divide_the_beams():
    with pytest.raises(ValueError, match="3 groups do not divide 4 beams"):
        find(tables(1), beam_size=4, beam_groups=3)
