"""Tests of the contract with every option of the two Transformers."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import (
    B,
    LanguageModelCase,
    Seq2SeqCase,
    T,
    V,
    small_config,
    tokens,
)
from models.transformer_xl import model
from utils.errors import UserError

ADAPTIVE = {"cutoffs": (7, 19), "div_val": 2, "tie_embeddings": True}

# Together they have every position encoding, activation and kind of embedding.
OPTIONS = {
    "learned": {
        "layers": 1,
        "position_encoding": "learned",
        "activation": "swiglu",
        "max_positions": 16,
    },
    "learned_per_layer": {
        "layers": 2,
        "position_encoding": "learned_per_layer",
        **ADAPTIVE,
    },
    "shaw": {"position_encoding": "shaw", "max_distance": 2, "activation": "gelu"},
    "rotary": {
        "layers": 1,
        "position_encoding": "rotary",
        "head_dim": 6,
        "activation": "geglu",
    },
    "relative": {
        "position_encoding": "relative",
        "embedding_width": 10,
        "untie_biases": True,
    },
    "none": {"position_encoding": "none", "share_qkv": True, "activation": "reglu"},
}
language_model = functools.cache(functools.partial(LanguageModelCase, "transformer"))
seq2seq = functools.cache(functools.partial(Seq2SeqCase, "transformer"))


SLOW = {"learned_per_layer", "none"}  # and of a kind of positions that is fast


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in OPTIONS],
)
def test_a_language_model_decodes_token_by_token_as_in_one_pass(name):
    case, text = language_model(**OPTIONS[name]), tokens((B, 2 * T))
    hidden, whole, _ = case.run(text, ())
    # A prompt of T tokens, with padding between them.
    slots = jnp.asarray([0, 2, 3, 5, 7])
    prompt = jnp.full((B, T + 3), V - 1).at[:, slots].set(text[:, :T])
    mask = jnp.zeros((B, T + 3), bool).at[:, slots].set(True)
    context, state = case.start(prompt, mask, (), max_steps=T)
    for t in range(T):
        state, logits = case.step(context, state, text[:, T + t, None])
        np.testing.assert_allclose(
            jax.nn.log_softmax(logits[:, 0]),
            jax.nn.log_softmax(whole[:, T + t]),
            atol=1e-4,
        )
    exact = jax.nn.log_softmax(whole)
    chosen = jnp.take_along_axis(exact, text[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(case.log_prob(hidden, text), chosen, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "shaw",
        pytest.param("learned_per_layer", marks=pytest.mark.slow),
        pytest.param("rotary", marks=pytest.mark.slow),
    ],
)
def test_a_translation_decodes_token_by_token_as_in_one_pass(name):
    case = seq2seq(**{"layers": 1, **OPTIONS[name]})
    _, whole, _ = case.run(())
    context, state = case.start(case.source, case.source_mask, (), max_steps=T)
    for t in range(T):
        state, logits = case.step(context, state, case.target[:, t : t + 1])
        valid = np.asarray(case.target_mask[:, t])
        np.testing.assert_allclose(
            jax.nn.log_softmax(logits[valid, 0]),
            jax.nn.log_softmax(whole[valid, t]),
            atol=1e-4,
        )


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "none"])
def test_the_order_of_words_matters(name):
    case, text = language_model(**OPTIONS[name]), tokens((B, 2 * T))
    swapped = text.at[:, :2].set(text[:, 1::-1])
    ours, theirs = case.run(text, ())[0], case.run(swapped, ())[0]
    assert not np.allclose(ours[:, -1], theirs[:, -1], atol=1e-3)


def test_without_positions_one_layer_ignores_the_order_of_words():
    case = language_model(**OPTIONS["none"], layers=1)
    text = tokens((B, 2 * T))
    swapped = text.at[:, :2].set(text[:, 1::-1])
    ours, theirs = case.run(text, ())[0], case.run(swapped, ())[0]
    np.testing.assert_allclose(ours[:, -1], theirs[:, -1], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (
            "transformer",
            {"position_encoding": "rotary", "head_dim": 5},
            "model.head_dim=5",
        ),
        (
            "transformer",
            {"position_encoding": "upside down"},
            "Unknown model.position_encoding 'upside down'; choose one of sinusoidal",
        ),
        ("transformer", {"activation": "step"}, "Unknown model.activation 'step'"),
        (
            "transformer",
            {"feed_forward_dropout": 1.0},
            "model.feed_forward_dropout=1.0: it must be at least 0 and below 1",
        ),
        ("transformer", {"cutoffs": (19, 7)}, "model.cutoffs=(19, 7)"),
        ("transformer", {"cutoffs": ("a",)}, "model.cutoffs=('a',)"),
        (
            "transformer",
            {"cutoffs": (3, 7), "div_val": 9},
            "model.embedding_width=12: 3 clusters with model.div_val=9 need 81 or more",
        ),
        ("transformer_xl", {"memory_length": -1}, "model.memory_length=-1"),
        ("transformer_xl", {"clamp_length": -1}, "model.clamp_length=-1"),
        (
            "transformer_xl",
            {"position_encoding": "sinusoidal", "memory_length": 4},
            "model.memory_length=4",
        ),
    ],
)
def test_an_invalid_option_is_named_with_its_value(model, change, message):
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}[^\n]*\Z"):
        small_config(model, **change)


def test_cutoffs_beyond_the_vocabulary_are_rejected():
    with pytest.raises(ValueError, match=r"model.cutoffs=\(7, 40\)"):
        LanguageModelCase("transformer", cutoffs=(7, 40))


@pytest.mark.parametrize("key", ["same_length", "attend_empty_memory"])
def test_options_of_text_memories_are_rejected_for_translation(key):
    config = small_config("transformer_xl")
    model.Seq2Seq(config, V, V, shared_vocab=False)
    changed = dataclasses.replace(config, **{key: True})
    with pytest.raises(UserError, match=f"{key}=True .* is for language models"):
        model.Seq2Seq(changed, V, V, shared_vocab=False)
