"""Tests that rematerialisation gives the same gradients from less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import LanguageModelCase, Seq2SeqCase, tokens
from tasks.base import likelihood_loss

LENGTH = 40  # long enough that activations are most of what is stored
CASES = {
    "transformer_xl, language model": (
        LanguageModelCase,
        {
            "layers": 1,
            "attention_dropout": 0.2,
            "cutoffs": (7, 19),
            "div_val": 2,
            "tie_embeddings": True,
        },
    ),
    "transformer, translation": (Seq2SeqCase, {"layers": 1}),
    "rnn, language model": (
        LanguageModelCase,
        {"layers": 1, "weight_dropout": 0.2, "attention_width": 96},
    ),
    "rnn, translation": (Seq2SeqCase, {"layers": 1, "attention_width": 96}),
}


def objective(key, remat):
    """Returns a training loss as a function of variables, and the variables."""
    kind, changes = CASES[key]
    found = kind(key.split(",")[0], dropout=0.2, remat=remat, **changes)
    text = jnp.tile(tokens((2, 20)), (1, LENGTH // 20))
    inputs = (text, found.model.initial_carry(2, train=True))
    if kind is Seq2SeqCase:
        mask = jnp.ones(text.shape, bool)
        inputs = (text, mask, text, mask, found.carry(2))
    batch = {"labels": text, "weights": jnp.ones(text.shape)}

    def loss(variables):
        run = functools.partial(likelihood_loss, smoothing=0.0, train=True)
        pairs, _ = run(found.model, variables, inputs, batch, jax.random.key(3))
        return pairs["loss"][0] / text.size

    return loss, found.variables


def stored(loss, variables):
    """Returns the bytes stored for the backward pass, parameters included."""
    kept = jax.eval_shape(lambda variables: jax.vjp(loss, variables)[1], variables)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


@functools.cache
def compiled(key, remat):
    """Compiles a loss and its gradient."""
    loss, variables = objective(key, remat)
    return jax.jit(jax.value_and_grad(loss)).lower(variables).compile()


FAST = {"transformer_xl, language model", "rnn, translation"}  # the hardest of each


@pytest.mark.parametrize(
    "key",
    [pytest.param(x, marks=[pytest.mark.slow] * (x not in FAST)) for x in CASES],
)
def test_gradients_are_the_same_and_need_less_stored(key):
    (plain, variables), (again, same) = objective(key, False), objective(key, True)
    assert jax.tree.structure(variables) == jax.tree.structure(same)
    assert stored(again, variables) < 0.6 * stored(plain, variables)
    ours, theirs = (compiled(key, remat)(variables) for remat in (True, False))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_compiled_program_needs_less_memory_too():
    # A loop over time or layers: outside loops XLA for CPUs undoes rematerialisation.
    both = [compiled("rnn, translation", remat) for remat in (True, False)]
    sizes = [program.memory_analysis().temp_size_in_bytes for program in both]
    assert sizes[0] < 0.5 * sizes[1]
