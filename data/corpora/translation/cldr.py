"""Unicode CLDR as a small translation corpus: no download, 42 language pairs."""

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import ClassVar

import babel
import tensorflow_datasets as tfds
from babel import Locale

from data.corpora.translation.cldr_phrases import CATEGORIES, Category

Pair = tuple[str, str]

LOCALES = ("en", "de", "fr", "es", "zh", "ja", "ru")
# Raise the first number when the same Babel gives other pairs than before.
RECIPE = "1.0.0"
SIZES = {"train": 40_000, "validation": 1_000, "test": 1_000}

# Fraction of the corpus that each category provides, about.
SHARES = {
    "dates": 0.20,
    "moments": 0.14,
    "days": 0.16,
    "hours": 0.05,
    "distances": 0.07,
    "quantities": 0.12,
    "amounts": 0.12,
    "territories": 0.09,
    "languages": 0.05,
}


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
    drawn = (
        draw_pairs(category, source, target, round(SHARES[category.name] * count))
        for category in CATEGORIES
    )
    mixed = unambiguous(itertools.chain.from_iterable(drawn))
    Random(f"{source} {target}").shuffle(mixed)
    return mixed


def cut(pairs: list[Pair], sizes: Mapping[str, int]) -> dict[str, list[Pair]]:
    """Splits pairs into test and validation data of given sizes, and training data."""
    test = sizes["test"]
    train = test + sizes["validation"]
    return {
        "train": pairs[train:],
        "validation": pairs[test:train],
        "test": pairs[:test],
    }


def pairs(
    source: str, target: str, sizes: Mapping[str, int] = SIZES
) -> dict[str, list[Pair]]:
    """Returns the corpus by split, a function of the languages and Babel's version.

    No source has two targets or occurs in two splits. Training data are slightly fewer
    than their size, since duplicate and ambiguous pairs are not replaced.
    """
    return cut(mix(source, target, sum(sizes.values())), sizes)


def data_version(recipe: str, babel_version: str) -> str:
    """Returns the recipe's major number, then Babel's three.

    "1.0.0" and "2.18.0" give "1.218.0". Another Babel has other CLDR data, so its
    corpus has another version, which TFDS prepares in another folder.
    """
    major, minor, patch = map(int, re.findall(r"\d+", babel_version)[:3])
    return f"{tfds.core.Version(recipe).major}.{100 * major + minor}.{patch}"


class Config(tfds.core.BuilderConfig):
    """A source and a target language, named "source-target"."""

    def __init__(self, source: str, target: str, version: str):
        super().__init__(
            name=f"{source}-{target}",
            version=version,
            description=f"From {source} to {target}, by Babel {babel.__version__}.",
        )
        self.languages = (source, target)


class Cldr(tfds.core.GeneratorBasedBuilder):
    """Dates, quantities, money and names as Unicode CLDR writes them in two languages.

    It needs no network and, prepared with `file_format="array_record"`, no TensorFlow.
    """

    VERSION = tfds.core.Version(RECIPE)
    BUILDER_CONFIGS: ClassVar = [
        Config(source, target, data_version(RECIPE, babel.__version__))
        for source, target in itertools.permutations(LOCALES, 2)
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        languages = self.builder_config.languages
        return self.dataset_info_from_configs(
            description=inspect.getdoc(self),
            features=tfds.features.Translation(languages=languages),
            supervised_keys=languages,
            homepage="https://cldr.unicode.org",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, str]]]]:
        splits = pairs(*self.builder_config.languages)
        return {
            split: self._generate_examples(found) for split, found in splits.items()
        }

    def _generate_examples(
        self, pairs: list[Pair]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        languages = self.builder_config.languages
        for key, pair in enumerate(pairs):
            yield key, dict(zip(languages, pair, strict=True))
