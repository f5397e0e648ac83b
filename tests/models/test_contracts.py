"""Tests of the contract that every architecture follows; see `models/api.py`."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.hypotheses import expand_beams, gather_beams
from helpers.architectures import (
    B,
    LanguageModelCase,
    S,
    Seq2SeqCase,
    T,
    V,
    W,
    names,
    only,
    shared_case,
    tokens,
)
from models import api
from models.registry import get_model_class

CONTRACTS = (api.LanguageModel, api.Seq2Seq)
POST = pytest.param("post", marks=pytest.mark.slow)
NAMES = names()
WITH_MEMORY = ("rnn", "transformer_xl")
# The layers of a Transformer are those of a Transformer-XL.
UNLIKE = only("rnn", "transformer_xl")
language_model = functools.partial(shared_case, LanguageModelCase)
seq2seq = functools.partial(shared_case, Seq2SeqCase)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def rows_with_gradient(gradient):
    """Tokens whose row of a table has a gradient that is not exactly zero."""
    return set(np.flatnonzero(np.abs(gradient).max(axis=1)).tolist())


def gradients(run, variables, *inputs):
    """Gradients of the result of `run` by the parameters."""

    def total(params):
        return run({**variables, "params": params}, *inputs)

    return jax.grad(total)(variables["params"])


@functools.cache
def gradients_of_text(name):
    """Gradients of the hidden states of a position, which is an input."""
    case, text = language_model(name), tokens((B, T))

    def hidden(variables, position):
        return case.run(text, case.carry(B), variables)[0][:, position].sum()

    return jax.jit(functools.partial(gradients, hidden, case.variables))


@functools.cache
def gradients_of_translation(name):
    """Gradients of the hidden states of a position of one example."""
    case = seq2seq(name, layers=1)

    def hidden(variables, row, position):
        return case.run(variables=variables)[0][row, position].sum()

    return jax.jit(functools.partial(gradients, hidden, case.variables))


def check_reordered_beams(case, context, state, count=3, steps=3):
    """Checks that reordered beams equal one beam alone with the same history."""
    draw = np.random.default_rng(0)
    wide, histories = (
        expand_beams(state, count, related=True),
        np.zeros((B, count, 0), int),
    )
    for t in range(steps):
        token = draw.integers(2, V, (B, count))
        wide, together = case.step(context, wide, jnp.asarray(token))
        histories = np.concatenate([histories, token[:, :, None]], axis=2)
        for k in range(count):
            alone = state
            for past in range(t + 1):
                token = jnp.asarray(histories[:, k, past, None])
                alone, logits = case.step(context, alone, token)
            np.testing.assert_allclose(together[:, k], logits[:, 0], atol=1e-4)
        parents = draw.integers(0, count, (B, count))
        histories = np.take_along_axis(histories, parents[:, :, None], axis=1)
        wide = gather_beams(wide, jnp.asarray(parents))


def test_three_architectures_are_registered():
    assert {"rnn", "transformer", "transformer_xl"} <= set(NAMES)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_classes_have_the_methods_and_parameters_of_the_contract(name, contract):
    model = get_model_class(name, contract.__name__)
    assert issubclass(model, contract)
    own = {*dir(contract)} - {*dir(nn.Module)} - {"create_embeddings"}
    public = [m for m in own if inspect.isfunction(getattr(contract, m))]
    methods = [m for m in public if not m.startswith("_")] + ["__call__"]
    assert {"initial_carry", "start", "step", "log_prob"} <= {*methods}
    for method in methods:
        expected = inspect.signature(getattr(contract, method)).parameters
        found = inspect.signature(getattr(model, method)).parameters
        assert [*expected] == [*found][: len(expected)], method
        extra = [*found.values()][len(expected) :]
        assert all(p.default is not inspect.Parameter.empty for p in extra), method


@pytest.mark.parametrize("name", WITH_MEMORY)
@pytest.mark.parametrize("norm", ["pre", POST])
def test_two_segments_with_the_carry_equal_one_long_pass(name, norm):
    case, text = language_model(name, norm=norm), tokens((B, 2 * T))
    _, whole, end = case.run(text, case.carry(B))
    _, first, carry = case.run(text[:, :T], case.carry(B))
    _, second, carry = case.run(text[:, T:], carry)
    halves = jnp.concatenate([first, second], axis=1)
    np.testing.assert_allclose(whole, halves, atol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(end), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
class TestLanguageModel:
    def test_shapes_and_types_follow_the_contract(self, name):
        case = language_model(name)
        carry = case.carry(B)
        call = functools.partial(case.run, train=False)
        hidden, logits, after = jax.eval_shape(call, tokens((B, T)), carry)
        assert hidden.shape[:2] == (B, T)
        assert hidden.ndim == 3
        assert (logits.shape, logits.dtype) == ((B, T, V), jnp.float32)
        assert shapes(after) == shapes(carry)
        scored = jax.eval_shape(case.log_prob, hidden, tokens((B, T)))
        assert (scored.shape, scored.dtype) == ((B, T), jnp.float32)

    def test_leaves_of_a_carry_are_batched_or_scalars(self, name):
        for train in (True, False):
            carry = language_model(name).model.initial_carry(B, train=train)
            assert all(
                leaf.ndim == 0 or len(leaf) == B for leaf in jax.tree.leaves(carry)
            )

    @pytest.mark.parametrize("position", [0, T - 2])
    def test_no_position_depends_on_a_later_one(self, name, position):
        table = gradients_of_text(name)(position)["embedding"]["table"]
        text = np.asarray(tokens((B, T)))
        assert rows_with_gradient(table) == set(
            text[:, : position + 1].ravel().tolist()
        )

    def test_without_the_carry_a_segment_is_independent(self, name):
        case, text = language_model(name), tokens((B, 2 * T))
        carry = case.run(text[:, :T], case.carry(B))[2]
        _, after, _ = case.run(text[:, T:], carry)
        _, alone, _ = case.run(text[:, T:], case.carry(B))
        remembers = bool(jax.tree.leaves(case.carry(B)))
        assert remembers or name not in WITH_MEMORY
        assert np.allclose(after, alone, atol=1e-4) != remembers

    def test_no_gradient_crosses_the_carry(self, name):
        case, text = language_model(name), tokens((B, 2 * T))

        def run(variables):
            carry = case.run(text[:, :T], case.carry(B), variables)[2]
            return case.run(text[:, T:], carry, variables)[0].sum()

        found = jax.jit(functools.partial(gradients, run))(case.variables)
        gradient = found["embedding"]["table"]
        only_before = set(np.asarray(text[:, :T]).ravel().tolist())
        only_before -= set(np.asarray(text[:, T:]).ravel().tolist())
        assert np.abs(gradient)[sorted(only_before)].max() == 0

    @pytest.mark.parametrize("norm", ["pre", POST])
    def test_token_by_token_equals_one_pass(self, name, norm):
        case, text = language_model(name, norm=norm), tokens((B, 3 * T))
        past, prompt, rest = text[:, :T], text[:, T : 2 * T], text[:, 2 * T :]
        carry = case.run(past, case.carry(B))[2]
        _, whole, _ = case.run(text[:, T:], carry)
        context, state = case.start(
            prompt, jnp.ones(prompt.shape, bool), carry, max_steps=T
        )
        for t in range(T):
            state, logits = case.step(context, state, rest[:, t : t + 1])
            np.testing.assert_allclose(logits[:, 0], whole[:, T + t], atol=1e-4)

    @pytest.mark.parametrize("side", ["left", "right", "within"])
    def test_padding_of_a_prompt_does_not_matter(self, name, side):
        case, text = language_model(name), tokens((B, 3 * T))
        carry = case.run(text[:, :T], case.carry(B))[2]
        prompt = text[:, T : 2 * T]
        slots = {
            "left": range(3, 3 + T),
            "right": range(T),
            "within": [0, 2, 3, 5, 7],
        }[side]
        padded = jnp.full((B, T + 3), V - 1).at[:, jnp.asarray(slots)].set(prompt)
        mask = jnp.zeros((B, T + 3), bool).at[:, jnp.asarray(slots)].set(True)
        token = text[:, 2 * T : 2 * T + 1]
        results = []
        for tokens_in, mask_in in [(prompt, jnp.ones((B, T), bool)), (padded, mask)]:
            context, state = case.start(tokens_in, mask_in, carry, max_steps=T)
            state, first = case.step(context, state, token)
            results.append((first, case.step(context, state, token + 1)[1]))
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_examples_are_independent_of_each_other(self, name):
        case, text = language_model(name), tokens((B, T))
        _, both, _ = case.run(text, case.carry(B))
        _, alone, _ = case.run(text[:1], case.carry(1))
        np.testing.assert_allclose(both[:1], alone, atol=1e-5)

    def test_log_prob_is_the_log_softmax_of_the_logits(self, name):
        case, text = language_model(name), tokens((B, T))
        hidden, logits, _ = case.run(text, case.carry(B))
        exact = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(exact, text[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(case.log_prob(hidden, text), chosen, atol=1e-5)
        smooth = 0.8 * chosen + 0.2 * exact.mean(axis=-1)
        found = case.log_prob(hidden, text, smoothing=0.2)
        np.testing.assert_allclose(found, smooth, atol=1e-5)


@pytest.mark.parametrize("name", UNLIKE)
class TestBeamsAndDropoutOfLanguageModel:
    @pytest.mark.parametrize(
        "related", [True, pytest.param(False, marks=pytest.mark.slow)]
    )
    def test_beams_are_independent_of_each_other(self, name, related):
        case, text = language_model(name), tokens((B, T))
        carry = case.carry(B, memory_length=6)
        context, state = case.start(text, jnp.ones((B, T), bool), carry, max_steps=4)
        wide = expand_beams(state, 3, related=related)
        choices = tokens((B, 6), seed=9).reshape(B, 2, 3)
        together = []
        for t in range(2):
            wide, logits = case.step(context, wide, choices[:, t])
            together.append(logits)
        for k in range(3):
            alone = state
            for t in range(2):
                alone, logits = case.step(context, alone, choices[:, t, k : k + 1])
                np.testing.assert_allclose(together[t][:, k], logits[:, 0], atol=1e-4)

    @pytest.mark.parametrize(
        "memory_length", [6, pytest.param(0, marks=pytest.mark.slow)]
    )
    def test_reordered_beams_equal_their_history_alone(self, name, memory_length):
        case, text = language_model(name), tokens((B, T))
        carry = case.run(text, case.carry(B, memory_length=memory_length))[2]
        context, state = case.start(text, jnp.ones((B, T), bool), carry, max_steps=4)
        check_reordered_beams(case, context, state)

    def test_evaluation_is_deterministic_and_training_is_not(self, name):
        case = language_model(name, dropout=0.5, layers=1)
        run = functools.partial(case.run, tokens((B, T)), case.carry(B))
        np.testing.assert_array_equal(run()[1], run()[1])
        one = run(train=True, dropout=jax.random.key(1))[1]
        np.testing.assert_array_equal(
            one, run(train=True, dropout=jax.random.key(1))[1]
        )
        assert not np.allclose(one, run(train=True, dropout=jax.random.key(2))[1])
        assert not np.allclose(one, run()[1])

    def test_dropout_of_zero_disables_every_dropout(self, name):
        others = {"attention_dropout": 0.5, "feed_forward_dropout": 0.5}
        case = language_model(name, dropout=0.0, **others)
        run = functools.partial(case.run, tokens((B, T)), case.carry(B))
        trained = run(train=True, dropout=jax.random.key(1))[1]
        np.testing.assert_allclose(trained, run()[1], atol=1e-6)

    def test_a_tied_head_has_no_table_of_its_own(self, name):
        case = language_model(name, tie_embeddings=True)
        assert "table" not in case.variables["params"]["head"]
        _, logits, _ = jax.eval_shape(case.run, tokens((B, T)), case.carry(B))
        assert logits.shape == (B, T, V)


@pytest.mark.parametrize("name", NAMES)
class TestSeq2Seq:
    def test_shapes_and_types_follow_the_contract(self, name):
        case = seq2seq(name)
        for memory_length in (0, 4):
            carry = case.carry(B, memory_length=memory_length)
            hidden, logits, after = jax.eval_shape(case.run, carry)
            assert hidden.shape[:2] == (B, T)
            assert (logits.shape, logits.dtype) == ((B, T, V), jnp.float32)
            assert shapes(after) == shapes(carry)

    @pytest.mark.parametrize("position", [0, T - 2])
    def test_no_position_depends_on_a_later_one(self, name, position):
        table = gradients_of_translation(name)(0, position)["target_embedding"]["table"]
        seen = np.asarray(seq2seq(name).target[0, : position + 1])
        assert rows_with_gradient(table) == set(seen.tolist())

    def test_every_position_depends_on_all_source_words_but_no_padding(self, name):
        case = seq2seq(name)
        table = gradients_of_translation(name)(1, 0)["source_embedding"]["table"]
        seen = np.asarray(case.source[1][case.source_mask[1]])
        assert rows_with_gradient(table) == set(seen.tolist())

    def test_the_content_of_padding_does_not_matter(self, name):
        case = seq2seq(name)
        _, clean, _ = case.run()
        noise = jnp.where(case.source_mask, case.source, (case.source + 5) % W)
        _, noisy, _ = case.run(source=noise)
        np.testing.assert_array_equal(clean, noisy)

    def test_more_padding_does_not_matter(self, name):
        case = seq2seq(name)
        _, clean, _ = case.run()

        def wider(array):
            return jnp.pad(array, ((0, 0), (0, 3)))

        _, padded, _ = case.run(
            source=wider(case.source),
            source_mask=wider(case.source_mask),
            target=wider(case.target),
            target_mask=wider(case.target_mask),
        )
        valid = np.asarray(case.target_mask)
        np.testing.assert_allclose(clean[valid], padded[:, :T][valid], atol=1e-5)

    @pytest.mark.parametrize(
        ("memory_length", "norm"),
        [(0, "post"), pytest.param(6, "pre", marks=pytest.mark.slow)],
    )
    def test_token_by_token_equals_one_pass(self, name, memory_length, norm):
        case = seq2seq(name, norm=norm)
        carry = case.carry(B, memory_length=memory_length)
        carry = case.run(carry)[2]
        _, whole, _ = case.run(carry)
        context, state = case.start(case.source, case.source_mask, carry, max_steps=T)
        for t in range(T):
            state, logits = case.step(context, state, case.target[:, t : t + 1])
            valid = np.asarray(case.target_mask[:, t])
            np.testing.assert_allclose(logits[valid, 0], whole[valid, t], atol=1e-4)


@pytest.mark.parametrize("name", UNLIKE)
class TestBeamsAndDropoutOfSeq2Seq:
    @pytest.mark.parametrize(
        "related", [True, pytest.param(False, marks=pytest.mark.slow)]
    )
    def test_beams_share_a_context_that_is_not_tiled(self, name, related):
        case = seq2seq(name)
        carry = case.carry(B, memory_length=0)
        context, state = case.start(case.source, case.source_mask, carry, max_steps=4)

        choices = tokens((B, 3), seed=9)
        wide = expand_beams(state, 3, related=related)
        _, together = case.step(context, wide, choices)
        assert together.shape == (B, 3, V)
        for k in range(3):
            _, alone = case.step(context, state, choices[:, k : k + 1])
            np.testing.assert_allclose(together[:, k], alone[:, 0], atol=1e-4)

    def test_reordered_beams_equal_their_history_alone(self, name):
        case = seq2seq(name)
        carry = case.carry(B, memory_length=0)
        context, state = case.start(case.source, case.source_mask, carry, max_steps=4)
        check_reordered_beams(case, context, state)

    def test_training_applies_dropout_and_evaluation_does_not(self, name):
        case = seq2seq(name, dropout=0.5, layers=1)
        np.testing.assert_array_equal(case.run()[1], case.run()[1])
        one = case.run(train=True, rngs={"dropout": jax.random.key(1)})[1]
        two = case.run(train=True, rngs={"dropout": jax.random.key(2)})[1]
        assert not np.allclose(one, two)

    def test_attention_weights_are_sown_into_intermediates(self, name):
        case = seq2seq(name)
        carry = case.carry(B, memory_length=0)
        apply = functools.partial(
            case.model.apply, train=False, mutable=["intermediates"]
        )
        _, sown = jax.jit(apply)(case.variables, *case.inputs(), carry)
        weights = [leaf for leaf in jax.tree.leaves(sown) if leaf.shape[-1] == S]
        assert weights
        for leaf in weights:
            live = np.broadcast_to(leaf.sum(axis=-1), leaf.shape[:-1])
            np.testing.assert_allclose(live, 1, atol=1e-5)
            assert np.asarray(leaf)[1, ..., S - 3 :].max() == 0
