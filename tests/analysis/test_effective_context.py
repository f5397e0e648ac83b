"""Effective context: of models built to reach so far, by hand, and of real ones."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.effective_context.context_losses import (
    context_losses,
    cuts,
    spread_places,
)
from analysis.effective_context.recl import (
    draw,
    parse_lengths,
    reaches,
    relative_gains,
    report,
    table,
)
from helpers.architectures import LanguageModelCase, V, names
from utils.errors import UserError

FARTHEST, SIZE, STEP = 256, 512, 8
LENGTHS = range(STEP, FARTHEST + 1, STEP)


class Copier(nn.Module):
    """Knows that a token comes again if it was among the last `reach`."""

    reach: int

    def initial_carry(self, rows, *, train, memory_length=None):
        return ()

    def __call__(self, tokens, carry, *, train):
        seen = jax.nn.one_hot(tokens[:, -self.reach :], SIZE).max(axis=1)
        return jnp.broadcast_to(seen[:, None], (*tokens.shape, SIZE)), carry

    def log_prob(self, hidden, labels):
        known = jnp.take_along_axis(hidden, labels[..., None], axis=-1)[..., 0]
        return jnp.where(known > 0, math.log(0.5), math.log(1e-3))


def repeating_text(length=6000):
    """Each token repeats the one 1 to 256 tokens before it."""
    draw = np.random.default_rng(0)
    text = draw.permutation(SIZE)[:FARTHEST].tolist()
    while len(text) < length:
        text.append(text[len(text) - 1 - int(draw.integers(FARTHEST))])
        if len(text) % 3 == 0:  # so that tokens do not die out
            text[-1] = int(draw.integers(SIZE))
    return np.asarray(text)


@functools.cache
def copiers_losses():
    text = repeating_text()
    places = spread_places(len(text), FARTHEST, 500)
    options = {"rows": 250, "segment_length": 16}
    return np.stack(
        [
            context_losses(Copier(reach), {}, text, places, LENGTHS, **options)
            for reach in (64, 200)
        ]
    )


def test_models_built_to_reach_64_and_200_tokens_are_told_apart():
    near, far = reaches(copiers_losses(), LENGTHS, 1.0)
    assert not near.is_longest
    assert near.length <= 64 < far.length <= 200


def test_no_context_beyond_a_models_reach_gains_anything():
    gains = relative_gains(copiers_losses(), 1.0)
    for row, reach in zip(gains, (64, 200), strict=True):
        last = reach // STEP - 1
        assert row[:last].max() > 0.02
        np.testing.assert_array_equal(row[last:], 0.0)


def test_gains_are_those_of_the_papers_formula_by_hand():
    log = np.log
    losses = log([[[2.0, 9.0], [2.0, 3.0]], [[4.0, 8.0], [1.0, 8.0]]])
    # b = log(2, 8). All places: f(c, c) = log 4; f(c, c') = log sqrt(2 3), log sqrt(8).
    expected = [[1 - math.sqrt(6) / 4], [1 - math.sqrt(8) / 4]]
    np.testing.assert_allclose(relative_gains(losses, 1.0), expected, rtol=1e-12)
    # The harder half is the second place: from 8 to 3, and no gain.
    np.testing.assert_allclose(
        relative_gains(losses, 0.5), [[1 - 3 / 8], [0.0]], atol=1e-12
    )


def test_worse_losses_with_more_context_are_no_negative_gain():
    losses = np.asarray([[[1.0, 2.0], [5.0, 6.0]]])
    np.testing.assert_array_equal(relative_gains(losses, 1.0), [[0.0]])


def test_reach_ends_at_the_first_small_gain_though_a_later_one_is_large():
    losses = np.log([[[8.0], [4.0], [4.0], [1.0]]])
    (found,) = reaches(losses, [10, 20, 30, 40], 1.0)
    assert (found.length, found.is_longest) == (20, False)


def test_a_model_that_always_gains_reaches_at_least_the_longest():
    losses = np.log([[[8.0], [4.0], [2.0]]])
    (found,) = reaches(losses, [10, 20, 30], 0.1)
    assert (found.length, found.is_longest) == (30, True)
    assert ">=30" in table(report(["a"], [10, 20, 30], losses))


@pytest.mark.parametrize("name", names())
def test_losses_know_the_window_and_nothing_before_it(name):
    case = LanguageModelCase(name)
    text = np.random.default_rng(0).integers(V, size=40)
    other = np.concatenate([(text[:20] + 1) % V, text[20:]])
    losses = functools.partial(
        context_losses,
        case.model,
        case.variables,
        places=np.asarray([26, 30, 33]),
        rows=2,
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
    assert cuts(10, 4) == [2, 6]
    assert cuts(8, 4) == [4]
    assert cuts(3, 4) == []


def test_places_lie_after_the_longest_context_and_all_over_the_text():
    places = spread_places(1000, 100, 9)
    assert places.tolist() == [100 + 100 * i for i in range(9)]
    assert spread_places(105, 100, 50).tolist() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("lengths", ["8", "8,16,25", "16,8", "0,8", "8,x"])
def test_lengths_that_are_not_a_step_apart_are_refused(lengths):
    with pytest.raises(UserError, match="--lengths"):
        parse_lengths(lengths.split(","))


def test_the_picture_is_written(tmp_path):
    losses = np.log([[[8.0], [4.0]], [[7.0], [5.0]]])
    draw(report(["a", "b"], [8, 16], losses), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
