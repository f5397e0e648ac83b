"""Tests of the effective context length, of toy models and of real ones."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.effective_context import (
    context_losses,
    evenly_spaced,
    format_table,
    parse_lengths,
    plot,
    recl,
    relative_gains,
    segment_starts,
    summarize,
)
from helpers.architectures import LanguageModelCase, V, only
from utils.errors import UserError

LONGEST, SIZE, STEP = 240, 480, 20  # each length is a program
LENGTHS = range(STEP, LONGEST + 1, STEP)


class Copier(nn.Module):
    """Predicts a token that was among the last `span`."""

    span: int

    def initial_carry(self, rows, *, train, memory_length=None):
        return ()

    def __call__(self, tokens, carry, *, train):
        recent = jax.nn.one_hot(tokens[:, -self.span :], SIZE).max(axis=1)
        return jnp.broadcast_to(recent[:, None], (*tokens.shape, SIZE)), carry

    def log_prob(self, hidden, labels):
        known = jnp.take_along_axis(hidden, labels[..., None], axis=-1)[..., 0]
        return jnp.where(known > 0, math.log(0.5), math.log(1e-3))


def repeating_text(length=6000):
    """Each token repeats the one 1 to 240 tokens before it."""
    draw = np.random.default_rng(0)
    text = draw.permutation(SIZE)[:LONGEST].tolist()
    while len(text) < length:
        text.append(text[len(text) - 1 - int(draw.integers(LONGEST))])
        if len(text) % 3 == 0:  # so that tokens do not die out
            text[-1] = int(draw.integers(SIZE))
    return np.asarray(text)


@functools.cache
def copiers_losses():
    text = repeating_text()
    places = evenly_spaced(len(text), LONGEST, 200)
    options = {"batch_size": 200, "segment_length": 16}
    return np.stack(
        [
            context_losses(Copier(span), {}, text, places, LENGTHS, **options)
            for span in (60, 200)
        ]
    )


def test_models_that_use_60_and_200_tokens_are_distinguished():
    near, far = recl(copiers_losses(), LENGTHS, 1.0)
    assert not near.is_longest
    assert near.length <= 60 < far.length <= 200


def test_context_beyond_the_used_one_gives_no_gain():
    gains = relative_gains(copiers_losses(), 1.0)
    for row, span in zip(gains, (60, 200), strict=True):
        last = span // STEP - 1
        assert row[:last].max() > 0.02
        np.testing.assert_array_equal(row[last:], 0.0)


def test_gains_follow_the_formula_of_the_paper():
    log = np.log
    losses = log([[[2.0, 9.0], [2.0, 3.0]], [[4.0, 8.0], [1.0, 8.0]]])
    # b = log(2, 8). All places: f(c, c) = log 4; f(c, c') = log sqrt(2 3), log sqrt(8).
    expected = [[1 - math.sqrt(6) / 4], [1 - math.sqrt(8) / 4]]
    np.testing.assert_allclose(relative_gains(losses, 1.0), expected, rtol=1e-12)
    # The harder half is the second place: from 8 to 3, and no gain.
    np.testing.assert_allclose(
        relative_gains(losses, 0.5), [[1 - 3 / 8], [0.0]], atol=1e-12
    )


def test_worse_losses_with_more_context_give_no_negative_gain():
    losses = np.asarray([[[1.0, 2.0], [5.0, 6.0]]])
    np.testing.assert_array_equal(relative_gains(losses, 1.0), [[0.0]])


def test_effective_context_ends_at_the_first_small_gain():
    losses = np.log([[[8.0], [4.0], [4.0], [1.0]]])
    (found,) = recl(losses, [10, 20, 30, 40], 1.0)
    assert (found.length, found.is_longest) == (20, False)


def test_a_model_that_always_gains_uses_at_least_the_longest_context():
    losses = np.log([[[8.0], [4.0], [2.0]]])
    (found,) = recl(losses, [10, 20, 30], 0.1)
    assert (found.length, found.is_longest) == (30, True)
    assert ">=30" in format_table(summarize(["a"], [10, 20, 30], losses))


@pytest.mark.parametrize("name", only("transformer_xl"))
def test_losses_depend_on_the_window_and_nothing_before_it(name):
    case = LanguageModelCase(name)
    text = np.random.default_rng(0).integers(V, size=40)
    other = np.concatenate([(text[:20] + 1) % V, text[20:]])
    losses = functools.partial(
        context_losses,
        case.model,
        case.variables,
        positions=np.asarray([26, 30, 33]),
        batch_size=2,
        segment_length=4,
    )
    found, changed = losses(text, lengths=(6, 8)), losses(other, lengths=(6, 8))
    np.testing.assert_array_equal(found[0], changed[0])  # 26 - 6 = 20
    assert found[1][0] != changed[1][0]
    np.testing.assert_array_equal(found[1][1:], changed[1][1:])
    logits = case.run(jnp.asarray(text[None, 18:26]), case.carry(1))[1]
    expected = -jax.nn.log_softmax(logits[0, -1])[text[26]]
    np.testing.assert_allclose(found[1][0], expected, rtol=1e-5)


def test_only_the_first_segment_of_a_window_is_short():
    assert segment_starts(10, 4) == [2, 6]
    assert segment_starts(8, 4) == [4]
    assert segment_starts(3, 4) == []


def test_positions_follow_the_longest_context_and_cover_the_text():
    places = evenly_spaced(1000, 100, 9)
    assert places.tolist() == [100 + 100 * i for i in range(9)]
    assert evenly_spaced(105, 100, 50).tolist() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("lengths", ["8", "8,16,25", "16,8", "0,8", "8,x"])
def test_unevenly_spaced_lengths_are_refused(lengths):
    with pytest.raises(UserError, match="--lengths"):
        parse_lengths(lengths.split(","))


def test_the_picture_is_written(tmp_path):
    losses = np.log([[[8.0], [4.0]], [[7.0], [5.0]]])
    plot(summarize(["a", "b"], [8, 16], losses), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
