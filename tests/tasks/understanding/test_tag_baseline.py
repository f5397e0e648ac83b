"""The baseline of tagging."""

from tasks.understanding.tag_baseline import most_frequent_tags

TRAIN = [
    (["to", "new", "york"], ["O", "B-CITY", "I-CITY"]),
    (["a", "new", "york"], ["O", "O", "B-CITY"]),
    (["a", "new", "car"], ["O", "O", "O"]),
]


def test_the_word_before_decides_first_then_the_word_then_the_most_frequent_tag():
    sentences = [["to", "new", "york"], ["one", "new", "thing"], []]
    expected = [["O", "B-CITY", "I-CITY"], ["O", "O", "O"], []]
    assert most_frequent_tags(TRAIN, sentences) == expected


def test_the_first_word_of_a_sentence_follows_none():
    train = [(["new"], ["B-CITY"]), (["a", "new", "new"], ["O", "O", "O"])]
    assert most_frequent_tags(train, [["new"], ["a", "new"]]) == [
        ["B-CITY"],
        ["O", "O"],
    ]
