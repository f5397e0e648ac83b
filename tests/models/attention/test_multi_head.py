"""Attention against the papers' formulas, written as loops in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import small_config
from models.attention.multi_head import MultiHeadAttention, SelfAttention
from models.attention.positions import apply_rope, sinusoidal_encoding
from models.common.masks import (
    causal_mask,
    masked_softmax,
    pad_left,
    pad_right,
    segment_mask,
    sliding_window_mask,
    valid_memory_mask,
)
from models.transformer.memory import Memory, init_memory, update_memory
from models.transformer.stack import Stack

# All different, so that a swapped axis cannot pass.
B, T, S, M, H, K = 2, 3, 5, 4, 2, 6
D = H * K


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def softmax(scores, mask):
    weights = np.where(mask, np.exp(scores - scores.max()), 0.0)
    return weights / weights.sum() if weights.any() else weights


def test_a_row_without_keys_gets_zeros_and_passes_no_nan_back():
    scores, mask = random(2, 3), jnp.asarray([[True, False, True], [False] * 3])
    weights = masked_softmax(scores, mask)
    np.testing.assert_allclose(weights.sum(axis=-1), [1.0, 0.0], atol=1e-6)
    assert float(weights[0, 1]) == 0.0
    gradient = jax.grad(lambda x: (masked_softmax(x, mask) ** 2).sum())(scores)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0.0)


def heads_of(variables):
    params = variables["params"]
    return {
        name: np.asarray(part.get("kernel", part.get("table")))
        for name, part in params.items()
    }


@pytest.mark.parametrize("shared", [False, True])
def test_multi_head_attention_is_the_paper_s_formula(shared):
    module = MultiHeadAttention(H, D, K, 0.0, use_bias=False, share_qkv=shared)
    x, content = random(B, T, D, seed=1), random(B, S, D, seed=2)
    mask = causal_mask(T, S)

    def call(module, x, content):
        return module(x, module.project_kv(content), mask, train=False)

    variables = nn.meta.unbox(nn.init(call, module)(jax.random.key(0), x, content))
    found = nn.apply(call, module)(variables, x, content)
    w = heads_of(variables)
    assert ("key" in w) != shared
    for b, t in np.ndindex(B, T):
        out = np.zeros(D)
        for h in range(H):
            q = x[b, t] @ w["query"][:, h]
            keys = [content[b, s] @ w.get("key", w["query"])[:, h] for s in range(S)]
            scores = np.asarray([q @ key for key in keys]) / np.sqrt(K)
            weights = softmax(scores, np.asarray(mask[0, t]))
            for s in range(S):
                value = content[b, s] @ w.get("value", w["query"])[:, h]
                out += weights[s] * (value @ w["output"][h])
        np.testing.assert_allclose(found[b, t], out, atol=1e-5)


def by_hand(scheme, w, biases, q, key, distance, h):
    """The score of one query and one key of head h, before it is scaled."""
    if scheme == "relative":
        u, v = (np.asarray(bias[h]) for bias in biases)
        r = sinusoidal_encoding(jnp.asarray(distance), D, interleaved=False)
        return (q + u) @ key + (q + v) @ (r @ w["position_key"][:, h])
    if scheme == "shaw":
        return q @ (key + w["distance_embedding"][np.clip(-distance, -2, 2) + 2])
    if scheme == "rotary":
        turn = np.exp(1j * distance * 10000.0 ** (-np.arange(0, K, 2) / K))
        pairs = [half[: K // 2] + 1j * half[K // 2 :] for half in (q, key)]
        return (pairs[0] * turn * pairs[1].conj()).sum().real
    return q @ key


@pytest.mark.parametrize("nearest", [0, 1 - T])
@pytest.mark.parametrize("scheme", ["relative", "shaw", "rotary", "none"])
def test_self_attention_is_each_paper_s_formula(scheme, nearest):
    module = SelfAttention(
        H, D, K, 0.0, use_bias=False, position_encoding=scheme, max_distance=2
    )
    x, memory = random(B, T, D, seed=1), random(B, M, D, seed=2)
    biases = random(H, K, seed=3), random(H, K, seed=4)
    content = jnp.concatenate([memory, x], axis=1)
    mask = causal_mask(T, M + T) if nearest == 0 else jnp.ones((1, T, M + T), bool)
    distances = jnp.arange(M + T - 1, nearest - 1, -1)
    encodings = sinusoidal_encoding(distances, D, interleaved=False)

    def call(module):
        projected = module.project_relative_positions(distances, encodings)
        places = jnp.arange(M + T)[None]
        kept = module.project_kv(content, places)
        return module(x, kept, mask, places[:, M:], projected, biases, train=False)

    variables = nn.meta.unbox(nn.init(call, module)(jax.random.key(0)))
    found = nn.apply(call, module)(variables)
    w = heads_of(variables)
    for b, t in np.ndindex(B, T):
        out = np.zeros(D)
        for h in range(H):
            q = np.asarray(x[b, t] @ w["query"][:, h])
            keys = [np.asarray(content[b, j] @ w["key"][:, h]) for j in range(M + T)]
            scores = [
                by_hand(scheme, w, biases, q, key, M + t - j, h)
                for j, key in enumerate(keys)
            ]
            weights = softmax(np.asarray(scores) / np.sqrt(K), np.asarray(mask[0, t]))
            for j in range(M + T):
                value = content[b, j] @ w["value"][:, h]
                out += weights[j] * (value @ w["output"][h])
        np.testing.assert_allclose(found[b, t], out, atol=1e-4)


def test_masks_say_who_may_look_at_whom():
    np.testing.assert_array_equal(
        causal_mask(2, 4)[0], [[True, True, True, False], [True] * 4]
    )
    np.testing.assert_array_equal(
        causal_mask(2, 4)[0] & sliding_window_mask(2, 4, 2)[0],
        [[False, True, True, False], [False, False, True, True]],
    )
    one, two = jnp.asarray([[1, 2]]), jnp.asarray([[1, 2, 2]])
    np.testing.assert_array_equal(
        segment_mask(one, two)[0], [[True, False, False], [False, True, True]]
    )
    filled = valid_memory_mask(jnp.asarray([0, 2]), 3)[:, 0]
    np.testing.assert_array_equal(filled, [[False] * 3, [False, True, True]])


def test_padding_moves_to_one_side_and_tokens_keep_their_order():
    tokens = jnp.asarray([[9, 1, 9, 2], [3, 4, 9, 9]])
    mask = tokens != 9
    left, left_mask = pad_left(tokens, mask)
    np.testing.assert_array_equal(left, [[9, 9, 1, 2], [9, 9, 3, 4]])
    np.testing.assert_array_equal(left_mask, left != 9)
    right, right_mask = pad_right(tokens, mask)
    np.testing.assert_array_equal(right, [[1, 2, 9, 9], [3, 4, 9, 9]])
    np.testing.assert_array_equal(right_mask, right != 9)


def test_a_memory_keeps_the_last_inputs_of_each_row_and_no_gradient():
    inputs = jnp.arange(1.0, 7.0).reshape(2, 3, 1)  # rows 1 2 3 and 4 5 6
    memory = update_memory(init_memory(2, 4, 1, 1), (inputs,), jnp.asarray([3, 1]))
    np.testing.assert_array_equal(memory.valid_length, [3, 1])
    np.testing.assert_array_equal(
        memory.hidden[0][..., 0], [[0, 1, 2, 3], [0, 0, 0, 4]]
    )
    memory = update_memory(memory, (10 * inputs,), jnp.asarray([2, 3]))
    np.testing.assert_array_equal(memory.valid_length, [4, 4])
    expected = [[2, 3, 10, 20], [4, 40, 50, 60]]
    np.testing.assert_array_equal(memory.hidden[0][..., 0], expected)

    def total(x):
        old = Memory((x,), jnp.asarray([3, 3]))
        return update_memory(old, (x,), jnp.asarray([3, 3])).hidden[0].sum()

    np.testing.assert_array_equal(jax.grad(total)(inputs), 0.0)


def test_a_memory_of_negative_length_is_refused():
    with pytest.raises(ValueError, match="memory_length=-1"):
        init_memory(1, -1, 1, 1)


def test_sinusoids_are_the_paper_s_interleaved_and_the_code_s_halves():
    positions = jnp.asarray([0, 1, 7])
    waves = sinusoidal_encoding(positions, 6, interleaved=True)
    for p, row in zip([0, 1, 7], np.asarray(waves), strict=True):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(row[2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(row[2 * i + 1], np.cos(angle), atol=1e-6)
    halves = sinusoidal_encoding(positions, 6, interleaved=False)
    np.testing.assert_array_equal(halves[:, :3], waves[:, 0::2])
    np.testing.assert_array_equal(halves[:, 3:], waves[:, 1::2])


@pytest.mark.parametrize("read", [0, 150_000, 15_000_000])
def test_rotary_positions_are_as_exact_far_into_a_text(read):
    """Scores by distance alone, of a head as wide as in practice."""
    draw = np.random.default_rng(0)
    query, key = jnp.asarray(draw.normal(size=(2, 1, 1, 4, 64)), jnp.float32)
    places = jnp.arange(4)[None] * 500

    def scores(first):
        turned = (
            apply_rope(query, places + first + 2000),
            apply_rope(key, places + first),
        )
        return jnp.einsum("BHTK,BHSK->BHTS", *turned)

    rates = 10000.0 ** (-np.arange(0, 64, 2) / 64)
    angles = (np.arange(4)[:, None] - np.arange(4)[None] + 4)[..., None] * 500 * rates
    one, two = (np.asarray(x[0, 0], np.float64) for x in (query, key))
    as_complex = [x[:, :32] + 1j * x[:, 32:] for x in (one, two)]
    exact = np.einsum(
        "tk,sk,tsk->ts", *as_complex[:1], as_complex[1].conj(), np.exp(1j * angles)
    ).real
    np.testing.assert_allclose(scores(read)[0, 0], exact, atol=2e-4)


def test_distances_are_clamped_to_both_sides():
    changes = {"memory_length": 0, "clamp_length": 2, "untie_biases": True}
    config = small_config("transformer_xl", **changes)
    stack = Stack(config, cross=False)
    distances = jnp.arange(6, -7, -1)
    found = np.asarray(stack.bind({})._encode(distances, train=False))
    by_distance = dict(zip(distances.tolist(), found, strict=True))
    for far in (3, 6):
        np.testing.assert_array_equal(by_distance[far], by_distance[2])
        np.testing.assert_array_equal(by_distance[-far], by_distance[-2])
    assert len(np.unique(found, axis=0)) == 5
