"""Minimum-Bayes-risk choice, against utilities of all pairs by sacrebleu."""

import jax
import numpy as np
import pytest
import sacrebleu

from data.tokenizers.base import EOS
from decoding.config import DecodingConfig
from decoding.hypotheses import Hypotheses
from decoding.minimum_bayes_risk import (
    choose_samples,
    expected_utilities,
    make_utility,
)
from helpers.architectures import LanguageModelCase
from helpers.task_cases import decode_options, language_modeling_task, translation_case
from utils.languages import sacrebleu_tokenizer

TEXTS = [
    "a man in a blue shirt is standing on a ladder",
    "a man stands on a ladder",
    "a man in a blue shirt is standing on a ladder",
    "two dogs run",
    "a man in blue stands on the ladder and cleans a window",
    "a man stands on a ladder",
    "",
]
SAMPLES = 12


def sentence_utility(name, hypothesis, reference):
    """The sentence-level functions of sacrebleu, which make a metric of their own."""
    if name == "chrf":
        return sacrebleu.sentence_chrf(hypothesis, [reference]).score
    return sacrebleu.sentence_bleu(hypothesis, [reference]).score


def all_pairs(texts, name):
    """Mean utility of each text, equal ones included, for all texts."""
    table = [[sentence_utility(name, text, other) for other in texts] for text in texts]
    return np.mean(table, axis=1)


def as_hypotheses(lists):
    """Samples of given token ids, with end symbols."""
    width = max(len(ids) for row in lists for ids in row) + 1
    tokens = np.full((len(lists), len(lists[0]), width), EOS, np.int32)
    lengths = np.zeros(tokens.shape[:2], np.int32)
    for row, samples in enumerate(lists):
        for sample, ids in enumerate(samples):
            tokens[row, sample, : len(ids)] = ids
            lengths[row, sample] = len(ids) + 1
    return Hypotheses(tokens, np.zeros(lengths.shape, np.float32), lengths)


def join(ids):
    return " ".join(map(str, ids))


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_expected_utilities_are_means_over_all_samples(name):
    ours = expected_utilities(TEXTS, make_utility(name))
    assert list(ours) == list(dict.fromkeys(TEXTS))
    for text, expected in zip(TEXTS, all_pairs(TEXTS, name), strict=True):
        np.testing.assert_allclose(ours[text], expected, rtol=1e-6)


def test_equal_texts_are_scored_once_and_count_as_often_as_they_were_drawn():
    calls = []

    def utility(text, other):
        calls.append((text, other))
        return float(text == other)

    found = expected_utilities(["a", "b", "a", "a"], utility)
    assert found == {"a": 0.75, "b": 0.25}
    assert len(calls) == 4


def test_the_utility_is_of_the_candidate_for_the_sample():
    """Longer texts recall more, so that chrF is not symmetric."""
    utility = make_utility("chrf")
    assert utility("a man", "a man stands") != utility("a man stands", "a man")
    expected = sacrebleu.sentence_chrf("a man", ["a man stands"]).score
    assert utility("a man", "a man stands") == expected


def test_bleu_has_the_tokenizer_of_the_language():
    assert sacrebleu_tokenizer("zh") == "zh"
    assert sacrebleu_tokenizer("ja") == "char"
    assert sacrebleu_tokenizer("de") == sacrebleu_tokenizer("") == "13a"
    one, other = "我爱你们大家", "我爱他们大家"
    by_word, by_character = (
        make_utility("bleu", tokenize)(one, other) for tokenize in ("13a", "zh")
    )
    assert by_word == 0
    assert by_character > 20


def test_the_best_come_first_and_of_equal_ones_the_first_drawn():
    samples = as_hypotheses([[[7], [5, 6], [8], [5, 6], [9]]])
    found = choose_samples(samples, join, lambda a, b: float(a == b), 3)
    assert found.to_lists() == [
        [([5, 6], np.float32(0.4)), ([7], np.float32(0.2)), ([8], np.float32(0.2))]
    ]


def test_fewer_texts_than_asked_for_leave_missing_hypotheses():
    samples = as_hypotheses([[[5], [5], [5, 6]], [[4], [4], [4]]])
    found = choose_samples(samples, join, make_utility("chrf"), 3)
    assert [len(row) for row in found.to_lists()] == [2, 1]
    missing = found.lengths == 0
    assert (found.scores[missing] == -np.inf).all()
    assert (found.tokens[missing] == EOS).all()


def test_padding_is_not_decoded():
    samples = as_hypotheses([[[5], [6]], [[7], [8]]])
    decoded = []

    def decode(ids):
        decoded.append(ids)
        return join(ids)

    utility, padding = make_utility("chrf"), np.asarray([False, True])
    found = choose_samples(samples, decode, utility, 1, is_padding=padding)
    assert decoded == [[5], [6]]
    assert found.to_lists() == [[([5], 50.0)], []]


def searched(**changes):
    case, task = translation_case()
    batch = {
        "source": np.asarray(case.source),
        "source_mask": np.asarray(case.source_mask),
        "reset": np.ones(2, bool),
        "ids": np.asarray([3, 4], np.int32),
    }
    cfg = decode_options(seed=5, temperature=0.3, **changes)
    decoding = DecodingConfig.from_config(cfg.decode)
    found, _ = task.search(case.model, case.variables, (), batch, cfg, decoding)
    return jax.device_get(found)


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_a_translation_is_the_best_of_the_samples_of_its_seed(name):
    drawn = searched(method="sample", n_best=SAMPLES).to_lists()
    options = {"method": "mbr", "mbr_samples": SAMPLES, "mbr_utility": name}
    found = searched(n_best=2, **options)
    for row, samples in enumerate(drawn):
        texts = [join(ids) for ids, _ in samples]
        expected = all_pairs(texts, name)
        assert len(set(texts)) > 2
        (ids, score), (_, second) = found.to_lists()[row]
        assert join(ids) == texts[expected.argmax()]
        np.testing.assert_allclose(score, expected.max(), rtol=1e-5)
        np.testing.assert_allclose(second, np.unique(expected)[-2], rtol=1e-5)


def test_a_continuation_is_chosen_by_its_text_even_if_ids_are_written():
    case, task = LanguageModelCase("rnn", layers=1), language_modeling_task()
    options = {"seed": 5, "temperature": 0.3}
    sampled = decode_options(method="sample", n_best=SAMPLES, **options)
    (drawn,) = task.predict_n_best(case.model, case.variables, ["5 6 7"], sampled)
    texts = [text for text, _ in drawn]
    expected = all_pairs(texts, "chrf")
    cfg = decode_options(method="mbr", mbr_samples=SAMPLES, **options)
    arguments = (case.model, case.variables, ["5 6 7"], cfg)
    ((found, score),) = next(task.predict_n_best(*arguments))
    assert found == texts[expected.argmax()]
    np.testing.assert_allclose(score, expected.max(), rtol=1e-5)
    ids = task.tokenizer.encode("5 6 7")
    arguments = (case.model, case.variables, [join(ids)], cfg)
    ((written, again),) = next(task.with_token_ids().predict_n_best(*arguments))
    assert again == score
    found_ids = [int(word) for word in written.split()]
    assert task.tokenizer.decode_after(ids, found_ids) == found
