"""Phrases of Unicode CLDR with the field of each word: weekday, year, unit, currency.

Babel renders a phrase; the fields of dates and times are marked while it does so, and
those of other phrases found in the rendered text.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

from babel import Locale
from babel.dates import DateTimeFormat
from babel.numbers import format_decimal

from data.corpora.translation.cldr_phrases import Category

# From the letters of CLDR's patterns to the fields of dates and times.
FIELDS = {
    **dict.fromkeys("yYu", "year"),
    **dict.fromkeys("Qq", "quarter"),
    **dict.fromkeys("ML", "month"),
    **dict.fromkeys("d", "day"),
    **dict.fromkeys("Eec", "weekday"),
    **dict.fromkeys("abB", "day_period"),
    **dict.fromkeys("hHkK", "hour"),
    **dict.fromkeys("m", "minute"),
    **dict.fromkeys("s", "second"),
    **dict.fromkeys("zZOvVxX", "zone"),
}
NAMES = {"territories": "territory", "languages": "language"}
KINDS = {
    "dates": "date",
    "moments": "date_time",
    "days": "date_interval",
    "hours": "time_interval",
    "distances": "relative_time",
    "quantities": "quantity",
    "amounts": "money",
    "territories": "territories",
    "languages": "languages",
}

# Marks around a field; neither occurs in CLDR's text.
BEGIN, END = "\ue000", "\ue001"
MARKED = re.compile(f"{BEGIN}(.)(.*?){END}")
# Chinese and Japanese write a unit after a number, which belongs to the field.
UNIT_AFTER = re.compile("[年月日時时分秒]")
NUMBER = re.compile(r"\d(?:.*\d)?")
# Of a distance in time, the words before and after the period, such as "3 days ago".
AFTER = re.compile(r"\s*(\S+?)\s*(前|后|後)?(?:\s+(.+))?")

HAN_OR_KANA = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# A number, a word without digits, or a single character: Han, Kana or punctuation.
WORD = re.compile(rf"\d+|(?:(?![{HAN_OR_KANA}])[^\W\d_])+|\S")


format_field = DateTimeFormat.__getitem__  # also while it is replaced


class Field(NamedTuple):
    """A part of a text, and what it says."""

    start: int
    end: int
    name: str


def render_fields(
    category: Category, value, style: str, locale: Locale
) -> tuple[str, list[Field]]:
    """Returns the text of a value as Babel renders it, and its fields in order."""
    if category.name in ("dates", "moments", "days", "hours"):
        with mock.patch.object(DateTimeFormat, "__getitem__", mark_field):
            return split_marks(category.render(value, style, locale))
    text = category.render(value, style, locale)
    if category.name in NAMES:
        names = [getattr(locale, category.name)[code] for code in value]
        return text, list(find_names(text, names, NAMES[category.name]))
    if category.name == "quantities":
        shown = format_decimal(value[0], locale=locale)
        return text, around(text, text.find(shown), len(shown), "unit")
    number = NUMBER.search(text)
    if category.name == "amounts":
        return text, around(text, number.start(), len(number[0]), "currency")
    return text, distance_fields(text, number)


def mark_field(self: DateTimeFormat, name: str) -> str:
    """Formats a field of a date or time as Babel does, between marks."""
    return f"{BEGIN}{name[0]}{format_field(self, name)}{END}"


def split_marks(marked: str) -> tuple[str, list[Field]]:
    """Returns a text without marks, and the fields that they enclosed."""
    text, fields, position = "", [], 0
    for found in MARKED.finditer(marked):
        text += marked[position : found.start()]
        start = len(text)
        text += found[2]
        position = found.end()
        if unit := UNIT_AFTER.match(marked, position):
            text += unit[0]
            position = unit.end()
        fields.append(Field(start, len(text), FIELDS[found[1]]))
    return text + marked[position:], fields


def find_names(text: str, names: list[str], field: str) -> Iterator[Field]:
    """Yields the names of a list, which its text has in this order."""
    end = 0
    for name in names:
        start = text.index(name, end)
        end = start + len(name)
        yield Field(start, end, field)


def around(text: str, start: int, length: int, name: str) -> list[Field]:
    """Returns a number as a field, and the text before and after it as another."""
    end = start + length
    fields = [Field(start, end, "number")]
    if text[:start].strip():
        fields.insert(0, Field(0, start, name))
    if text[end:].strip():
        fields.append(Field(end, len(text), name))
    return fields


def distance_fields(text: str, number: re.Match) -> list[Field]:
    """Returns the number, period and direction of a distance in time."""
    after = AFTER.fullmatch(text, number.end())
    fields = [Field(*number.span(), "number"), Field(*after.span(1), "period")]
    if text[: number.start()].strip():
        fields.insert(0, Field(0, number.start(), "direction"))
    return fields + [
        Field(*after.span(group), "direction") for group in (2, 3) if after[group]
    ]


def tag_words(text: str, fields: list[Field]) -> tuple[list[str], list[str]]:
    """Splits a text into words, and returns them with the tag of each in IOB2."""
    tokens, tags = [], []
    begun = None
    for word in WORD.finditer(text):
        start, end = word.span()
        field = next((f for f in fields if f.start < end and start < f.end), None)
        if field and not field.start <= start < end <= field.end:
            raise ValueError(f"{word[0]!r} is only partly in {field} of {text!r}")
        tokens.append(word[0])
        tags.append(f"{'I' if field is begun else 'B'}-{field.name}" if field else "O")
        begun = field
    return tokens, tags


def kind_of(category: Category, style: str) -> str:
    """Returns the kind of phrase of a category in a style."""
    return "time" if style.endswith("-time") else KINDS[category.name]
