"""We agree with PyTorch and Hugging Face; see tests/goldens/README.md.

`pytest tests/models/test_goldens.py -s -k largest` prints by how much we do not.
"""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from helpers.golden_recurrent import compare_gru, compare_lstm
from helpers.golden_transformer import compare_attention, compare_transformer
from helpers.golden_transformer_xl import STARTS, case, compare_starts
from models.attention import dot_product
from models.transformer import stack
from models.transformer.memory import Memory
from models.transformer_xl import model

COMPARISONS = {
    "multihead_attention": compare_attention,
    "transformer_post": compare_transformer,
    "transformer_pre": compare_transformer,
    "gru": compare_gru,
    "lstm": compare_lstm,
    "transformer_xl": compare_starts,
    "transformer_xl_large": compare_starts,
}
OUTPUT, GRADIENT = 1e-5, 1e-4  # float32; of outputs, losses, memories; of gradients
SEEN = 1e-3  # how far a mistake must lead


def no_scale(softmax, scores, mask):
    return softmax(scores * 6**0.5, mask)  # the file's heads have width 6


def shifted_by_one(shift, scores, num_keys):
    return jnp.roll(shift(scores, num_keys), 1, axis=-1)


def one_later_key(causal, num_queries, num_keys):
    mask = causal(num_queries, num_keys)
    return mask | jnp.roll(mask, 1, axis=-1)


def one_earlier_key(near, num_queries, num_keys, window):
    return near(num_queries, num_keys, window + 1)


def interleaved_waves(sinusoids, positions, width, *, interleaved):
    return sinusoids(positions, width, interleaved=not interleaved)


MISTAKES = {  # a mistake: the file, and the function it is made in
    no_scale: ("transformer_xl", dot_product, "powers_of"),
    shifted_by_one: ("transformer_xl", dot_product, "relative_shift"),
    one_later_key: ("transformer_xl", model, "causal_mask"),
    one_earlier_key: ("transformer_xl_large", model, "near_mask"),
    interleaved_waves: ("transformer_xl", stack, "sinusoids"),
}


@functools.cache
def differences(name):
    """The largest, by quantity."""
    return COMPARISONS[name](name)


@pytest.mark.parametrize("name", COMPARISONS)
def test_we_agree_with_an_independent_implementation(name):
    largest = differences(name)
    assert {"outputs", "loss", "gradients"} <= largest.keys()
    for quantity, difference in largest.items():
        assert difference <= (GRADIENT if quantity == "gradients" else OUTPUT), quantity


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["transformer_xl", "transformer_xl_large"])
def test_the_memory_of_evaluation_gives_the_same_hidden_states(name, start):
    ours = case(name, start)
    segments = list(ours.stream())
    for n, (hidden, _) in enumerate(segments):
        theirs = ours.theirs(n)["hidden"]
        np.testing.assert_allclose(hidden, theirs, rtol=0, atol=OUTPUT)
    # With pre-norm the zeros that are seen are no keys, but hidden states.
    is_hidden = name.endswith("large") and start == "zeros"
    assert isinstance(segments[-1][1], Memory) == is_hidden


def distance(ours, params=None, **options):
    """How far hidden states are after memory has come in, and log probabilities."""
    hidden, log_probabilities = ours.watch(3, params, **options)[-1]
    theirs = ours.theirs(2)
    far = np.abs(log_probabilities - theirs["log_probabilities"]).max()
    return np.abs(hidden - theirs["hidden"]).max(), far


def test_content_and_position_bias_swapped_would_be_seen():
    ours = case("transformer_xl", "fresh")
    assert max(distance(ours)) <= OUTPUT
    stack = dict(ours.params["stack"])
    u, v = stack["content_bias"], stack["position_bias"]
    stack |= {"content_bias": v, "position_bias": u}
    assert min(distance(ours, {**ours.params, "stack": stack})) > SEEN


def test_tail_columns_in_the_other_order_would_be_seen():
    ours = case("transformer_xl", "fresh")
    _, params = ours.convert("parameters", "tensorflow")
    hidden, log_probabilities = distance(ours, params)
    assert hidden <= OUTPUT
    assert log_probabilities > SEEN


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_seen(mistake, monkeypatch):
    name, module, function = MISTAKES[mistake]
    mistaken = functools.partial(mistake, getattr(module, function))
    monkeypatch.setattr(module, function, mistaken)
    assert min(distance(case(name, "fresh"), anew=True)) > SEEN


def test_the_largest_differences_of_each_file_are_known():
    for name in COMPARISONS:
        largest = differences(name)
        told = "  ".join(f"{key} {value:.1e}" for key, value in largest.items())
        print(f"{name:22} {told}")
        assert all(np.isfinite(list(largest.values())))
