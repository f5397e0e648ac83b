"""Sliding-window evaluation: every token counts once, after enough context."""

from collections import Counter

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from data.batching.stream import LMEvalBatches, SlidingWindows
from data.token_cache import TokenizedSplit
from data.tokenizers.base import EOS
from experiment.validate import check_values
from helpers.architectures import LanguageModelCase, V
from helpers.task_cases import language_modeling_task
from tasks.bootstrap import BLOCK_SIZE
from utils.errors import UserError

LENGTH = 6


def text_of(size):
    tokens = np.random.default_rng(0).integers(4, V, size)
    return TokenizedSplit(tokens, np.asarray([0, size]), 3 * size, size // 2, 5 * size)


@pytest.mark.parametrize("size", [1, 6, 7, 23, 24, 31])
@pytest.mark.parametrize("stride", [1, 2, 4, 6])
@pytest.mark.parametrize("rows", [1, 3])
def test_each_token_counts_once_after_at_least_so_many_others(size, stride, rows):
    text = TokenizedSplit(np.arange(10, 10 + size), np.asarray([0, size]), 0, 0, 0)
    batches = SlidingWindows(text, batch_size=rows, length=LENGTH, stride=stride)
    seen = Counter()
    for k in range(len(batches)):
        batch = batches[k]
        counts = batch["weights"] > 0
        places = batches.label_positions(k)[counts]
        np.testing.assert_array_equal(batch["labels"][counts], places + 10)
        seen.update(places.tolist())
        before = np.nonzero(counts)[1]  # labels of the window that stand before
        assert (before >= np.minimum(places, LENGTH - stride)).all()
        inner = counts & (np.arange(LENGTH) > 0)
        np.testing.assert_array_equal(
            batch["tokens"][inner], batch["labels"][inner] - 1
        )
        assert batch["reset"].all()
        assert batch["tokens"].shape == batches.shapes[0]
    assert seen == Counter(range(size))
    assert batches[0]["tokens"][0, 0] == EOS
    with pytest.raises(IndexError):
        batches[len(batches)]


def card_of(case, batches, **how):
    return language_modeling_task().evaluate(
        case.model, case.variables, batches, ConfigDict(), **how
    )


def test_windows_with_a_stride_of_their_length_equal_segments():
    case, text = LanguageModelCase("transformer", layers=1), text_of(50)
    plain = card_of(case, LMEvalBatches(text, batch_size=1, length=LENGTH))
    for rows in (1, 4):
        windows = SlidingWindows(text, batch_size=rows, length=LENGTH, stride=LENGTH)
        card = card_of(case, windows)
        for name, score in card["scores"].items():
            expected = plain["scores"][name]["value"]
            np.testing.assert_allclose(score["value"], expected, rtol=1e-6)
        assert card["protocol"]["window"] == card["protocol"]["stride"] == LENGTH
        assert "segment_length" not in card["protocol"]


def test_a_stride_of_one_gives_each_token_the_full_context():
    case, text = LanguageModelCase("transformer", layers=1), text_of(15)
    windows = SlidingWindows(text, batch_size=2, length=LENGTH, stride=1)
    card = card_of(case, windows)
    before = np.concatenate([[EOS], text.tokens])
    total = 0.0
    for place, label in enumerate(text.tokens):
        first = max(0, place + 1 - LENGTH)
        shown = np.zeros((1, LENGTH), np.int32)
        shown[0, : place + 1 - first] = before[first : place + 1]
        logits = case.run(shown, ())[1][0, place - first]
        total -= float(jax.nn.log_softmax(logits)[label])
    np.testing.assert_allclose(card["scores"]["loss"]["value"], total / 15, rtol=1e-5)
    plain = card_of(case, LMEvalBatches(text, batch_size=1, length=LENGTH))
    assert abs(plain["scores"]["loss"]["value"] - total / 15) > 1e-3


def test_a_model_with_a_carry_has_no_windows():
    case = LanguageModelCase("rnn", layers=1)
    windows = SlidingWindows(text_of(20), batch_size=2, length=LENGTH, stride=2)
    with pytest.raises(UserError, match=r"eval.window=6 needs a model without a carry"):
        card_of(case, windows)


def test_scores_of_a_text_are_by_exact_counts_and_so_are_their_intervals():
    case, text = LanguageModelCase("transformer", layers=1), text_of(5 * BLOCK_SIZE + 7)
    card = card_of(case, LMEvalBatches(text, batch_size=3, length=8), intervals=True)
    blocks, size = card["blocks"], len(text.tokens)
    assert blocks.weight.tolist() == [*[BLOCK_SIZE] * 5, 7]
    bits = blocks.total.sum() / np.log(2)
    scores = card["scores"]
    expected = {
        "loss": blocks.total.sum() / size,
        "perplexity": np.exp(blocks.total.sum() / size),
        "bits_per_token": bits / size,
        "word_perplexity": np.exp(blocks.total.sum() / (size // 2)),
        "bits_per_character": bits / (3 * size),
        "bits_per_byte": bits / (5 * size),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name]["value"], value, rtol=1e-9)
        assert scores[name]["low"] < value < scores[name]["high"]
    # Blocks are those of the text, whatever it was read in.
    windows = SlidingWindows(text, batch_size=4, length=LENGTH, stride=2)
    again = card_of(case, windows)["blocks"]
    np.testing.assert_array_equal(again.weight, blocks.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval.window": 0}, "eval.window=0 must be in 1 to"),
        ({"eval.window": 4, "eval.stride": 5}, "eval.stride=5 must be in 1 to 4"),
        ({"eval.stride": 5}, "eval.stride=5 needs eval.window"),
        ({"eval.window": 4, "task": "translation"}, "eval.window=4 is for task='lang"),
        ({"data.document_order": True}, "data.document_order=True is for translation"),
        ({"loss_fraction": 0.0}, "loss_fraction=0.0 leaves no token to train on"),
    ],
)
def test_invalid_windows_are_refused(changes, message):
    cfg = base.get_config()
    cfg.update_from_flattened_dict({"task": "language_modeling"} | changes)
    with pytest.raises(UserError, match=message):
        check_values(cfg)
