"""Blocks of what hypotheses have written: where it stands, and which of it is met."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.hypotheses import expand_beams, gather_beams
from helpers.architectures import LanguageModelCase, tokens
from models.attention.kv_cache import (
    FIRST_BLOCK_STEPS,
    active_block,
    block_sizes,
    init_blocks,
    num_slots,
    tile_beams,
    update_cache,
)

B, T, L, N = 2, 5, 2 * FIRST_BLOCK_STEPS + 8, 3  # L: three blocks
NAMES = ("transformer", "transformer_xl")


@pytest.mark.parametrize(
    "max_steps",
    [1, FIRST_BLOCK_STEPS, FIRST_BLOCK_STEPS + 1, 3 * FIRST_BLOCK_STEPS, 1000],
)
def test_each_step_stands_in_a_block_that_begins_at_half_of_it_or_later(max_steps):
    sizes = block_sizes(max_steps)
    assert sum(sizes) == max_steps
    ends = list(itertools.accumulate(sizes))
    for step in range(max_steps):
        block = int(active_block(jnp.asarray(step), max_steps))
        assert ends[block] - sizes[block] <= step < ends[block]
        assert ends[block] <= max(FIRST_BLOCK_STEPS, 2 * step)  # what is met


def test_accelerators_have_one_block():
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert block_sizes(L) == (L,)
    assert len(block_sizes(L)) == 3


@pytest.mark.parametrize("related", [True, False])
def test_slots_lie_side_by_side_by_steps(related):
    heads, head_dim = 3, 4
    past = jnp.zeros((B, heads, head_dim, 0)), jnp.zeros((B, heads, 0, head_dim))
    written = tile_beams(init_blocks(past, L), N, related=related)
    members, families = (N, B) if related else (1, B * N)
    assert num_slots(written) == L * members
    new = jax.random.normal(jax.random.key(0), (2, L, B, heads, N, head_dim))
    for step in range(L):
        written = update_cache(written, (new[0, step], new[1, step]), jnp.asarray(step))
    keys = jnp.concatenate([keys for keys, _ in written], axis=3)
    values = jnp.concatenate([values for _, values in written], axis=2)
    for family, step, member in itertools.product(
        range(families), range(L), range(members)
    ):
        row, hypothesis = divmod(family * members + member, N)
        slot = step * members + member
        expected = new[:, step, row, :, hypothesis]
        np.testing.assert_array_equal(keys[family, :, :, slot], expected[0])
        np.testing.assert_array_equal(values[family, :, slot], expected[1])


def begun(name, **changes):
    case = LanguageModelCase(name, **changes)
    prompt = tokens((B, T))
    _, _, carry = case.run(prompt, case.carry(B))
    mask = jnp.ones((B, T), bool)
    return case, carry, *case.start(prompt, mask, carry, max_steps=L)


def spoilt(state, first):
    """With NaN in all blocks from the `first` on."""

    def each(written):
        bad = jax.tree.map(lambda slots: slots * jnp.nan, written[first:])
        return written[:first] + bad

    return state._replace(kv=tuple(map(each, state.kv)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("step", "block"), [(0, 0), (FIRST_BLOCK_STEPS - 1, 0), (FIRST_BLOCK_STEPS, 1)]
)
def test_blocks_that_are_not_reached_are_not_met(name, step, block):
    case, _, context, state = begun(name)
    state = expand_beams(state, N, related=True)._replace(step=jnp.asarray(step))
    token = tokens((B, N), seed=3)
    _, expected = case.step(context, state, token)
    _, found = case.step(context, spoilt(state, block + 1), token)
    np.testing.assert_array_equal(found, expected)
    _, found = case.step(context, spoilt(state, block), token)
    assert np.isnan(found).any()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("transformer", {}),
        ("transformer", {"position_encoding": "shaw"}),
        ("transformer", {"position_encoding": "rotary"}),
        ("transformer_xl", {}),
        ("transformer_xl", {"same_length": True, "memory_length": 7}),
    ],
)
def test_a_line_through_all_blocks_equals_one_pass(name, changes):
    """Hypotheses go on from one another; each is then read alone, as a whole."""
    case, carry, context, state = begun(name, **changes)
    state = expand_beams(state, N, related=True)
    rng = np.random.default_rng(0)
    lines = jnp.zeros((B, N, 0), jnp.int32)
    for step in range(L):
        parents = jnp.asarray(rng.integers(N, size=(B, N)))
        token = tokens((B, N), seed=10 + step)
        state, lines = gather_beams((state, lines), parents)
        lines = jnp.concatenate([lines, token[..., None]], axis=-1)
        state, logits = case.step(context, state, token)
        if step not in (
            FIRST_BLOCK_STEPS - 1,
            FIRST_BLOCK_STEPS,
            2 * FIRST_BLOCK_STEPS,
            L - 1,
        ):
            continue
        for k in range(N):
            text = jnp.concatenate([tokens((B, T)), lines[:, k]], axis=1)
            _, whole, _ = case.run(text, carry)
            np.testing.assert_allclose(logits[:, k], whole[:, -1], atol=1e-4)
