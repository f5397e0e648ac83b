"""Tests of the ring buffer of keys and values that an evaluation reads."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.hypotheses import expand_beams
from helpers.architectures import LanguageModelCase, V, tokens
from helpers.xla_options import known_options
from models.transformer_xl.model import KVMemory
from tasks.base import reset_carry

B, T, M, SEGMENTS = 2, 3, 5, 4  # the ring of 8 slots wraps within the third segment
VARIANTS = {
    "published": {},
    "pre-norm, own biases": {"norm": "pre", "untie_biases": True},
    "same length, clamped": {"same_length": True, "clamp_length": 4},
    "shaw": {"position_encoding": "shaw", "max_distance": 4},
    "rotary": {"position_encoding": "rotary", "norm": "pre", "layers": 1},
    "no positions": {"position_encoding": "none"},
    "zeros are seen": {"attend_empty_memory": True},
}


@functools.cache
def model(variant):
    return LanguageModelCase(
        "transformer_xl",
        memory_length=M,
        **{"layers": 2, "norm": "post", **VARIANTS[variant]},
    )


def ring(case):
    carry = case.model.initial_eval_carry(B, T)
    assert isinstance(carry, KVMemory)
    return carry


def read(case, text, carry):
    """Returns the hidden states of consecutive segments, and the last carry."""
    found = []
    for k in range(0, text.shape[1], T):
        hidden, _, carry = case.run(text[:, k : k + T], carry)
        found.append(hidden)
    return jnp.concatenate(found, axis=1), carry


FAST = {"published", "same length, clamped", "rotary"}  # a scheme of positions each


@pytest.mark.parametrize(
    "variant",
    [pytest.param(x, marks=[pytest.mark.slow] * (x not in FAST)) for x in VARIANTS],
)
def test_a_ring_of_keys_and_values_equals_a_memory_of_inputs(variant):
    case, text = model(variant), tokens((B, SEGMENTS * T))
    hidden, memory = read(case, text, case.carry(B))
    found, carry = read(case, text, ring(case))
    np.testing.assert_allclose(found, hidden, atol=1e-5)
    np.testing.assert_array_equal(carry.valid_length, memory.valid_length)
    prompt, mask = tokens((B, T), seed=3), jnp.ones((B, T), bool)
    for before in (memory, carry):
        context, state = case.start(prompt, mask, before, max_steps=2)
        state, first = case.step(context, state, prompt[:, :1])
        _, second = case.step(context, state, prompt[:, 1:2])
        if before is memory:
            expected = first, second
    np.testing.assert_allclose(first, expected[0], atol=1e-5)
    np.testing.assert_allclose(second, expected[1], atol=1e-5)


@pytest.mark.parametrize("variant", ["published", "same length, clamped", "rotary"])
def test_tokens_after_a_prompt_equal_one_pass(variant):
    case, text = model(variant), tokens((B, 3 * T))
    _, _, carry = case.run(text[:, :T], case.carry(B))
    _, whole, _ = case.run(text[:, T:], carry)
    prompt = text[:, T : 2 * T]
    context, state = case.start(prompt, jnp.ones((B, T), bool), carry, max_steps=T)
    for t in range(T):
        state, logits = case.step(context, state, text[:, 2 * T + t, None])
        np.testing.assert_allclose(logits[:, 0], whole[:, T + t], atol=1e-4)


def test_same_length_gives_every_query_as_many_keys():
    case, text = model("same length, clamped"), tokens((1, 2 * M))

    def last(table):
        params = {**case.variables["params"], "embedding": {"table": table}}
        carry = case.model.initial_carry(1, train=False)
        hidden, _ = case.model.apply({"params": params}, text, carry, train=False)
        return hidden[0, -1].sum()

    gradient = jax.jit(jax.grad(last))(case.variables["params"]["embedding"]["table"])
    reach = 2 * (M - 1) + 1  # two layers, each M keys back with the query's own
    seen = set(np.asarray(text[0, -reach:]).tolist())
    rows = np.abs(gradient).max(axis=1)
    assert {token for token in range(V) if rows[token] > 0} == seen


def test_a_reset_clears_the_memory_of_the_given_rows():
    case, text = model("published"), tokens((B, 3 * T))
    _, carry = read(case, text[:, : 2 * T], ring(case))
    carry = reset_carry(carry, ring(case), jnp.asarray([True, False]))
    found = case.run(text[:, 2 * T :], carry)[0]
    kept = read(case, text, ring(case))[0][:, 2 * T :]
    fresh = case.run(text[:, 2 * T :], ring(case))[0]
    np.testing.assert_allclose(found[0], fresh[0], atol=1e-5)
    np.testing.assert_allclose(found[1], kept[1], atol=1e-5)
    assert not np.allclose(fresh[1], kept[1], atol=1e-3)


def test_without_a_memory_the_carry_is_empty():
    case, text = model("published"), tokens((B, 2 * T))
    for train in (True, False):
        assert case.model.initial_carry(B, train=train, memory_length=0) == ()
    hidden, _, carry = case.run(text, ())
    assert carry == ()
    alone = case.run(text[:, T:], ())[0]
    assert not np.allclose(hidden[:, T:], alone, atol=1e-3)
    context, state = case.start(text[:, :T], jnp.ones((B, T), bool), (), max_steps=1)
    _, logits = case.step(context, state, text[:, T, None])
    expected = case.run(text, ())[1][:, T]
    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-4)


def test_a_segment_longer_than_segment_length_is_refused():
    case = model("published")
    with pytest.raises(ValueError, match="a segment of 4 tokens"):
        case.run(tokens((B, T + 1)), ring(case))


def test_precomputed_relative_keys_change_nothing():
    case, text = model("published"), tokens((B, T))
    carry = ring(case)
    prepared = case.model.apply(case.variables, carry, method="precompute")
    variables = case.variables | prepared
    found = case.run(text, carry, variables)[0]
    np.testing.assert_array_equal(found, case.run(text, carry)[0])
    wrong = jax.tree.map(jnp.zeros_like, variables["precomputed"])
    other = case.run(text, carry, {**variables, "precomputed": wrong})[0]
    assert not np.allclose(found, other, atol=1e-3)


def as_users_compile(lowered):
    """Compiles with the default options, which tests/conftest.py replaces."""
    options = {
        "xla_cpu_use_fusion_emitters": True,
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    }
    return lowered.compile(known_options(options))


def made(compiled, size):
    """Returns the instructions whose result has a given number of elements."""
    program = compiled.as_text()
    found = []
    for line in program[program.index("ENTRY") :].splitlines():
        match = re.search(r"= f32\[([\d,]+)\]\S* ([\w-]+)\(", line)
        if match and math.prod(map(int, match[1].split(","))) == size:
            found.append(match[2])
    return [name for name in found if name not in ("parameter", "bitcast")]


def test_an_evaluation_neither_copies_nor_projects_its_memory():
    case = LanguageModelCase("transformer_xl", memory_length=64, layers=2)
    carry = case.model.initial_eval_carry(B, T)
    prepared = case.model.apply(case.variables, carry, method="precompute")
    variables = case.variables | prepared

    def step(variables, tokens, carry):
        return case.model.apply(variables, tokens, carry, train=False)

    donated = jax.jit(step, donate_argnums=2)
    compiled = as_users_compile(donated.lower(variables, tokens((B, T)), carry))
    assert set(made(compiled, carry.kv[0][0].size)) == {"fusion"}
    assert len(made(compiled, carry.kv[0][0].size)) == 2 * len(carry.kv)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(carry.kv))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= size
    # A copy, or the inputs that would be projected, would take room of their own.
    assert memory.temp_size_in_bytes < size
    kept = as_users_compile(jax.jit(step).lower(variables, tokens((B, T)), carry))
    assert "copy" in made(kept, carry.kv[0][0].size)  # the test can see them


@pytest.mark.parametrize("hypotheses", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_generation_does_not_copy_its_memory(hypotheses):
    # As large as users have them: small products are laid out in other ways.
    sizes = {"heads": 2, "head_dim": 64, "memory_length": 500}
    case = LanguageModelCase("transformer_xl", layers=1, **sizes)
    carry = case.model.initial_eval_carry(B, T)
    prompt, mask = tokens((B, T)), jnp.ones((B, T), bool)
    context, state = case.start(prompt, mask, carry, max_steps=256)
    state = expand_beams(state, hypotheses, related=True)

    def step(variables, context, state, token):
        return case.model.apply(variables, context, state, token, method="step")

    token = jnp.zeros((B, hypotheses), jnp.int32)
    donated = jax.jit(step, donate_argnums=2)
    lowered = donated.lower(case.variables, context, state, token)
    compiled = as_users_compile(lowered)
    past, (*early, last) = context.prefix.kv[0][0], state.kv[0]
    assert made(compiled, past.size) == []
    sizes = [values.size for _, values in early]
    for size in {*sizes, last[1].size}:  # the first two blocks are of one size
        count = 2 * (sizes.count(size) or 1)
        assert made(compiled, size) == ["fusion"] * count
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.kv))
    assert compiled.memory_analysis().alias_size_in_bytes >= size
