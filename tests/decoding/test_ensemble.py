"""Means of distributions of an ensemble, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.ensemble import MEANS, ensemble_step
from helpers.prefix_tables import FIRST, V, start, step, tables, without_attention

ROWS = 3


def one_step(models, mean, member=without_attention):
    together = ensemble_step([member] * len(models), mean)
    state = tuple(start(ROWS) for _ in models)
    token = jnp.full((ROWS, 1), FIRST)
    return together(tuple(models), state, token)


@pytest.mark.parametrize("mean", MEANS)
def test_an_ensemble_of_one_is_the_model(mean):
    model = tables(ROWS)
    (state,), logits = one_step([model], mean)
    alone, expected = without_attention(model, start(ROWS), jnp.full((ROWS, 1), FIRST))
    np.testing.assert_allclose(logits, jax.nn.log_softmax(expected), atol=1e-6)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state, alone))


@pytest.mark.parametrize("mean", MEANS)
def test_an_ensemble_of_two_has_the_mean_of_both(mean):
    models = [tables(ROWS, seed) for seed in (1, 2)]
    _, logits = one_step(models, mean)
    ours = jax.nn.softmax(logits[:, 0])
    for row in range(ROWS):
        likely = [np.exp(model[0][row, 0].astype(float)) for model in models]
        likely = [one / one.sum() for one in likely]
        expected = sum(likely) / 2
        if mean == "log_probabilities":
            expected = np.sqrt(likely[0] * likely[1])
        np.testing.assert_allclose(ours[row], expected / expected.sum(), atol=1e-6)


def test_a_mean_of_probabilities_keeps_tokens_that_one_model_excludes():
    model, other = tables(ROWS, 1), tables(ROWS, 2)
    model[0][:, 0, 2] = -np.inf
    _, logits = one_step([model, other], "probabilities")
    np.testing.assert_allclose(jnp.exp(logits).sum(axis=-1), 1, atol=1e-6)
    assert np.isfinite(logits).all()
    _, logits = one_step([model, other], "log_probabilities")
    assert (np.isfinite(logits) == (np.arange(V) != 2)).all()


def test_attention_is_averaged_where_all_give_it():
    models = [tables(ROWS, seed) for seed in (1, 2)]
    _, _, attention = one_step(models, "probabilities", member=step)
    expected = (models[0][1][:, :1] + models[1][1][:, :1]) / 2
    np.testing.assert_allclose(attention, expected, atol=1e-6)


def test_an_unknown_mean_is_refused():
    with pytest.raises(
        ValueError, match="Unknown mean 'median'; choose one of probabilities"
    ):
        one_step([tables(ROWS)], "median")
