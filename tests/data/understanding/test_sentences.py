"""Documents and sentences of the corpora's texts."""

import pytest

from data.understanding.sentences import divide, split_prose

WIKITEXT = ["", "= Tower =", "", "", "It is high . It fell .", ""]
WIKITEXT += ["= = History = =", "", "Key : W", "= Wins , L =", "Losses", ""]
WIKITEXT += ["= Rain =", "", "Was it wet ? Yes .", ""]
BOOK = 'CHAPTER I\n He  saw Mr. Fox. "Who?" she\nasked. "I!" Said J. Hay ... it'


ARTICLES = [
    ["It is high .", "It fell .", "Key : W", "= Wins , L =", "Losses"],
    ["Was it wet ?", "Yes ."],
]
MODULE = ["import os", "def f():", "    x"]


@pytest.mark.parametrize(
    ("corpus", "texts", "documents"),
    [
        ("wikitext2", WIKITEXT, ARTICLES),
        ("novels/0123", ["He\n ran.  On", "End."], [["He ran.", "On"], ["End."]]),
        ("python_stdlib/3.11.1", ["import os\n\n\ndef f():\n    x\n"], [MODULE]),
        ("document_text/x", ["a\nb ", "c"], [["a", "b"], ["c"]]),
        ("plain_text/x", ["a", "b", " ", "", "c"], [["a", "b"], ["c"]]),
        (
            "plain_text/x",
            ["a\nb\n\nc\n", "d", "e\nf"],
            [["a", "b"], ["c"], ["d"], ["e", "f"]],
        ),
        ("plain_text/x", ["", " \n\t"], []),
    ],
)
def test_texts_are_divided_by_the_rules_of_their_corpus(corpus, texts, documents):
    assert list(divide(corpus, iter(texts), keep_ends=False)) == documents


def test_prose_ends_at_punctuation_but_not_after_titles_and_initials():
    assert split_prose(" ".join(BOOK.split())) == [
        "CHAPTER I He saw Mr. Fox.",
        '"Who?" she asked.',
        '"I!"',
        "Said J. Hay ... it",
    ]
    assert split_prose("So am I. He ran!' Yes. 12 men. and") == [
        "So am I.",
        "He ran!'",
        "Yes.",
        "12 men. and",
    ]


def test_separators_are_kept_where_characters_are_tokens():
    texts = ["Ja.", "天。", "“天。”", ""]
    (found,) = divide("plain_text", texts, keep_ends=True)
    assert found == ["Ja. ", "天。", "“天。”"]
    module = list(divide("python_stdlib", ["a\n\nb"], keep_ends=True))
    assert module == [["a\n", "b\n"]]
    (book,) = divide("novels", ["A b. C d."], keep_ends=True)
    assert "".join(book) == "A b. C d. "
