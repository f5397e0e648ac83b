"""ROUGE, matching, answers and dialogues, each against examples or its library."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from tasks.text_metrics.base import Texts
from tasks.text_metrics.registry import (
    METRICS,
    check_metrics,
    compute_statistics,
    metric_columns,
    score_texts,
)
from tasks.text_metrics.rouge import split_sentences
from tasks.text_metrics.words import split_words
from utils.errors import UserError

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
HYPOTHESES = [
    "Meetings are confirmed for Tuesday. Bring your files.",
    "the cat sat on the mat",
    "",
]
REFERENCES = [
    ["The meetings are now confirmed. Bring your file on Tuesday.", "Tuesday meeting"],
    ["a cat was sitting on a mat"],
    ["something", "nothing"],
]


def values(names, *texts, **options):
    scored = score_texts(names, Texts(*texts, **options))
    return [scored.scores[name]["value"] for name in names]


@pytest.mark.parametrize("name", ROUGE)
def test_english_rouge_is_that_of_the_library_with_its_stemmer(name):
    scorer = RougeScorer([name], use_stemmer=True)
    total = 0.0
    for hypothesis, references in zip(HYPOTHESES, REFERENCES, strict=True):
        if name == "rougeLsum":
            hypothesis, *references = (
                text.replace(". ", ".\n") for text in (hypothesis, *references)
            )
        pairs = [scorer.score(text, hypothesis)[name] for text in references]
        total += max(pair.fmeasure for pair in pairs)
    [found] = values([name], HYPOTHESES, REFERENCES, "en")
    assert found == pytest.approx(100 * total / 3)
    assert 10 < found < 90


def test_rouge_of_one_sentence_by_hand():
    texts = ["police kill the gunman"], [["police killed the gunman"]]
    # Stems are equal in English; as words of another language three of four are.
    assert values(ROUGE, *texts, "en") == pytest.approx([100] * 4)
    expected = [75, 100 / 3, 75, 75]
    assert values(ROUGE, *texts, "nl") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("language", "hypothesis", "reference", "expected"),
    [
        ("zh", "我是学生", "我是大学生", 8 / 9),
        ("zh", "iPhone 14 发布", "发布 iPhone 14。", 1),
        ("ja", "私は学生です", "私は先生です", 10 / 12),
        ("ru", "Он дома.", "он ДОМА", 1),
        ("de", "Größe über alles", "Grosse uber alles", 1 / 3),
    ],
)
def test_words_of_other_scripts_count(language, hypothesis, reference, expected):
    names = ["rouge1", "token_f1"]
    found = values(names, [hypothesis], [[reference]], language)
    assert found == pytest.approx([100 * expected] * 2)


def test_a_character_is_a_word_in_scripts_without_spaces():
    assert split_words("我在iPhone14上，ＡＢＣ！") == [
        "我",
        "在",
        "iphone14",
        "上",
        "abc",
    ]
    assert split_words("カタカナ と 한국어") == [*"カタカナ", "と", "한국어"]
    assert split_words("l'été, naïve_x") == ["l", "été", "naïve", "x"]
    assert split_words(" …— ") == []
    assert split_sentences("A b. C d? 你好。再见") == "A b.\nC d?\n你好。\n再见"


def test_vowel_signs_belong_to_their_word():
    for text in ("राम की किताब", "মানুষ কি", "மீன் மான்", "שָׁלוֹם עֲלֵיכֶם", "كِتَابٌ"):
        assert split_words(f"{text}.") == text.split()
    fish, deer = ["மீன்"], [["மான்"]]
    assert values(["token_f1", "rouge1", "rougeL"], fish, deer, "ta") == [0, 0, 0]


@pytest.mark.parametrize(
    ("hypothesis", "references", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1),
        ("a tower in Paris", ["the Eiffel tower"], 2 * 1 / 5),
        ("Paris", ["London", "paris, France"], 2 / 3),
        ("the the", ["a"], 1),  # both are empty without articles
        ("", ["Paris"], 0),
        ("x x y", ["x y y"], 2 / 3),
    ],
)
def test_token_f1_is_that_of_squad(hypothesis, references, f1):
    assert values(["token_f1"], [hypothesis], [references], "en") == pytest.approx(
        [100 * f1]
    )


def test_exact_match_takes_any_reference_and_ignores_outer_space():
    hypotheses = [" a b ", "A b", "c"]
    references = [["x", "a b"], ["a b"], ["c", "c"]]
    assert values(["exact_match"], hypotheses, references) == pytest.approx([200 / 3])


def test_answers_count_by_their_value_and_invalid_ones_are_listed():
    hypotheses = ["- number0 number1", "number1 + 3", "7", "+ number0", "2"]
    columns = {
        "answer": ["2.0", "5", "8", "1", ""],
        "numbers": ["5.0 3", "1 2", "", "1", ""],
    }
    texts = Texts(hypotheses, [["-"]] * 5, columns=columns)
    scored = score_texts(["answer_accuracy"], texts)
    assert scored.scores["answer_accuracy"]["value"] == pytest.approx(40)
    assert scored.protocol["invalid_expressions"] == 1
    reasons = scored.details["invalid"]
    assert [reason is not None for reason in reasons] == [
        False,
        False,
        False,
        True,
        False,
    ]
    alone = Texts(["x + 1 = 3", "6 / 2"], [["-"]] * 2, columns={"answer": ["2", "3"]})
    assert score_texts(["answer_accuracy"], alone).scores["answer_accuracy"] == {
        "value": 100
    }
    bad = Texts(["1"], [["1"]], columns={"answer": ["one"]})
    with pytest.raises(UserError, match="example 1 of the column 'answer' is 'one'"):
        score_texts(["answer_accuracy"], bad)


def test_entities_are_counted_over_all_responses():
    hypotheses = ["go to bedouin in the north", "the_nirala , south", "bedouin is nice"]
    columns = {"entities": ["bedouin centre", "the_nirala south", ""]}
    texts = Texts(hypotheses, [["-"]] * 3, columns=columns)
    # Found 1 and 2 of 4; no entity of the last response is asked for; north is none.
    expected = 200 * 3 / (1 + 2 + 4)
    assert score_texts(["entity_f1"], texts).scores["entity_f1"]["value"] == (
        pytest.approx(expected)
    )


def test_a_dialogue_is_right_with_all_its_responses():
    hypotheses = ["a", "b", "c", "x", "e"]
    references = [["a"], ["b"], ["c"], ["d"], ["e"]]
    columns = {"dialog": ["0", "1", "0", "1", "2"]}
    texts = Texts(hypotheses, references, columns=columns)
    scored = score_texts(["dialogue_accuracy", "exact_match"], texts, intervals=True)
    accuracy = scored.scores["dialogue_accuracy"]
    assert accuracy["value"] == pytest.approx(200 / 3)
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert scored.scores["exact_match"]["value"] == 80
    assert scored.protocol["dialogues"] == 3


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_a_function_of_sums_with_a_direction(name):
    count = 40
    draw = np.random.default_rng(1)
    numbers = draw.integers(1, 4, size=(2, count))
    hypotheses, references = ([f"{n} + 0 + 0 + 0" for n in side] for side in numbers)
    columns = {
        "answer": [str(n) for n in numbers[1]],
        "entities": [str(n) for n in numbers[1]],
        "dialog": [str(k // 2) for k in range(count)],
    }
    texts = Texts(hypotheses, [[text] for text in references], "en", columns)
    statistics = compute_statistics(name, texts)
    entry, _ = statistics.evaluate(intervals=True)
    assert statistics.score(statistics.rows.sum(axis=0)) == pytest.approx(
        entry["value"]
    )
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert entry["low"] < entry["high"]
    perfect = compute_statistics(name, texts.with_hypotheses(references))
    best = perfect.evaluate(intervals=False)[0]["value"]
    is_max = METRICS[name].direction == "max"
    assert best == pytest.approx(100 if is_max else 0, abs=1e-9)
    assert (best > entry["value"]) == is_max


def test_names_and_columns_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="Unknown metric 'blue'"):
        check_metrics(["bleu", "blue"])
    check_metrics(METRICS)
    with pytest.raises(UserError, match="'answer', which the corpus does not have"):
        check_metrics(["answer_accuracy"], ["x"])
    with pytest.raises(UserError, match="'entities', which the corpus does not have"):
        compute_statistics("entity_f1", Texts(["a"], [["a"]]))
    assert metric_columns(["bleu", "answer_accuracy"]) == ["answer", "numbers"]


@pytest.mark.parametrize(
    ("references", "columns", "message"),
    [
        ([["a"]], {}, "2 hypotheses for 1 lists of references"),
        ([["a"], []], {}, "example 2 has no reference"),
        ([["a"], ["b"]], {"x": ["1"]}, "2 hypotheses for 1 rows of the column 'x'"),
    ],
)
def test_texts_of_unequal_number_are_refused(references, columns, message):
    with pytest.raises(UserError, match=message):
        Texts(["a", "b"], references, "en", columns)
