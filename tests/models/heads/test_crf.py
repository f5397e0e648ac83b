"""The conditional random field against enumeration of all label sequences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.heads.crf import CRF

B, N, L = 3, 4, 3
LENGTHS = (4, 2, 1)


@functools.cache
def case():
    """Parameters, emissions, labels and mask, all drawn."""
    draw = np.random.default_rng(0)
    params = {"start": (L,), "end": (L,), "transitions": (L, L)}
    params = {name: draw.normal(0, 2, shape) for name, shape in params.items()}
    emissions = draw.normal(0, 2, (B, N, L))
    labels = draw.integers(0, L, (B, N))
    mask = np.arange(N) < np.asarray(LENGTHS)[:, None]
    to_f32 = functools.partial(jnp.asarray, dtype=jnp.float32)
    drawn = jnp.asarray(labels), jnp.asarray(mask)
    return jax.tree.map(to_f32, params), to_f32(emissions), *drawn


@functools.cache
def compiled(method):
    return jax.jit(functools.partial(CRF(L).apply, method=method))


def apply(method, *inputs, params=None):
    variables = {"params": case()[0] if params is None else params}
    return compiled(method)(variables, *inputs)


def sequence_scores(row):
    """The score of each label sequence of a sentence, by the formula."""
    params, emissions, _, _ = jax.tree.map(np.asarray, case())
    found = {}
    for labels in itertools.product(range(L), repeat=LENGTHS[row]):
        score = params["start"][labels[0]] + params["end"][labels[-1]]
        score += sum(emissions[row, t, label] for t, label in enumerate(labels))
        score += sum(params["transitions"][pair] for pair in itertools.pairwise(labels))
        found[labels] = score
    return found


def log_sum_exp(values):
    return np.logaddexp.reduce(np.asarray(list(values), np.float64))


def test_probabilities_are_those_of_enumeration():
    _, emissions, labels, mask = case()
    found = apply("log_prob", emissions, labels, mask)
    for row, length in enumerate(LENGTHS):
        scores = sequence_scores(row)
        sequence = tuple(np.asarray(labels)[row, :length].tolist())
        expected = scores[sequence] - log_sum_exp(scores.values())
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_viterbi_returns_the_most_probable_sequence_and_its_probability():
    _, emissions, _, mask = case()
    labels, log_prob = apply("decode", emissions, mask)
    for row, length in enumerate(LENGTHS):
        scores = sequence_scores(row)
        best = max(scores, key=scores.get)
        assert labels[row].tolist() == [*best, *[0] * (N - length)]
        expected = scores[best] - log_sum_exp(scores.values())
        assert log_prob[row] == pytest.approx(expected, abs=1e-5)


def test_forbidden_transitions_are_not_chosen():
    _, emissions, _, mask = case()
    free, _ = apply("decode", emissions, mask)
    forbidden = np.zeros((L + 1, L), bool)
    forbidden[L, free[0, 0]] = True  # as the first label
    forbidden[free[0, 1], free[0, 2]] = True
    labels, log_prob = apply("decode", emissions, mask, jnp.asarray(forbidden))
    for row in range(B):
        scores = sequence_scores(row)
        allowed = {
            labels: score
            for labels, score in scores.items()
            if not any(forbidden[pair] for pair in itertools.pairwise((L, *labels)))
        }
        best = max(allowed, key=allowed.get)
        assert labels[row, : LENGTHS[row]].tolist() == list(best)
        expected = allowed[best] - log_sum_exp(scores.values())
        assert log_prob[row] == pytest.approx(expected, abs=1e-5)


def test_marginals_are_those_of_enumeration():
    _, emissions, _, mask = case()
    expected = np.zeros((B, N, L))
    for row in range(B):
        scores = sequence_scores(row)
        log_z = log_sum_exp(scores.values())
        for labels, score in scores.items():
            for position, label in enumerate(labels):
                expected[row, position, label] += np.exp(score - log_z)
    found = apply("marginals", emissions, mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    params, emissions, labels, mask = case()

    def loss(params, emissions):
        return -apply("log_prob", emissions, labels, mask, params=params).sum()

    def moved(by):
        return jax.tree.map(lambda x, d: x + by * d, inputs, direction)

    inputs = params, emissions
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(*inputs)
    draw = np.random.default_rng(1)
    for _ in range(4):
        direction = jax.tree.map(lambda x: draw.normal(size=x.shape), inputs)
        products = jax.tree.map(lambda g, d: (g * d).sum(), gradients, direction)
        expected = float(sum(jax.tree.leaves(products)))
        slope = (loss(*moved(1e-2)) - loss(*moved(-1e-2))) / 2e-2
        assert float(slope) == pytest.approx(expected, rel=2e-3)


def test_what_is_at_padding_does_not_matter_and_has_no_gradient():
    _, emissions, labels, mask = case()
    noise = jnp.where(mask[..., None], 0.0, 100.0)
    clean = apply("log_prob", emissions, labels, mask)
    noisy = apply("log_prob", emissions + noise, labels, mask)
    np.testing.assert_array_equal(clean, noisy)
    np.testing.assert_array_equal(
        *(apply("decode", x, mask)[0] for x in (emissions, emissions + noise))
    )

    def loss(x):
        return apply("log_prob", x, labels, mask).sum()

    assert not np.asarray(jax.jit(jax.grad(loss))(emissions))[~mask].any()


def test_an_empty_sentence_has_probability_one_and_finite_gradients():
    params, emissions, labels, _ = case()
    mask = jnp.zeros((B, N), bool)
    assert not apply("log_prob", emissions, labels, mask).any()

    def loss(params):
        return apply("log_prob", emissions, labels, mask, params=params).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(not x.any() for x in jax.tree.leaves(gradients))


def test_without_transitions_it_is_a_softmax_at_each_position():
    _, emissions, labels, mask = case()
    params = jax.tree.map(jnp.zeros_like, case()[0])
    found = apply("log_prob", emissions, labels, mask, params=params)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(emissions), labels[..., None], 2)
    expected = (chosen[..., 0] * mask).sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    initial = CRF(L).init(jax.random.key(0), emissions, labels, mask, method="log_prob")
    assert all(not x.value.any() for x in initial["params"].values())


def test_scores_may_be_far_apart():
    _, emissions, labels, mask = case()
    found = apply("log_prob", 50 * emissions, labels, mask)
    assert np.isfinite(found).all()
    one_label, log_prob = apply("decode", 50 * emissions, mask)
    assert (apply("log_prob", 50 * emissions, one_label, mask) == log_prob).all()


def test_a_transition_of_no_probability_keeps_gradients_finite():
    params, emissions, _, mask = case()
    params = params | {
        "transitions": params["transitions"].at[:, 0].set([0, -300, -300])
    }
    emissions = emissions.at[:, 0, 0].set(
        -300
    )  # no way to label 0 that does not vanish
    labels = jnp.zeros((B, N), int).at[:, 0].set(1)

    def loss(params):
        return apply("log_prob", emissions, labels, mask, params=params).sum()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_one_position_alone_needs_no_transition():
    _, emissions, labels, mask = case()
    found = apply("log_prob", emissions[:, :1], labels[:, :1], mask[:, :1])
    assert found[2] == pytest.approx(apply("log_prob", emissions, labels, mask)[2])
    decoded, _ = apply("decode", emissions[:, :1], mask[:, :1])
    assert decoded[2, 0] == apply("decode", emissions, mask)[0][2, 0]
