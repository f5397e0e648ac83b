"""Metrics of sacrebleu: several references, edit rates, and split compounds."""

import math

import numpy as np
import pytest
import sacrebleu

from tasks.text_metrics.base import Texts
from tasks.text_metrics.ngrams import split_compounds
from tasks.text_metrics.registry import compute_statistics, score_texts
from utils.errors import UserError

HYPOTHESES = ["the cat sat on the mat", "a dog barks at night .", "hello"]
REFERENCES = [
    ["the cat is on the mat", "there is a cat on the mat"],
    ["the dog barks at night ."],
    ["good day", "hi", "hello there"],
]


def streams(references):
    """Returns references as sacrebleu's interface has them."""
    width = max(map(len, references))
    return [
        [row[k] if k < len(row) else None for row in references] for k in range(width)
    ]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("bleu", sacrebleu.BLEU()),
        ("chrf", sacrebleu.CHRF()),
        ("ter", sacrebleu.TER()),
    ],
)
def test_several_references_score_as_sacrebleu_does(name, metric):
    expected = metric.corpus_score(HYPOTHESES, streams(REFERENCES)).score
    scored = score_texts([name], Texts(HYPOTHESES, REFERENCES, "en"))
    assert scored.scores[name]["value"] == pytest.approx(expected)
    assert "nrefs:var" in scored.protocol[f"{name}_signature"]
    first = Texts(HYPOTHESES, [row[:1] for row in REFERENCES], "en")
    assert score_texts([name], first).scores[name]["value"] != expected


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_the_sums_of_the_rows_have_the_score(name):
    statistics = compute_statistics(name, Texts(HYPOTHESES, REFERENCES, "en"))
    value = statistics.evaluate(intervals=False)[0]["value"]
    assert statistics.score(statistics.rows.sum(axis=0)) == pytest.approx(value)
    entry, _ = statistics.evaluate(intervals=True)
    assert entry["low"] <= entry["high"]
    assert entry["value"] == value


def test_an_edit_is_a_word_and_a_shift_is_one_edit():
    texts = Texts(["b c d e a", "a b x d"], [["a b c d e"], ["a b c d"]], "en")
    assert score_texts(["ter"], texts).scores["ter"]["value"] == pytest.approx(
        100 * 2 / 9
    )
    perfect = Texts(["我是学生"], [["我是学生"]], "zh")
    assert score_texts(["ter"], perfect).scores["ter"]["value"] == 0
    close = Texts(["我是学生"], [["你是学生"]], "zh")
    assert score_texts(["ter"], close).scores["ter"]["value"] == pytest.approx(25)


def test_compounds_are_split_as_the_regular_expression_of_perl_does():
    assert split_compounds("rich-text format") == "rich ##AT##-##AT## text format"
    assert split_compounds("a - b -c d-") == "a - b -c d-"
    assert split_compounds("x-ray-tube") == "x ##AT##-##AT## ray ##AT##-##AT## tube"
    assert split_compounds("a-b-c") == "a ##AT##-##AT## b-c"  # s///g does not overlap


def bleu_of(hypothesis, reference):
    """Papineni et al. (2002) for one pair of lists of tokens."""
    logs = 0.0
    for n in range(1, 5):
        grams = [
            [tuple(side[i : i + n]) for i in range(len(side) - n + 1)]
            for side in (hypothesis, reference)
        ]
        common = sum(
            min(grams[0].count(gram), grams[1].count(gram)) for gram in set(grams[0])
        )
        logs += math.log(common / len(grams[0])) / 4
    brevity = min(1.0, math.exp(1 - len(reference) / len(hypothesis)))
    return 100 * brevity * math.exp(logs)


def test_compound_split_bleu_is_that_of_cased_split_tokens():
    hypothesis = ["Die Rich-Text-Datei ist „neu“, sagt er."]
    reference = ["Die Rich-Text-Datei war „neu“, sagt er heute."]
    split = " ##AT##-##AT## "
    tokens = [
        f'Die Rich{split}Text{split}Datei ist " neu " , sagt er .'.split(),
        f'Die Rich{split}Text{split}Datei war " neu " , sagt er heute .'.split(),
    ]
    name = "bleu_compound_split"
    scored = score_texts([name], Texts(hypothesis, [reference], "de"))
    assert scored.scores[name]["value"] == pytest.approx(bleu_of(*tokens))
    lower = [hypothesis[0].lower()]
    lowered = score_texts([name], Texts(lower, [reference], "de"))
    assert lowered.scores[name]["value"] < scored.scores[name]["value"]
    assert "compounds split" in scored.protocol[f"{name}_tokenizer"]
    nothing = score_texts([name], Texts(["a b c"], [["x y z"]], "de"))
    assert nothing.scores[name]["value"] == 0  # multi-bleu.perl does not smooth


def test_moses_tokens_need_spaces_between_words():
    for name in ("bleu_moses_lowercase", "bleu_compound_split"):
        with pytest.raises(UserError, match="spaces between words, not 'zh_CN'"):
            score_texts([name], Texts(["我"], [["我"]], "zh_CN"))


def test_equal_texts_have_the_best_score_of_every_metric():
    names = ["bleu", "bleu_moses_lowercase", "bleu_compound_split", "chrf", "ter"]
    texts = Texts(["a b c d e f"] * 3, [["a b c d e f"]] * 3, "en")
    scored = score_texts(names, texts, intervals=True)
    found = [scored.scores[name]["value"] for name in names]
    np.testing.assert_allclose(found, [100, 100, 100, 100, 0], atol=1e-9)


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_intervals_of_texts_without_words_are_within_the_range(name):
    hypotheses = ["the cat sat on a mat", "", "hello", ""]
    references = [[text] for text in ("the cat sat on a mat", "a dog", "", "")]
    for rows in (slice(4), slice(2, 4), slice(1), slice(3, 4)):
        texts = Texts(hypotheses[rows], references[rows], "en")
        entry = score_texts([name], texts, intervals=True).scores[name]
        assert 0 <= entry["low"] <= entry["high"]
        assert entry["high"] <= 100 or name == "ter"
