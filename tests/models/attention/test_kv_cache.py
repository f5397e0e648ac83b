"""Tests of the key/value cache: beam groups, reordering, and blocks of steps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.hypotheses import expand_beams, gather_beams
from helpers.architectures import LanguageModelCase, Seq2SeqCase, shared_case, tokens
from models.attention.kv_cache import (
    FIRST_BLOCK_STEPS,
    active_block,
    block_sizes,
    init_blocks,
    merge_groups,
    split_groups,
    tile_beams,
    update_cache,
)

B, T, N = 2, 5, 3
STEPS = 2 * FIRST_BLOCK_STEPS + 8  # three blocks
SLOW = pytest.mark.slow
CASES = {"language model": LanguageModelCase, "translation": Seq2SeqCase}


@functools.cache
def start(kind):
    """A small Transformer, the context and the state of one beam."""
    case = CASES[kind]("transformer", layers=2)
    if kind == "language model":
        text, mask = tokens((B, T)), jnp.ones((B, T), bool)
        return case, *case.start(text, mask, case.carry(B), max_steps=16)
    carry = case.carry(B, memory_length=0)
    return case, *case.start(case.source, case.source_mask, carry, max_steps=16)


@pytest.mark.parametrize("kind", CASES)
def test_reordering_beams_moves_no_keys_and_values(kind):
    state = expand_beams(start(kind)[2], 3, related=True)
    parents = jnp.asarray([[2, 0, 0], [1, 1, 2]])
    reordered = gather_beams((state, jnp.arange(6).reshape(2, 3)), parents)
    assert reordered[0].kv is state.kv
    np.testing.assert_array_equal(reordered[1], [[2, 0, 0], [4, 4, 5]])


def test_separate_beam_groups_cannot_be_reordered():
    state = start("language model")[2]
    separate = expand_beams(state, 3, related=False)
    with pytest.raises(ValueError, match="related=True"):
        gather_beams(separate, jnp.zeros((B, 3), jnp.int32))
    one_beam = expand_beams(state, 1, related=True)
    gather_beams(one_beam, jnp.zeros((B, 1), jnp.int32))


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("related", [True, False])
def test_the_cache_grows_with_the_number_of_beams(kind, related):
    state = start(kind)[2]
    expanded = expand_beams(state, 3, related=related)
    assert expanded.beams_per_group == (3 if related else 1)
    one, three = (
        sum(leaf.size for leaf in jax.tree.leaves(each.kv))
        for each in (state, expanded)
    )
    assert three == 3 * one


def test_a_sample_costs_the_same_next_to_other_samples():
    case, context, state = start("language model")

    def flops(count, related):
        expanded = expand_beams(state, count, related=related)
        token = jnp.zeros((B, count), jnp.int32)
        step = jax.jit(functools.partial(case.model.apply, method="step"))
        compiled = step.lower(case.variables, context, expanded, token).compile()
        return compiled.cost_analysis()["flops"]

    ratio = flops(16, related=False) / 16 / flops(1, related=False)
    assert ratio < 1.1
    # Related beams do cost more: a query computes logits for its whole group.
    assert flops(16, related=True) > 1.3 * flops(16, related=False)


def test_merging_groups_inverts_splitting_them():
    x = jnp.arange(2.0 * 3 * 6 * 4).reshape(2, 3, 6, 4)
    for num_groups, beams_per_group in ((2, 6), (4, 3), (12, 1)):
        grouped = split_groups(x, num_groups)
        assert grouped.shape == (num_groups, 3, beams_per_group, 4)
        np.testing.assert_array_equal(merge_groups(grouped, 2), x)
    # The third beam of the first sentence's second group is its sixth beam.
    np.testing.assert_array_equal(split_groups(x, 4)[1, :, 2], x[0, :, 5])


@pytest.mark.parametrize(
    "max_steps",
    [1, FIRST_BLOCK_STEPS, FIRST_BLOCK_STEPS + 1, 3 * FIRST_BLOCK_STEPS, 1000],
)
def test_a_step_attends_to_at_most_twice_as_many_slots_as_are_filled(max_steps):
    sizes = block_sizes(max_steps)
    assert sum(sizes) == max_steps
    ends = list(itertools.accumulate(sizes))
    for step in range(max_steps):
        block = int(active_block(jnp.asarray(step), max_steps))
        assert ends[block] - sizes[block] <= step < ends[block]
        assert ends[block] <= max(FIRST_BLOCK_STEPS, 2 * step)


def test_accelerators_have_a_single_block():
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert block_sizes(STEPS) == (STEPS,)
    assert len(block_sizes(STEPS)) == 3


@pytest.mark.parametrize("related", [True, False])
def test_slots_of_a_step_are_adjacent_in_the_cache(related):
    heads, head_dim = 3, 4
    prefix = jnp.zeros((B, heads, head_dim, 0)), jnp.zeros((B, heads, 0, head_dim))
    blocks = tile_beams(init_blocks(prefix, STEPS), N, related=related)
    beams_per_group, num_groups = (N, B) if related else (1, B * N)
    assert sum(values.shape[2] for _, values in blocks) == STEPS * beams_per_group
    new = jax.random.normal(jax.random.key(0), (2, STEPS, B, heads, N, head_dim))
    for step in range(STEPS):
        blocks = update_cache(blocks, (new[0, step], new[1, step]), jnp.asarray(step))
    keys = jnp.concatenate([keys for keys, _ in blocks], axis=3)
    values = jnp.concatenate([values for _, values in blocks], axis=2)
    for group, step, beam in itertools.product(
        range(num_groups), range(STEPS), range(beams_per_group)
    ):
        sentence, beam_of_sentence = divmod(group * beams_per_group + beam, N)
        slot = step * beams_per_group + beam
        expected = new[:, step, sentence, :, beam_of_sentence]
        np.testing.assert_array_equal(keys[group, :, :, slot], expected[0])
        np.testing.assert_array_equal(values[group, :, slot], expected[1])


def start_after_memory(name, **changes):
    """A small language model, its carry, the context and the state of one beam."""
    case = shared_case(LanguageModelCase, name, **changes)
    prompt = tokens((B, T))
    _, _, carry = case.run(prompt, case.carry(B))
    mask = jnp.ones((B, T), bool)
    return case, carry, *case.start(prompt, mask, carry, max_steps=STEPS)


def with_nan_blocks(state, first):
    """The state with NaN in all blocks from the `first` on."""

    def spoil(blocks):
        return blocks[:first] + jax.tree.map(lambda x: x * jnp.nan, blocks[first:])

    return state._replace(kv=tuple(map(spoil, state.kv)))


@pytest.mark.parametrize(
    "name", ["transformer", pytest.param("transformer_xl", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("step", "block"), [(0, 0), (FIRST_BLOCK_STEPS - 1, 0), (FIRST_BLOCK_STEPS, 1)]
)
def test_blocks_after_the_active_one_are_not_read(name, step, block):
    case, _, context, state = start_after_memory(name)
    state = expand_beams(state, N, related=True)._replace(step=jnp.asarray(step))
    token = tokens((B, N), seed=3)
    _, expected = case.step(context, state, token)
    _, found = case.step(context, with_nan_blocks(state, block + 1), token)
    np.testing.assert_array_equal(found, expected)
    _, found = case.step(context, with_nan_blocks(state, block), token)
    assert np.isnan(found).any()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("transformer", {}),
        pytest.param(
            *("transformer_xl", {"same_length": True, "memory_length": 7}), marks=SLOW
        ),
        pytest.param("transformer", {"position_encoding": "shaw"}, marks=SLOW),
        pytest.param("transformer", {"position_encoding": "rotary"}, marks=SLOW),
        pytest.param("transformer_xl", {}, marks=SLOW),
    ],
)
def test_reordered_beams_equal_one_pass_over_their_history(name, changes):
    case, carry, context, state = start_after_memory(name, **changes)
    state = expand_beams(state, N, related=True)
    rng = np.random.default_rng(0)
    histories = jnp.zeros((B, N, STEPS), jnp.int32)  # later tokens do not matter
    first = FIRST_BLOCK_STEPS
    for step in range(STEPS):
        parents = jnp.asarray(rng.integers(N, size=(B, N)))
        token = tokens((B, N), seed=10 + step)
        state, histories = gather_beams((state, histories), parents)
        histories = histories.at[:, :, jnp.asarray(step)].set(token)
        state, logits = case.step(context, state, token)
        if step not in (first - 1, first, 2 * first, STEPS - 1):
            continue
        for beam in range(N):
            text = jnp.concatenate([tokens((B, T)), histories[:, beam]], axis=1)
            _, whole, _ = case.run(text, carry)
            np.testing.assert_allclose(logits[:, beam], whole[:, T + step], atol=1e-4)
