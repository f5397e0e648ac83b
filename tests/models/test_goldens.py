"""Comparisons with PyTorch and Hugging Face; see tests/goldens/README.md.

`pytest tests/models/test_goldens.py -s -k largest` prints the largest differences.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import golden_bert
from helpers.golden_bert import compare_bert
from helpers.golden_recurrent import compare_gru, compare_lstm
from helpers.golden_transformer import compare_attention, compare_transformer
from helpers.golden_transformer_xl import STARTS, case, compare_starts
from models.attention import dot_product
from models.common.layers import ACTIVATIONS
from models.transformer import stack
from models.transformer_xl import model as transformer_xl
from models.transformer_xl.model import Memory

COMPARISONS = {
    "multihead_attention": compare_attention,
    "transformer_post": compare_transformer,
    "transformer_pre": compare_transformer,
    "gru": compare_gru,
    "lstm": compare_lstm,
    "transformer_xl": compare_starts,
    "transformer_xl_large": compare_starts,
    "bert": compare_bert,
    "bert_deep": compare_bert,
    "bert_wide": compare_bert,
}
# Tolerances in float32, of outputs, losses and memories, and of gradients.
OUTPUT, GRADIENT = 1e-5, 1e-4
DETECTED = 1e-3  # the smallest difference that a mistake must cause


def no_scale(masked_exp, logits, mask):
    return masked_exp(logits * 6**0.5, mask)  # the file's heads have width 6


def shifted_by_one(shift, logits, num_keys):
    return jnp.roll(shift(logits, num_keys), 1, axis=-1)


def one_later_key(causal, num_queries, num_keys):
    mask = causal(num_queries, num_keys)
    return mask | jnp.roll(mask, 1, axis=-1)


def one_earlier_key(window_mask, num_queries, num_keys, window):
    return window_mask(num_queries, num_keys, window + 1)


def interleaved_waves(encoding, positions, width, *, interleaved):
    return encoding(positions, width, interleaved=not interleaved)


MISTAKES = {  # mistake: (golden file, module and name of the mistaken function)
    no_scale: ("transformer_xl", dot_product, "masked_exp"),
    shifted_by_one: ("transformer_xl", dot_product, "relative_shift"),
    one_later_key: ("transformer_xl", transformer_xl, "causal_mask"),
    one_earlier_key: ("transformer_xl_large", transformer_xl, "sliding_window_mask"),
    interleaved_waves: ("transformer_xl", stack, "sinusoidal_encoding"),
}


@functools.cache
def differences(name):
    """Largest difference of each quantity."""
    return COMPARISONS[name](name)


SLOW = {"bert_deep", "bert_wide"}  # other sizes
NAMES = [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in COMPARISONS]


@pytest.mark.parametrize("name", NAMES)
def test_results_equal_those_of_an_independent_implementation(name):
    largest = differences(name)
    assert {"outputs", "loss", "gradients"} <= largest.keys()
    for quantity, difference in largest.items():
        assert difference <= (GRADIENT if quantity == "gradients" else OUTPUT), quantity


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["transformer_xl", "transformer_xl_large"])
def test_the_kv_memory_of_evaluation_gives_the_same_hidden_states(name, start):
    ours = case(name, start)
    segments = list(ours.stream())
    for n, (hidden, _) in enumerate(segments):
        theirs = ours.theirs(n)["hidden"]
        np.testing.assert_allclose(hidden, theirs, rtol=0, atol=OUTPUT)
    # With pre-norm, attended zeros are hidden states, not keys.
    is_hidden = name.endswith("large") and start == "zeros"
    assert isinstance(segments[-1][1], Memory) == is_hidden


def distance(ours, params=None, **options):
    """Differences of hidden states and log probabilities, with a filled memory."""
    hidden, log_probabilities = ours.watch(3, params, **options)[-1]
    theirs = ours.theirs(2)
    difference = np.abs(log_probabilities - theirs["log_probabilities"]).max()
    return np.abs(hidden - theirs["hidden"]).max(), difference


def test_swapping_content_and_position_bias_is_detected():
    ours = case("transformer_xl", "fresh")
    assert max(distance(ours)) <= OUTPUT
    stack = dict(ours.params["stack"])
    u, v = stack["content_bias"], stack["position_bias"]
    stack |= {"content_bias": v, "position_bias": u}
    assert min(distance(ours, {**ours.params, "stack": stack})) > DETECTED


def test_tail_columns_in_reverse_order_are_detected():
    ours = case("transformer_xl", "fresh")
    _, params = ours.convert("parameters", "tensorflow")
    hidden, log_probabilities = distance(ours, params)
    assert hidden <= OUTPUT
    assert log_probabilities > DETECTED


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_detected(mistake, monkeypatch):
    name, module, function = MISTAKES[mistake]
    mistaken = functools.partial(mistake, getattr(module, function))
    monkeypatch.setattr(module, function, mistaken)
    assert min(distance(case(name, "fresh"), anew=True)) > DETECTED


def bert_distance(params=None):
    """Largest difference of the logits of masked tokens from those of BERT."""
    ours = golden_bert.case("bert")
    run = jax.jit(lambda params: ours.run(params)[1]["logits"])  # compiled anew
    logits = run(params or ours.params)
    return np.abs(logits - ours.golden.group("outputs")["logits"]).max()


def test_swapped_segments_of_bert_are_detected():
    assert bert_distance() <= OUTPUT
    params = golden_bert.case("bert").params
    encoder = dict(params["encoder"])
    table = encoder["segment_embedding"]["table"]
    encoder["segment_embedding"] = {"table": table[::-1]}
    assert bert_distance({**params, "encoder": encoder}) > DETECTED


def test_an_approximate_gelu_of_bert_is_detected(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "gelu", nn.gelu)
    assert bert_distance() > DETECTED


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_differences_of_each_file_are_printed(name):
    largest = differences(name)
    text = "  ".join(f"{key} {value:.1e}" for key, value in largest.items())
    print(f"{name:22} {text}")
    assert all(np.isfinite(list(largest.values())))
