"""Unicode CLDR as a small tagged corpus in seven languages: no download."""

import inspect
from collections.abc import Mapping
from random import Random

import babel
import tensorflow_datasets as tfds
from babel import Locale

from data.corpora.builders import PublicCorpus
from data.corpora.translation.cldr import LOCALES, data_version, plain
from data.corpora.translation.cldr_phrases import CATEGORIES, Category
from data.corpora.understanding.cldr_labels import kind_of, render_fields, tag_words

Row = dict[str, str | list[str]]

# Raise the first number when the same Babel gives other examples than before.
RECIPE = "1.0.0"
SIZES = {"train": 6000, "validation": 500, "test": 500}
COLUMNS = ("tokens", "tags", "kind", "language", "text")
SEQUENCES = ("tokens", "tags")


def draw_row(category: Category, code: str, random: Random) -> Row:
    """Renders a random value of a category in a language, with its fields."""
    style = random.choice(category.styles)
    locale = Locale(code)
    text, fields = render_fields(category, category.draw(random), style, locale)
    tokens, tags = tag_words(text, fields)
    values = (tokens, tags, kind_of(category, style), code, plain(text))
    return dict(zip(COLUMNS, values, strict=True))


def rows(sizes: Mapping[str, int] = SIZES) -> dict[str, list[Row]]:
    """Returns the corpus by split, a function of Babel's version alone.

    No text occurs twice. One that has been drawn with different labels, such as a time
    that two languages write alike, is left out, so that training data are slightly
    fewer than their size.
    """
    found: dict[str, list[Row]] = {}
    count = sum(sizes.values()) / len(LOCALES)
    for code in LOCALES:
        for category in CATEGORIES:
            random = Random(f"fields {category.name} {code}")
            for _ in range(round(category.share * count)):
                row = draw_row(category, code, random)
                known = found.setdefault(row["text"], [])
                if row not in known:
                    known.append(row)
    mixed = [row for known in found.values() if len(known) == 1 for row in known]
    Random("fields").shuffle(mixed)
    test = sizes["test"]
    train = test + sizes["validation"]
    return {
        "train": mixed[train:],
        "validation": mixed[test:train],
        "test": mixed[:test],
    }


class CldrFields(PublicCorpus):
    """Dates, times, quantities, money and lists as Unicode CLDR writes them.

    The words of a phrase (`tokens`) have the tag of their field in IOB2 (`tags`), such
    as B-weekday, and a phrase has a `kind`, a `language` (en de fr es zh ja ru) and its
    `text`. It needs no network.
    """

    kind = "table"
    VERSION = tfds.core.Version(data_version(RECIPE, babel.__version__))

    def _info(self):
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getdoc(self),
            features=tfds.features.FeaturesDict(
                {
                    name: tfds.features.Sequence(text) if name in SEQUENCES else text
                    for name in COLUMNS
                }
            ),
            homepage="https://cldr.unicode.org",
            license="Unicode License v3",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        splits = rows()
        return {split: self._generate_examples(splits[split]) for split in splits}

    def _generate_examples(self, examples):
        yield from enumerate(examples)
