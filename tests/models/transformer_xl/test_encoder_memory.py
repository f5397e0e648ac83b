"""Tests of the memory of the bidirectional encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import B, EncoderCase, S, V, shared_case, tokens
from models.attention.positions import sinusoidal_encoding
from utils.errors import UserError

encoder = functools.partial(shared_case, EncoderCase, "transformer_xl")


def test_a_memory_changes_the_next_segment_and_gets_no_gradient():
    found = encoder()
    second = tokens((B, S), V, seed=5)
    carry = found.run(found.carry(B))[1]
    after, alone = (found.run(memory, text=second)[0] for memory in (carry, ()))
    assert np.abs(after - alone).max(axis=(1, 2)).min() > 1e-3
    empty, _ = found.run(found.carry(B), text=second)
    np.testing.assert_allclose(empty, alone, atol=1e-5)

    def loss(params):
        memory = found.run(found.carry(B), {"params": params})[1]
        return sum(leaf.sum() for leaf in memory.hidden)

    gradients = jax.jit(jax.grad(loss))(found.variables["params"])
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) == 0


def test_a_memory_holds_the_tokens_of_each_row_without_padding():
    found = encoder()
    carry = found.run(found.carry(B))[1]
    np.testing.assert_array_equal(carry.valid_length, [S, S - 3])
    carry = found.run(carry)[1]
    length = carry.length
    np.testing.assert_array_equal(carry.valid_length, [length, 2 * (S - 3)])


def attend_directly(params, queries, keys, biases):
    """Relative attention of the last T of S keys, as loops over pairs."""
    attention = params["self_attention"]

    def project(x, part):
        return np.einsum("sd,dhk->shk", x, attention[part]["kernel"])

    q, k, v = project(queries, "query"), project(keys, "key"), project(keys, "value")
    u, w = biases
    result = np.zeros_like(queries)
    first = len(keys) - len(queries)
    distances = jnp.arange(-len(queries), len(keys))  # the last are the negative ones
    waves = sinusoidal_encoding(distances, queries.shape[1], interleaved=False)
    waves = np.roll(project(waves, "position_key"), -len(queries), axis=0)
    for i in range(len(queries)):
        for h in range(q.shape[1]):
            logits = []
            for j in range(len(keys)):
                relative = waves[first + i - j, h]
                logits.append((q[i, h] + u[h]) @ k[j, h] + (q[i, h] + w[h]) @ relative)
            logits = np.asarray(logits) * q.shape[-1] ** -0.5
            weights = np.exp(logits - logits.max())
            context = weights / weights.sum() @ v[:, h]
            result[i] += context @ attention["output"]["kernel"][h]
    return result


def layer_norm(params, x):
    params = params["layer_norm"]["norm"]
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def test_two_segments_with_memory_equal_a_direct_computation():
    found = encoder(norm="post")
    carry = found.run(found.carry(B))[1]
    second = tokens((B, S), V, seed=5)
    hidden, _ = found.run(carry, text=second)
    params = jax.tree.map(np.asarray, found.variables["params"])
    biases = params["stack"]["content_bias"], params["stack"]["position_bias"]
    width = found.model.config.width
    for row in range(B):
        length, past = int(found.mask[row].sum()), int(carry.valid_length[row])
        embedded = params["embedding"]["table"][np.asarray(second[row, :length])]
        segments = np.asarray(found.segment_ids[row, :length])
        embedded = embedded + params["segment_embedding"]["table"][segments]
        x = embedded * width**0.5
        for i, memory in enumerate(carry.hidden):
            layer = params["stack"][f"layers_{i}"]
            keys = np.concatenate([np.asarray(memory[row])[-past:], x])
            y = attend_directly(layer, x, keys, biases)
            x = layer_norm(layer["self_attention_residual"], x + y)
            up, down = layer["feed_forward"]["up"], layer["feed_forward"]["down"]
            y = np.maximum(x @ up["kernel"] + up["bias"], 0)
            y = y @ down["kernel"] + down["bias"]
            x = layer_norm(layer["feed_forward_residual"], x + y)
        np.testing.assert_allclose(hidden[row, :length], x, atol=1e-4)


@pytest.mark.parametrize("key", ["same_length", "attend_empty_memory"])
def test_options_of_text_memories_are_rejected(key):
    with pytest.raises(UserError, match=f"{key}=True .* is for language models"):
        EncoderCase("transformer_xl", **{key: True})
