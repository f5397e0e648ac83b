"""Means of distributions of an ensemble, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from decoding.ensemble import mean_log_prob

ROWS, V = 3, 5


def logits(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(ROWS, V)), jnp.float32)


def test_an_ensemble_of_one_is_the_model():
    one = logits(1)
    np.testing.assert_allclose(mean_log_prob([one]), jax.nn.log_softmax(one), atol=1e-6)


def test_an_ensemble_of_two_has_the_mean_of_both():
    models = [logits(seed) for seed in (1, 2)]
    ours = jax.nn.softmax(mean_log_prob(models))
    for row in range(ROWS):
        likely = [np.exp(np.asarray(model[row], float)) for model in models]
        expected = sum(one / one.sum() for one in likely) / 2
        np.testing.assert_allclose(ours[row], expected, atol=1e-6)


def test_tokens_that_one_model_excludes_are_kept():
    one, other = logits(1).at[:, 2].set(-np.inf), logits(2)
    mean = mean_log_prob([one, other])
    np.testing.assert_allclose(np.exp(mean).sum(axis=-1), 1, atol=1e-6)
    assert np.isfinite(mean).all()
