"""Bootstrap intervals of losses, and the BLEU that older papers report."""

import collections
import math

import numpy as np
import pytest
import sacrebleu

from tasks.bootstrap import BootstrapBlocks, resampled_means
from tasks.text_metrics.base import Texts
from tasks.text_metrics.scorer import Scorer
from tasks.translation_inference import one_line


def score_text(hypotheses, references, language, *, intervals=False):
    """Scores of the default metrics but exact match, and their protocol."""
    texts = Texts(hypotheses, [[text] for text in references], language)
    scorer = Scorer((), language, str, lowercase=False)
    scored = scorer.score(texts, intervals=intervals)
    del scored.scores["exact_match"]
    return scored.scores, scored.protocol


def test_the_width_of_an_interval_agrees_with_the_standard_error():
    draw = np.random.default_rng(3)
    total = draw.normal(300.0, 40.0, size=900)
    blocks = BootstrapBlocks(total, np.full(900, 100.0))
    low, high = blocks.interval()
    error = (total / 100).std() / math.sqrt(900)
    assert low < blocks.mean < high
    np.testing.assert_allclose(high - low, 2 * 1.96 * error, rtol=0.1)


def test_equal_blocks_give_a_point_interval_and_long_blocks_weigh_more():
    weight = np.asarray([1.0, 2.0, 30.0])
    low, high = BootstrapBlocks(2.5 * weight, weight).interval()
    assert low == pytest.approx(2.5)
    assert high == pytest.approx(2.5)
    means = resampled_means(np.asarray([1.0, 60.0]), np.asarray([1.0, 30.0]))
    expected = {1.0, 2.0, 61 / 31}  # by which of two blocks were drawn
    assert {round(mean, 9) for mean in means} == {round(x, 9) for x in expected}


def test_losses_are_added_to_their_blocks_and_padding_is_ignored():
    blocks = BootstrapBlocks.zeros(3)
    numbers = np.asarray([[0, 2, -1], [2, 2, 9]])
    weights = np.asarray([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    blocks.add(numbers, np.asarray([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]]), weights)
    assert blocks.total.tolist() == [1.0, 0.0, 9.0]
    assert blocks.weight.tolist() == [1.0, 0.0, 3.0]
    assert blocks.mean == 2.5


def test_without_any_loss_neither_mean_nor_interval_is_a_number():
    blocks = BootstrapBlocks.zeros(3)
    assert np.isnan([blocks.mean, *blocks.interval()]).all()


def bleu_of(hypotheses, references):
    """Papineni et al. (2002), of tokens."""
    precision, lengths = 1.0, [0, 0]
    for n in range(1, 5):
        common = count = 0
        for pair in zip(hypotheses, references, strict=True):
            grams = [
                collections.Counter(
                    tuple(text[i : i + n]) for i in range(len(text) - n + 1)
                )
                for text in pair
            ]
            common += (grams[0] & grams[1]).total()
            count += grams[0].total()
        precision *= common / count
    for pair in zip(hypotheses, references, strict=True):
        lengths = [a + len(text) for a, text in zip(lengths, pair, strict=True)]
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    return 100 * brevity * precision**0.25


def test_bleu_moses_lowercase_scores_lowercased_moses_tokens():
    hypotheses = ["Der Hund läuft, z.B. im Park (heute).", "Das ist ein Haus."]
    references = ["der Hund läuft, z.B. in dem Park (heute)", "das ist ein Haus."]
    tokens = [
        "der hund läuft , z.b. im park ( heute ) .|das ist ein haus .",
        "der hund läuft , z.b. in dem park ( heute )|das ist ein haus .",
    ]
    by_hand = [[line.split() for line in side.split("|")] for side in tokens]
    scores, signatures = score_text(hypotheses, references, "de", intervals=True)
    found = scores["bleu_moses_lowercase"]
    assert found["value"] == pytest.approx(bleu_of(*by_hand))
    assert found.keys() == {"value", "low", "high"}
    assert scores["bleu"]["value"] < found["value"] - 1
    assert "case:lc" in signatures["bleu_moses_lowercase_signature"]
    assert "tok:none" in signatures["bleu_moses_lowercase_signature"]
    assert "sacremoses" in signatures["bleu_moses_lowercase_tokenizer"]
    assert "tok:13a" in signatures["bleu_signature"]


def test_bleu_moses_lowercase_needs_intervals_and_a_spaced_language():
    texts = ["a b c d e"]
    assert "bleu_moses_lowercase" not in score_text(texts, texts, "de")[0]
    # Of most samples of these nothing matches.
    poor = ["a b"] + ["x"] * 11
    found, _ = score_text(poor, ["a b"] + ["y"] * 11, "de", intervals=True)
    expected = sacrebleu.corpus_chrf(poor, [["a b"] + ["y"] * 11]).score
    assert found["chrf"]["value"] == pytest.approx(expected)
    found, _ = score_text(texts, texts, "ja", intervals=True)
    assert found.keys() == {"bleu", "chrf"}


@pytest.mark.parametrize(
    ("codes", "tokenizer"),
    [
        ("zh zh_CN zh_TW zh-Hans cmn zho chi yue", "zh"),
        ("ja ja_JP jpn th tha my_MM", "char"),
        ("ko kor de_DE deu eng", "13a"),
    ],
)
def test_the_tokenizer_of_bleu_follows_the_language_of_any_code(codes, tokenizer):
    for code in codes.split():
        scores, signatures = score_text(["我 是 学生 。"], ["我是学生。"], code)
        assert f"tok:{tokenizer}" in signatures["bleu_signature"], code
        assert (scores["bleu"]["value"] > 99) == (tokenizer != "13a"), code
        assert "unknown_language" not in signatures


def test_the_signatures_say_that_a_language_is_unknown():
    texts = ["a b c d e"]
    _, signatures = score_text(texts, texts, "xx", intervals=True)
    assert signatures["unknown_language"] == "xx"
    assert "tok:13a" in signatures["bleu_signature"]
    assert signatures["bleu_moses_lowercase_tokenizer"].endswith(", en")


def test_a_text_of_several_lines_becomes_one():
    assert one_line("a\r\nb\u2028c\n") == "a  b\u2028c "
