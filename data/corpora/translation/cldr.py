"""Unicode CLDR as a small translation corpus: no download, 42 language pairs."""

import inspect
import itertools
import re
from collections.abc import Iterable, Mapping
from random import Random
from typing import ClassVar

import babel
import tensorflow_datasets as tfds
from babel import Locale

from data.corpora.builders import PublicPairs
from data.corpora.translation.cldr_phrases import CATEGORIES, Category

Pair = tuple[str, str]

LOCALES = ("en", "de", "fr", "es", "zh", "ja", "ru")
# Raise the first number when the same Babel gives other pairs than before.
RECIPE = "1.0.0"
SIZES = {"train": 40_000, "validation": 1_000, "test": 1_000}


def plain(text: str) -> str:
    """Replaces CLDR's many spaces (no-break, thin, ideographic) by " "."""
    return " ".join(text.split())


def draw_pair(
    category: Category, source: Locale, target: Locale, random: Random
) -> Pair:
    """Renders a random value in both languages.

    Styles may collide: German writes "5. März 2024" for both "March 5, 2024" and
    "Mar 5, 2024". The source then means the first style of the category that gives it,
    so that a source has one target.
    """
    value = category.draw(random)
    text = plain(category.render(value, random.choice(category.styles), source))
    for style in category.styles:
        if plain(category.render(value, style, source)) == text:
            return text, plain(category.render(value, style, target))
    raise AssertionError(f"{text!r} is in none of {category.styles}")


def draw_pairs(category: Category, source: str, target: str, count: int) -> list[Pair]:
    """Returns `count` different pairs, or fewer if the category has no more."""
    random = Random(f"{category.name} {source} {target}")
    locales = Locale(source), Locale(target)
    pairs: dict[Pair, None] = {}
    for _ in range(4 * count):
        if len(pairs) == count:
            break
        pairs[draw_pair(category, *locales, random)] = None
    return [*pairs]


def unambiguous(pairs: Iterable[Pair]) -> list[Pair]:
    """Returns the distinct pairs whose source has no other target."""
    targets: dict[str, set[str]] = {}
    for source, target in pairs:
        targets.setdefault(source, set()).add(target)
    return [(text, *own) for text, own in targets.items() if len(own) == 1]


def mix(source: str, target: str, count: int) -> list[Pair]:
    """Returns about `count` pairs of all categories in random order."""
    mixed = unambiguous(
        pair
        for category in CATEGORIES
        for pair in draw_pairs(category, source, target, round(category.share * count))
    )
    Random(f"{source} {target}").shuffle(mixed)
    return mixed


def pairs(
    source: str, target: str, sizes: Mapping[str, int] = SIZES
) -> dict[str, list[Pair]]:
    """Returns the corpus by split, a function of the languages and Babel's version.

    No source has two targets or occurs in two splits. Training data are slightly fewer
    than their size, since duplicate and ambiguous pairs are not replaced.
    """
    mixed = mix(source, target, sum(sizes.values()))
    test = sizes["test"]
    train = test + sizes["validation"]
    return {
        "train": mixed[train:],
        "validation": mixed[test:train],
        "test": mixed[:test],
    }


def data_version(recipe: str, babel_version: str) -> str:
    """Returns the recipe's major number, then Babel's three: "1.218.0" of "2.18.0".

    Another Babel has other CLDR data, so its corpus is prepared in another folder.
    """
    major, minor, patch = map(int, re.findall(r"\d+", babel_version)[:3])
    return f"{tfds.core.Version(recipe).major}.{100 * major + minor}.{patch}"


class Cldr(PublicPairs):
    """Dates, quantities, money and names as Unicode CLDR writes them in two languages.

    It needs no network and, prepared with `file_format="array_record"`, no TensorFlow.
    """

    VERSION = tfds.core.Version(RECIPE)
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(
            name=f"{source}-{target}",
            version=data_version(RECIPE, babel.__version__),
            description=f"From {source} to {target}, by Babel {babel.__version__}.",
        )
        for source, target in itertools.permutations(LOCALES, 2)
    ]

    def _info(self):
        return self.dataset_info_from_configs(
            description=inspect.getdoc(self),
            features=self.features(),
            supervised_keys=tuple(self.languages),
            homepage="https://cldr.unicode.org",
        )

    def _split_generators(self, dl_manager):
        splits = pairs(*self.languages)
        return {split: self._generate_examples(splits[split]) for split in splits}
