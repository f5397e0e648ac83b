"""The kinds of phrases Unicode CLDR can write in every language, through Babel.

Each kind draws a value that knows no language (a date, an amount, two countries)
and writes it in any locale, so that two renderings of one value are translations
of each other.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

from babel import Locale
from babel.dates import (
    format_date,
    format_datetime,
    format_interval,
    format_skeleton,
    format_time,
    format_timedelta,
)
from babel.lists import format_list
from babel.numbers import format_currency, get_currency_precision
from babel.units import format_unit

from data.corpora.translation.cldr_vocabulary import (
    CURRENCIES,
    LANGUAGES,
    TERRITORIES,
    UNITS,
)

# A hundred years, so that two digits still say which year is meant.
FIRST_DAY = datetime(1950, 1, 1, tzinfo=UTC)
NUM_DAYS = 36_524

LENGTHS = ("full", "long", "medium", "short")
DATE_SKELETONS = ("yMMMEd", "yMMMd", "yMEd", "yMMMM", "yQQQQ", "MMMEd", "MMMMd")
INTERVAL_SKELETONS = ("yMMMd", "yMMMEd", "yMd", "yMEd", "yMMMM", "MMMEd", "MMMd")

# Seconds in each unit as Babel counts them: a month has 30 days.
PERIODS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_536_000,
}


class Category(NamedTuple):
    """One kind of phrase.

    Attributes:
      name: what the values are.
      styles: ways to write a value. Where two of them write it alike in the source
        language, the text means the earlier one.
      draw: a random value.
      render: the value in a style and a locale.
    """

    name: str
    styles: tuple[str, ...]
    draw: Callable[[Random], Any]
    render: Callable[[Any, str, Locale], str]


def draw_moment(random: Random) -> datetime:
    """A second of the hundred years."""
    day = FIRST_DAY + timedelta(days=random.randrange(NUM_DAYS))
    return day + timedelta(seconds=random.randrange(86_400))


def draw_days(random: Random) -> tuple[datetime, datetime]:
    """Two days: as likely within a week as within two months or three years."""
    start = draw_moment(random)
    longest = random.choice((6, 60, 1000))
    return start, start + timedelta(days=random.randint(1, longest))


def draw_hours(random: Random) -> tuple[datetime, datetime]:
    """Two minutes of one day."""
    start, end = sorted(random.sample(range(24 * 60), 2))
    return tuple(FIRST_DAY + timedelta(minutes=minute) for minute in (start, end))


def draw_distance(random: Random) -> tuple[int, str]:
    """A number of periods from now, negative in the past."""
    return random.choice((-1, 1)) * random.randint(1, 400), random.choice([*PERIODS])


def draw_number(random: Random, decimals: int) -> Decimal:
    """One to six significant digits, most often two to four.

    Never with zeros behind the point: Babel takes the plural of the digits it is
    given, not of those it shows.
    """
    num_digits = random.choice((1, 2, 2, 3, 3, 4, 4, 5, 6))
    digits = random.randrange(10 ** (num_digits - 1), 10**num_digits)
    return Decimal(digits) / 10**decimals


def draw_quantity(random: Random) -> tuple[Decimal, str]:
    """A number with up to two decimals, and a unit."""
    return draw_number(random, random.choice((0, 0, 1, 2))), random.choice(UNITS)


def draw_amount(random: Random) -> tuple[Decimal, str]:
    """A number of the currency's smallest coins, and the currency."""
    currency = random.choice(CURRENCIES)
    return draw_number(random, get_currency_precision(currency)), currency


def draw_names(random: Random, codes: list[str]) -> list[str]:
    """One to four different codes in any order."""
    return random.sample(codes, random.choice((1, 2, 2, 3, 3, 4)))


def render_date(moment: datetime, style: str, locale: Locale) -> str:
    """The day alone; `style` is a length or a skeleton."""
    if style in LENGTHS:
        return format_date(moment, style, locale)
    return format_skeleton(style, moment, locale=locale)


def render_moment(moment: datetime, style: str, locale: Locale) -> str:
    """Day and time, or for the style "short-time" or "medium-time" the time alone."""
    if style.endswith("-time"):
        return format_time(moment, style.removesuffix("-time"), locale=locale)
    return format_datetime(moment, style, locale=locale)


def render_interval(
    interval: tuple[datetime, datetime], skeleton: str, locale: Locale
) -> str:
    """From a moment to another."""
    return format_interval(*interval, skeleton, locale=locale)


def render_distance(distance: tuple[int, str], length: str, locale: Locale) -> str:
    """How long ago or ahead, in the distance's own unit even where a larger fits.

    Only "long" is safe: Babel raises KeyError for a short form a locale lacks.
    """
    count, period = distance
    return format_timedelta(
        timedelta(seconds=count * PERIODS[period]),
        granularity=period,
        threshold=float("inf"),
        add_direction=True,
        format=length,
        locale=locale,
    )


def render_quantity(quantity: tuple[Decimal, str], length: str, locale: Locale) -> str:
    """A quantity of a unit.

    What has no long form is written short, CLDR's own rule; Babel shows the unit's
    code instead ("5 length-meter").
    """
    number, unit = quantity
    text = format_unit(number, unit, length, locale=locale)
    return (
        text if unit not in text else format_unit(number, unit, "short", locale=locale)
    )


def render_amount(amount: tuple[Decimal, str], style: str, locale: Locale) -> str:
    """An amount of money with the currency's symbol ("standard") or "name"."""
    return format_currency(*amount, locale=locale, format_type=style)


def render_territories(codes: list[str], style: str, locale: Locale) -> str:
    """All ("standard") or any ("or") of some countries."""
    return format_list([locale.territories[code] for code in codes], style, locale)


def render_languages(codes: list[str], style: str, locale: Locale) -> str:
    """All ("standard") or any ("or") of some languages."""
    return format_list([locale.languages[code] for code in codes], style, locale)


CATEGORIES = (
    Category("dates", LENGTHS + DATE_SKELETONS, draw_moment, render_date),
    Category(
        "moments",
        ("long", "medium", "short", "medium-time", "short-time"),
        draw_moment,
        render_moment,
    ),
    Category("days", INTERVAL_SKELETONS, draw_days, render_interval),
    Category("hours", ("hm", "Hm"), draw_hours, render_interval),
    Category("distances", ("long",), draw_distance, render_distance),
    Category("quantities", ("long", "short"), draw_quantity, render_quantity),
    Category("amounts", ("name", "standard"), draw_amount, render_amount),
    Category(
        "territories",
        ("standard", "or"),
        lambda random: draw_names(random, TERRITORIES),
        render_territories,
    ),
    Category(
        "languages",
        ("standard", "or"),
        lambda random: draw_names(random, LANGUAGES),
        render_languages,
    ),
)
