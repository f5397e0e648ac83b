"""Baselines of classification."""

import pytest

from tasks.understanding import naive_bayes

GOOD = ["a fine film", "fine acting , a joy", "a joy to watch", "so fine"]
BAD = ["a dull film", "dull and long", "long , dull acting", "a bore , so long"]


def test_the_majority_is_the_most_frequent_label_and_of_equal_ones_the_first():
    assert naive_bayes.majority_label(["b", "a", "b"]) == "b"
    assert naive_bayes.majority_label(["b", "a"]) == "a"


@pytest.mark.parametrize("copies", [1, 3])  # of many texts, smoothing is chosen
def test_naive_bayes_labels_texts_by_their_words(copies):
    train = [(text,) for text in [*GOOD, *BAD] * copies]
    labels = ["good"] * 4 + ["bad"] * 4
    found = naive_bayes.naive_bayes_labels(
        train, labels * copies, [("a fine joy",), ("a long bore",), ("unseen",)]
    )
    assert found[:2] == ["good", "bad"]
    assert found[2] in labels


def test_texts_without_spaces_are_read_by_character():
    train = [("很好的酒店",), ("房间很好",), ("太差了",), ("差的房间",)]
    labels = ["1", "1", "0", "0"]
    found = naive_bayes.naive_bayes_labels(train, labels, [("好",), ("差",)])
    assert found == ["1", "0"]


def test_features_of_a_pair_tell_what_both_texts_share():
    found = naive_bayes.features(("a b", "b c"), by_character=False)
    assert sorted(found) == ["1|a", "1|a b", "2|b c", "2|c", "both|b"]


def test_features_of_a_relation_are_those_of_the_entities_and_between():
    text = "the <e1>big house</e1> has <e2>doors</e2> ."
    found = naive_bayes.features((text,), by_character=False)
    assert found == ["e1|big", "e1|house", "e1|big house", "after e1|has", "e2|doors"]
    found = naive_bayes.features(("<e2>a</e2> of <e1>b</e1>",), by_character=False)
    assert found == ["e2|a", "after e2|of", "e1|b"]


def test_labels_of_pairs_follow_the_overlap():
    draws = [("cat sat", "cat sat"), ("dog", "dog"), ("cat", "dog"), ("sat", "ran")]
    labels = ["same", "same", "other", "other"]
    pairs = [("bird cat", "bird cat"), ("dog", "ran")]
    found = naive_bayes.naive_bayes_labels(draws, labels, pairs)
    assert found == ["same", "other"]
