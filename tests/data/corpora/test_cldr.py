import itertools
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random

import babel
import pytest
import tensorflow_datasets as tfds
from babel import Locale

from data.corpora.translation import cldr
from data.corpora.translation.cldr_phrases import (
    CATEGORIES,
    LANGUAGES,
    TERRITORIES,
    UNITS,
    Category,
)

ROOT = Path(__file__).parents[3]
SMALL = {"train": 2000, "validation": 200, "test": 200}
TINY = {"train": 160, "validation": 20, "test": 20}
BY_NAME = {category.name: category for category in CATEGORIES}
LANGUAGE_PAIRS = [*itertools.permutations(cldr.LOCALES, 2)]

MARCH_5 = datetime(2024, 3, 5, 14, 7, 9, tzinfo=UTC)
MARCH_8 = datetime(2024, 3, 8, tzinfo=UTC)

# Written by hand, not by Babel.
KNOWN = [
    ("dates", MARCH_5, "long", {
        "en": "March 5, 2024", "de": "5. März 2024", "fr": "5 mars 2024",
        "es": "5 de marzo de 2024", "zh": "2024年3月5日", "ja": "2024年3月5日",
        "ru": "5 марта 2024 г.",
    }),
    ("dates", MARCH_5, "full", {
        "en": "Tuesday, March 5, 2024", "de": "Dienstag, 5. März 2024",
        "ja": "2024年3月5日火曜日",
    }),
    ("moments", MARCH_5, "short-time", {
        "en": "2:07 PM", "de": "14:07", "fr": "14:07", "ru": "14:07",
    }),
    ("days", (MARCH_5, MARCH_8), "yMMMd", {
        "en": "Mar 5 – 8, 2024", "de": "5.–8. März 2024", "zh": "2024年3月5日至8日",
    }),
    ("hours", (MARCH_8, MARCH_8.replace(hour=3, minute=12)), "Hm", {
        "en": "00:00 – 03:12", "de": "00:00–03:12 Uhr",
    }),
    ("distances", (-3, "day"), "long", {
        "en": "3 days ago", "de": "vor 3 Tagen", "fr": "il y a 3 jours",
        "es": "hace 3 días", "zh": "3天前", "ru": "3 дня назад",
    }),
    ("distances", (1, "week"), "long", {"en": "in 1 week", "de": "in 1 Woche"}),
    ("quantities", (Decimal("1.5"), "length-kilometer"), "long", {
        "en": "1.5 kilometers", "de": "1,5 Kilometer", "zh": "1.5公里",
        "ru": "1,5 километра",
    }),
    ("amounts", (Decimal("1234.56"), "EUR"), "standard", {
        "en": "€1,234.56", "de": "1.234,56 €", "fr": "1 234,56 €",
    }),
    ("amounts", (Decimal("21"), "JPY"), "name", {
        "en": "21 Japanese yen", "ja": "21円", "ru": "21 японская иена",
    }),
    ("territories", ["FR", "DE", "JP"], "standard", {
        "en": "France, Germany, and Japan", "de": "Frankreich, Deutschland und Japan",
        "ja": "フランス、ドイツ、日本",
    }),
    ("languages", ["ru", "zh"], "or", {
        "en": "Russian or Chinese", "de": "Russisch oder Chinesisch",
        "es": "ruso o chino",
    }),
]  # fmt: skip


@pytest.fixture(scope="module")
def splits():
    return cldr.pairs("en", "de", SMALL)


@pytest.fixture(scope="module")
def mixtures():
    return {languages: cldr.mix(*languages, 120) for languages in LANGUAGE_PAIRS}


def share_in_script(texts, name):
    letters = [char for char in "".join(texts) if char.isalpha()]
    return sum(unicodedata.name(char).startswith(name) for char in letters) / len(
        letters
    )


@pytest.mark.parametrize(("name", "value", "style", "texts"), KNOWN)
def test_a_value_is_written_as_each_language_writes_it(name, value, style, texts):
    render = BY_NAME[name].render
    got = {code: cldr.plain(render(value, style, Locale(code))) for code in texts}
    assert got == texts


def test_no_two_splits_share_a_source(splits):
    sources = {
        split: {source for source, _ in found} for split, found in splits.items()
    }
    for first, second in itertools.combinations(sources.values(), 2):
        assert first.isdisjoint(second)


def test_no_source_has_two_targets_or_stands_twice(splits):
    sources = [source for found in splits.values() for source, _ in found]
    assert len(sources) == len(set(sources))


def test_an_ambiguous_source_is_removed_wholly_and_a_repeated_pair_merged():
    drawn = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("c", "4")]
    assert cldr.unambiguous(drawn) == [("b", "2"), ("c", "4")]


def test_where_styles_collide_in_the_source_the_text_means_the_first():
    texts = {"en": {"long": "May 5", "brief": "05-05"}, "de": {"long": "5. Mai"}}
    texts["de"]["brief"] = texts["de"]["long"]
    toy = Category(
        "toy",
        1.0,
        ("long", "brief"),
        draw=lambda random: None,
        render=lambda value, style, locale: texts[locale.language][style],
    )
    drawn = cldr.draw_pairs(toy, "de", "en", 10)
    assert drawn == [("5. Mai", "May 5")]
    assert sorted(cldr.draw_pairs(toy, "en", "de", 10)) == [
        ("05-05", "5. Mai"),
        ("May 5", "5. Mai"),
    ]


def test_the_splits_have_the_sizes_asked_for(splits):
    assert len(splits["validation"]) == SMALL["validation"]
    assert len(splits["test"]) == SMALL["test"]
    assert 0.97 * SMALL["train"] <= len(splits["train"]) <= SMALL["train"] + 5


def test_the_shares_of_all_categories_sum_to_one():
    assert all(category.share > 0 for category in CATEGORIES)
    assert sum(category.share for category in CATEGORIES) == pytest.approx(1)


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_each_split_has_phrases_of_the_category(category, splits):
    count = round(category.share * sum(SMALL.values()))
    drawn = set(cldr.draw_pairs(category, "en", "de", count))
    for found in splits.values():
        assert not drawn.isdisjoint(found)


def test_a_process_with_another_hash_seed_draws_the_same_pairs(splits):
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    code = (
        "from data.corpora.translation import cldr\n"
        f"print(ascii(cldr.pairs('en', 'de', {SMALL})), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ascii(splits)


def test_every_space_is_a_plain_one_and_stands_alone(mixtures):
    for text in itertools.chain.from_iterable(itertools.chain(*mixtures.values())):
        assert re.sub(r"\s", " ", text) == text
        assert "  " not in text
        assert text == text.strip() != ""
        assert all(unicodedata.category(char) not in ("Cc", "Cf") for char in text)


def test_no_text_shows_a_code_of_cldr(mixtures):
    for text in itertools.chain.from_iterable(itertools.chain(*mixtures.values())):
        assert not any(unit in text for unit in UNITS), text
        assert not set("{}¤") & set(text), text


def test_most_phrases_are_short(mixtures):
    for languages in [("en", "de"), ("de", "en"), ("fr", "ru"), ("ru", "es")]:
        num_words = sorted(len(source.split()) for source, _ in mixtures[languages])
        assert num_words[int(0.95 * len(num_words))] < 12


@pytest.mark.parametrize(
    ("languages", "scripts"),
    [
        (("ja", "ru"), (("CJK", "HIRAGANA", "KATAKANA"), ("CYRILLIC",))),
        (("zh", "en"), (("CJK",), ("LATIN",))),
        (("ru", "zh"), (("CYRILLIC",), ("CJK",))),
    ],
)
def test_each_side_is_in_its_own_script(languages, scripts, mixtures):
    for texts, script in zip(
        zip(*mixtures[languages], strict=True), scripts, strict=True
    ):
        assert share_in_script(texts, script) > 0.8


@pytest.mark.parametrize(
    ("name", "codes"), [("territories", TERRITORIES), ("languages", LANGUAGES)]
)
def test_every_name_occurs_often_enough_to_be_learned(name, codes):
    count = round(BY_NAME[name].share * sum(cldr.SIZES.values()))
    drawn = cldr.draw_pairs(BY_NAME[name], "en", "de", count)
    lists = (re.split(r",? and |,? or |, ", source) for source, _ in drawn)
    uses = Counter(itertools.chain.from_iterable(lists))
    names = getattr(Locale("en"), name)
    assert set(uses) == {names[code] for code in codes}
    assert min(uses.values()) >= 30


def test_numbers_have_at_most_six_digits_and_no_trailing_zeros():
    random = Random(0)
    for name in ("quantities", "amounts"):
        for _ in range(2000):
            _, digits, exponent = BY_NAME[name].draw(random)[0].as_tuple()
            assert len(digits) <= 6
            assert exponent == 0 or digits[-1] != 0


def test_all_ordered_pairs_of_two_languages_are_configs():
    names = [config.name for config in cldr.Cldr.BUILDER_CONFIGS]
    assert sorted(names) == sorted(f"{a}-{b}" for a, b in LANGUAGE_PAIRS)
    assert len(names) == 42


def test_another_babel_gives_another_version():
    assert cldr.data_version("1.0.0", "2.18.0") == "1.218.0"
    assert cldr.data_version("1.0.0", "3.0.1.dev2") == "1.300.1"
    assert cldr.data_version("2.0.0", "2.18.0") == "2.218.0"


def test_the_prepared_corpus_reads_back_as_it_was_drawn(tmp_path, monkeypatch):
    for split, size in TINY.items():
        monkeypatch.setitem(cldr.SIZES, split, size)
    builder = tfds.builder("cldr/ja-ru", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    assert builder.info.supervised_keys == ("ja", "ru")
    for split, expected in cldr.pairs("ja", "ru").items():
        rows = builder.as_data_source(split=split)
        read = [(row["ja"].decode(), row["ru"].decode()) for row in rows]
        assert sorted(read) == sorted(expected)


def test_the_prepared_corpus_records_babels_version(tmp_path):
    builder = cldr.Cldr(config="en-de", data_dir=tmp_path)
    assert builder.data_path.name == cldr.data_version(cldr.RECIPE, babel.__version__)
    assert babel.__version__ in builder.info.config_description
