"""Phrases of Unicode CLDR with the fields of their words."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import pytest
from babel import Locale

from data.corpora.translation.cldr import LOCALES
from data.corpora.translation.cldr_phrases import CATEGORIES
from data.corpora.understanding import cldr_fields
from data.corpora.understanding.cldr_labels import KINDS, render_fields, tag_words
from helpers.tables import prepare_table, rows

SMALL = {"train": 400, "validation": 40, "test": 40}
BY_NAME = {category.name: category for category in CATEGORIES}
MARCH_5 = datetime(2024, 3, 5, 14, 7, 9, tzinfo=UTC)
MARCH_8 = datetime(2024, 3, 8, tzinfo=UTC)

# Written by hand: a word with its tag, or alone if it is outside of all fields.
KNOWN = [
    ("dates", MARCH_5, "full", "en",
     "Tuesday/B-weekday , March/B-month 5/B-day , 2024/B-year"),
    ("dates", MARCH_5, "long", "zh",
     "2024/B-year 年/I-year 3/B-month 月/I-month 5/B-day 日/I-day"),
    ("moments", MARCH_5, "short-time", "en", "2/B-hour : 07/B-minute PM/B-day_period"),
    ("days", (MARCH_5, MARCH_8), "yMMMd", "de",
     "5/B-day . – 8/B-day . März/B-month 2024/B-year"),
    ("distances", (-3, "day"), "long", "fr",
     "il/B-direction y/I-direction a/I-direction 3/B-number jours/B-period"),
    ("distances", (3, "month"), "long", "zh",
     "3/B-number 个/B-period 月/I-period 后/B-direction"),
    ("distances", (-3, "day"), "long", "en",
     "3/B-number days/B-period ago/B-direction"),
    ("quantities", (Decimal("1.5"), "length-mile"), "long", "en",
     "1/B-number ./I-number 5/I-number miles/B-unit"),
    ("quantities", (5, "consumption-liter-per-100-kilometer"), "short", "de",
     "5/B-number L/B-unit //I-unit 100/I-unit km/I-unit"),
    ("amounts", (Decimal("1234.56"), "EUR"), "standard", "en",
     "€/B-currency 1/B-number ,/I-number 234/I-number ./I-number 56/I-number"),
    ("territories", ["US", "FR"], "or", "en",
     "United/B-territory States/I-territory or France/B-territory"),
    ("languages", ["ru", "zh"], "standard", "de",
     "Russisch/B-language und Chinesisch/B-language"),
]  # fmt: skip


@pytest.fixture(scope="module")
def splits():
    return cldr_fields.rows(SMALL)


@pytest.mark.parametrize(("name", "value", "style", "code", "expected"), KNOWN)
def test_every_word_has_the_tag_of_its_field(name, value, style, code, expected):
    text, fields = render_fields(BY_NAME[name], value, style, Locale(code))
    tagged = zip(*tag_words(text, fields), strict=True)
    words = [word if tag == "O" else f"{word}/{tag}" for word, tag in tagged]
    assert " ".join(words) == expected


@pytest.mark.parametrize("code", LOCALES)
@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_texts_are_those_of_babel_and_fields_are_in_order(category, code):
    random, locale = Random(0), Locale(code)
    for style in category.styles:
        for _ in range(20):
            value = category.draw(random)
            text, fields = render_fields(category, value, style, locale)
            assert text == category.render(value, style, locale)
            for field, after in itertools.pairwise(fields):
                assert field.start < field.end <= after.start
            tag_words(text, fields)  # no word is partly in a field


def test_no_text_occurs_twice(splits):
    texts = [row["text"] for examples in splits.values() for row in examples]
    assert len(texts) == len(set(texts))
    assert {s: len(rows) for s, rows in splits.items()} == SMALL | {
        "train": len(splits["train"])
    }
    assert 0.95 * SMALL["train"] <= len(splits["train"]) <= SMALL["train"] + 9


def test_tags_are_well_formed_and_words_make_up_the_text(splits):
    for row in itertools.chain.from_iterable(splits.values()):
        assert "".join(row["tokens"]) == row["text"].replace(" ", "")
        assert len(row["tags"]) == len(row["tokens"])
        for previous, tag in itertools.pairwise(["O", *row["tags"]]):
            assert tag == "O" or tag[:2] == "B-" or previous[2:] == tag[2:]
        assert any(tag != "O" for tag in row["tags"])


def test_every_kind_and_language_occurs(splits):
    kinds = {row["kind"] for row in splits["train"]}
    assert kinds == {*KINDS.values(), "time"}
    assert {row["language"] for row in splits["test"]} == {*LOCALES}


def test_the_prepared_corpus_reads_back_as_it_was_drawn(tmp_path, splits, monkeypatch):
    for split, size in SMALL.items():
        monkeypatch.setitem(cldr_fields.SIZES, split, size)
    builder = prepare_table("cldr_fields", tmp_path)
    assert builder.kind == "table"
    for split, examples in splits.items():
        assert rows(builder, split) == examples
