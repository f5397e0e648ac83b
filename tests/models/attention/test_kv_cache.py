"""Caches of families: what moves when hypotheses do, and what their search costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoding.hypotheses import expand_beams, gather_beams
from helpers.architectures import LanguageModelCase, Seq2SeqCase, tokens
from models.attention.kv_cache import merge_groups, split_groups

B, T, L = 2, 5, 16
CASES = {"text": LanguageModelCase, "translation": Seq2SeqCase}


@functools.cache
def started(kind):
    case = CASES[kind]("transformer", layers=2)
    if kind == "text":
        text = tokens((B, T))
        found = case.start(text, jnp.ones((B, T), bool), case.carry(B), max_steps=L)
    else:
        carry = case.carry(B, memory_length=0)
        found = case.start(case.source, case.source_mask, carry, max_steps=L)
    return case, *found


@pytest.mark.parametrize("kind", CASES)
def test_no_keys_and_no_values_move_when_hypotheses_do(kind):
    wide = expand_beams(started(kind)[2], 3, related=True)
    parents = jnp.asarray([[2, 0, 0], [1, 1, 2]])
    moved = gather_beams((wide, jnp.arange(6).reshape(2, 3)), parents)
    assert moved[0].kv is wide.kv
    np.testing.assert_array_equal(moved[1], [[2, 0, 0], [4, 4, 5]])


def test_strangers_do_not_go_on_from_one_another():
    wide = expand_beams(started("text")[2], 3, related=False)
    with pytest.raises(ValueError, match="related=True"):
        gather_beams(wide, jnp.zeros((B, 3), jnp.int32))
    gather_beams(
        expand_beams(started("text")[2], 1, related=True), jnp.zeros((B, 1), jnp.int32)
    )


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("related", [True, False])
def test_hypotheses_take_no_more_room_than_one_each(kind, related):
    state = started(kind)[2]
    wide = expand_beams(state, 3, related=related)
    assert wide.beams_per_group == (3 if related else 1)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(s.kv)) for s in (state, wide)]
    assert sizes[1] == 3 * sizes[0]


def test_strangers_are_not_met():
    """What a sample costs does not grow with the samples beside it."""
    case, context, state = started("text")

    def flops(count, related):
        wide = expand_beams(state, count, related=related)
        token = jnp.zeros((B, count), jnp.int32)
        step = jax.jit(functools.partial(case.model.apply, method="step"))
        compiled = step.lower(case.variables, context, wide, token).compile()
        return compiled.cost_analysis()["flops"]

    alone = flops(16, related=False) / 16 / flops(1, related=False)
    assert alone < 1.1
    assert flops(16, related=True) > 1.3 * flops(16, related=False)  # it can be seen


def test_families_and_rows_are_two_orders_of_the_same():
    x = jnp.arange(2.0 * 3 * 6 * 4).reshape(2, 3, 6, 4)
    for families, members in ((2, 6), (4, 3), (12, 1)):
        grouped = split_groups(x, families)
        assert grouped.shape == (families, 3, members, 4)
        np.testing.assert_array_equal(merge_groups(grouped, 2), x)
    # The second family of the first row: its third hypothesis is the row's sixth.
    np.testing.assert_array_equal(split_groups(x, 4)[1, :, 2], x[0, :, 5])
