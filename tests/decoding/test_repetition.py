"""Rules against repetition, against their definitions in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.beam import beam_search
from decoding.config import DecodingConfig
from decoding.hypotheses import DecodingConstraints
from decoding.repetition import (
    NOT_COUNTED,
    add_repetition_rules,
    penalize_tokens,
    repeated_ngrams,
)
from decoding.sampling import sample
from helpers.architectures import LanguageModelCase, names
from helpers.prefix_tables import (
    END,
    FIRST,
    LENGTH,
    V,
    everything,
    log_prob,
    node,
    search,
    tables,
)
from helpers.task_cases import decode_options, language_modeling_task

ROWS = 3
ALL = sum((V - 1) ** length for length in range(LENGTH))
RULES = (
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 3.0},
)


def restricted_beam(step, context, state, first, constraints, config):
    constraints = add_repetition_rules(constraints, first, config)
    return beam_search(step, context, state, first, constraints, config)


def restricted_sample(step, context, state, first, constraints, config):
    constraints = add_repetition_rules(constraints, first, config)
    *tables, keys = context
    arguments = (step, tuple(tables), state, first, constraints, config)
    return sample(*arguments, keys=keys)


def find(context, limits=None, prefix=None, method=restricted_beam, **options):
    limits = jnp.full(len(context[0]), LENGTH) if limits is None else limits
    return jax.device_get(
        search(method, context, limits, prefix, tuple(sorted(options.items())))
    )


def draw(context, **options):
    keys = jax.random.split(jax.random.key(0), len(context[0]))
    return find((*context, keys), method=restricted_sample, **options)


def hypotheses(found, row):
    return {
        tuple(tokens[:length].tolist()): score
        for tokens, score, length in zip(*(leaf[row] for leaf in found), strict=True)
        if length
    }


def would_repeat(tokens, size):
    """Tokens that would complete an n-gram for the second time, in a dictionary."""
    completions = {}
    for start in range(len(tokens) - size + 1):
        *begin, last = tokens[start : start + size]
        completions.setdefault(tuple(begin), set()).add(last)
    return completions.get(tuple(tokens[len(tokens) - size + 1 :]), set())


def has_repetition(tokens, size):
    ngrams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
    return len(set(ngrams)) < len(ngrams)


def penalized(logits, tokens, penalty):
    """Logits after the repetition penalty of the tokens so far, token by token."""
    changed = logits.astype(np.float64)
    for token in set(tokens) - {END}:
        changed[token] *= penalty if changed[token] < 0 else 1 / penalty
    return changed


def penalized_log_prob(row, tokens, penalty):
    total = 0.0
    for number, token in enumerate(tokens):
        logits = penalized(row[node(tokens[:number])], tokens[:number], penalty)
        total += logits[token] - np.log(np.exp(logits).sum())
    return total


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_excluded_tokens_are_those_that_would_repeat_an_ngram(size):
    draw = np.random.default_rng(size)
    width, vocabulary = 12, 3
    history = draw.integers(0, vocabulary, (6, 2, width))
    excluded = jax.jit(repeated_ngrams, static_argnums=(2, 3))
    any_excluded = False
    for end in range(width + 1):
        known = np.where(np.arange(width) < end, history, NOT_COUNTED)
        ours = excluded(jnp.asarray(known), jnp.asarray(end), size, vocabulary)
        for at in np.ndindex(6, 2):
            expected = would_repeat(history[at][:end].tolist(), size)
            assert set(np.flatnonzero(ours[at])) == expected
            any_excluded |= bool(expected)
    assert any_excluded


def test_an_ngram_longer_than_a_hypothesis_excludes_nothing():
    history = jnp.zeros((1, 1, 3), int)
    assert not repeated_ngrams(history, jnp.asarray(3), 5, 4).any()


def test_the_penalty_divides_positive_logits_and_multiplies_others():
    logits = jnp.asarray([[[2.0, -2.0, 0.0, 3.0, -jnp.inf]]])
    history = jnp.asarray([[[0, 0, 1, 2, 4, NOT_COUNTED]]])
    ours = penalize_tokens(history, 2.0, logits)
    np.testing.assert_array_equal(ours[0, 0], [1.0, -4.0, 0.0, 3.0, -np.inf])


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_beam_that_holds_everything_is_exhaustive_search_under_the_rules(rules):
    """An excluded token keeps its probability; a penalty changes the distribution."""
    context = tables(ROWS)
    size = rules.get("no_repeat_ngram_size", 0)
    penalty = rules.get("repetition_penalty", 1.0)
    found = find(context, beam_size=ALL, n_best=ALL, **rules)
    allowed = [t for t in everything() if not size or not has_repetition(t, size)]
    assert size == 0 or len(allowed) < ALL
    for row in range(ROWS):
        expected = {
            tokens: penalized_log_prob(context[0][row], tokens, penalty)
            for tokens in allowed
        }
        ours = hypotheses(found, row)
        assert ours.keys() == expected.keys()
        for tokens, value in ours.items():
            np.testing.assert_allclose(value, expected[tokens], atol=1e-5)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_greedy_search_and_a_beam_of_one_follow_the_rules_alike(rules):
    rows = 24
    context = tables(rows)
    found = draw(context, temperature=0.0, **rules)
    beam = find(context, beam_size=1, n_best=1, **rules)
    np.testing.assert_array_equal(found.tokens, beam.tokens)
    changed = False
    for row in range(rows):
        expected = []
        while END not in expected:
            plain = context[0][row][node(tokens=expected)]
            logits = penalized(plain, expected, rules.get("repetition_penalty", 1.0))
            size = rules.get("no_repeat_ngram_size", 0)
            logits[list(would_repeat(expected, size) if size else ())] = -np.inf
            is_last = len(expected) == LENGTH - 1
            expected.append(END if is_last else int(logits.argmax()))
            changed |= not is_last and expected[-1] != plain.argmax()
        assert (*expected,) in hypotheses(found, row)
    assert changed


def test_samples_keep_the_rules_and_the_scores_of_the_model():
    context = tables(4, spread=1.0)
    found = draw(context, n_best=200, no_repeat_ngram_size=1, repetition_penalty=1.5)
    for row in range(4):
        for tokens, value in hypotheses(found, row).items():
            assert not has_repetition(tokens, 1)
            expected = log_prob(context[0][row], tokens)
            np.testing.assert_allclose(value, expected, atol=1e-5)


def test_samples_have_the_penalised_frequencies():
    many, limit = 4000, 23.5  # chi square of 4 degrees of freedom, once in 10,000
    context = tables(1, spread=1.0)
    found = draw(context, n_best=many, repetition_penalty=5.0)
    first = found.tokens[0, :, 0]
    counts = np.bincount(found.tokens[0, first == 2, 1], minlength=V)
    logits = context[0][0, node((2,))]
    for penalty, is_close in ((5.0, True), (1.0, False)):
        mass = np.exp(penalized(logits, (2,), penalty))
        expected = counts.sum() * mass / mass.sum()
        assert (((counts - expected) ** 2 / expected).sum() < limit) == is_close


def test_a_prefix_may_repeat_and_its_tokens_count():
    prefix = (jnp.asarray([[2, 2]] * ROWS), jnp.ones((ROWS, 2), bool))
    options = {"beam_size": ALL, "n_best": ALL, "no_repeat_ngram_size": 1}
    found = find(tables(ROWS), prefix=prefix, **options)
    for row in range(ROWS):
        last = {(2, 2, END), *((2, 2, token, END) for token in (0, 3, 4))}
        assert hypotheses(found, row).keys() == last


def test_a_hypothesis_without_another_continuation_ends():
    options = {"forbidden": (0, 3, 4), "min_length": 3, "no_repeat_ngram_size": 1}
    found = find(tables(ROWS), beam_size=2, n_best=2, **options)
    drawn = draw(tables(ROWS), n_best=2, **options)
    for row in range(ROWS):
        assert hypotheses(found, row).keys() == {(2, END)}
        assert hypotheses(drawn, row).keys() == {(2, END)}


def test_a_prompt_counts_up_to_the_first_token_and_without_its_end_symbol():
    prompt = jnp.asarray([[END, 4, 2, 0, 0], [END, 0, 0, 0, 0]])
    mask = jnp.asarray([[True, True, True, False, False], [True] + [False] * 4])
    constraints = DecodingConstraints(
        jnp.full(2, LENGTH), LENGTH, END, prompt=(prompt, mask)
    )

    @functools.partial(jax.jit, static_argnums=0)
    def restrict(size, first, step, tokens):
        config = DecodingConfig(no_repeat_ngram_size=size)
        rules = add_repetition_rules(constraints, first, config)
        return rules.restrict(step, jnp.zeros((2, 1, V)), tokens)[1]

    def excluded(size, first, *tokens):
        padded = np.asarray([[[*tokens, *[END] * (LENGTH - len(tokens))]]] * 2)
        allowed = restrict(size, np.asarray(first), len(tokens), padded)
        return [set(np.flatnonzero(~row[0])) for row in np.asarray(allowed)]

    assert excluded(1, [FIRST, FIRST]) == [{2, 3, 4}, {3}]
    assert excluded(2, [FIRST, 4]) == [set(), set()]
    assert excluded(2, [4, 4]) == [{2}, set()]
    assert excluded(2, [4, FIRST], 2) == [{4}, set()]  # 4 2 4 2: now 2 4 would repeat
    assert excluded(3, [4, FIRST], 2) == [{4}, set()]  # 4 2 4 2: now 4 2 4 would


@pytest.mark.parametrize("name", names())
def test_a_continuation_repeats_no_token_of_its_line(name):
    case, task = LanguageModelCase(name, layers=1), language_modeling_task()
    cfg = decode_options(no_repeat_ngram_size=1)
    (text,) = task.predict(case.model, case.variables, ["5 6 7"], cfg)
    words = ["5", "6", "7", *text.split()]
    assert len(words) > 4
    assert len(set(words)) == len(words)
