"""Comparison of attention layers with the papers' formulas, as loops in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.multi_head import MultiHeadAttention, SelfAttention
from models.attention.positions import sinusoidal_encoding
from models.common.masks import causal_mask

# All different, so that a swapped axis cannot pass.
B, T, S, M, H, K = 2, 3, 5, 4, 2, 6
D = H * K


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def softmax(logits, mask):
    weights = np.where(mask, np.exp(logits - logits.max()), 0.0)
    return weights / weights.sum() if weights.any() else weights


def kernels(variables):
    params = variables["params"]
    return {
        name: np.asarray(part.get("kernel", part.get("table")))
        for name, part in params.items()
    }


@pytest.mark.parametrize("share_qkv", [False, True])
def test_multi_head_attention_follows_the_formula(share_qkv):
    module = MultiHeadAttention(H, D, K, 0.0, use_bias=False, share_qkv=share_qkv)
    x, content = random(B, T, D, seed=1), random(B, S, D, seed=2)
    mask = causal_mask(T, S)

    def call(module, x, content):
        return module(x, module.project_kv(content), mask, train=False)

    variables = nn.meta.unbox(nn.init(call, module)(jax.random.key(0), x, content))
    found = nn.apply(call, module)(variables, x, content)
    w = kernels(variables)
    assert ("key" in w) != share_qkv
    for b, t in np.ndindex(B, T):
        out = np.zeros(D)
        for h in range(H):
            q = x[b, t] @ w["query"][:, h]
            keys = [content[b, s] @ w.get("key", w["query"])[:, h] for s in range(S)]
            logits = np.asarray([q @ key for key in keys]) / np.sqrt(K)
            weights = softmax(logits, np.asarray(mask[0, t]))
            for s in range(S):
                value = content[b, s] @ w.get("value", w["query"])[:, h]
                out += weights[s] * (value @ w["output"][h])
        np.testing.assert_allclose(found[b, t], out, atol=1e-5)


def logit_of(scheme, w, biases, q, key, position, h):
    """Unscaled logit of one query and one key of head h."""
    if scheme == "relative":
        u, v = (np.asarray(bias[h]) for bias in biases)
        r = sinusoidal_encoding(jnp.asarray(position), D, interleaved=False)
        return (q + u) @ key + (q + v) @ (r @ w["position_key"][:, h])
    if scheme == "shaw":
        return q @ (key + w["distance_embedding"][np.clip(-position, -2, 2) + 2])
    if scheme == "rotary":
        turn = np.exp(1j * position * 10000.0 ** (-np.arange(0, K, 2) / K))
        pairs = [half[: K // 2] + 1j * half[K // 2 :] for half in (q, key)]
        return (pairs[0] * turn * pairs[1].conj()).sum().real
    return q @ key


@pytest.mark.parametrize("nearest", [0, 1 - T])
@pytest.mark.parametrize("scheme", ["relative", "shaw", "rotary", "none"])
def test_self_attention_follows_the_formula_of_each_scheme(scheme, nearest):
    module = SelfAttention(
        H, D, K, 0.0, use_bias=False, position_encoding=scheme, max_distance=2
    )
    x, memory = random(B, T, D, seed=1), random(B, M, D, seed=2)
    biases = random(H, K, seed=3), random(H, K, seed=4)
    content = jnp.concatenate([memory, x], axis=1)
    mask = causal_mask(T, M + T) if nearest == 0 else jnp.ones((1, T, M + T), bool)
    relative = jnp.arange(M + T - 1, nearest - 1, -1)
    encodings = sinusoidal_encoding(relative, D, interleaved=False)

    def call(module):
        relative_keys = module.project_relative_positions(relative, encodings)
        positions = jnp.arange(M + T)[None]
        kv = module.project_kv(content, positions)
        return module(x, kv, mask, positions[:, M:], relative_keys, biases, train=False)

    variables = nn.meta.unbox(nn.init(call, module)(jax.random.key(0)))
    found = nn.apply(call, module)(variables)
    w = kernels(variables)
    for b, t in np.ndindex(B, T):
        out = np.zeros(D)
        for h in range(H):
            q = np.asarray(x[b, t] @ w["query"][:, h])
            keys = [np.asarray(content[b, j] @ w["key"][:, h]) for j in range(M + T)]
            logits = [
                logit_of(scheme, w, biases, q, key, M + t - j, h)
                for j, key in enumerate(keys)
            ]
            weights = softmax(np.asarray(logits) / np.sqrt(K), np.asarray(mask[0, t]))
            for j in range(M + T):
                value = content[b, j] @ w["value"][:, h]
                out += weights[j] * (value @ w["output"][h])
        np.testing.assert_allclose(found[b, t], out, atol=1e-4)
