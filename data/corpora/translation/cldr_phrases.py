"""Phrases that Unicode CLDR, through Babel, can write in every language.

Each category samples a value that belongs to no language (a date, an amount, two
countries) and renders it in any locale, so that two renderings of one value are
translations of each other.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

from babel import Locale, dates
from babel.lists import format_list
from babel.numbers import format_currency, get_currency_precision
from babel.units import format_unit

# ruff: noqa: SIM905 (as lists the codes below would take a line each)

# A hundred years, so that two digits still say which year is meant.
FIRST_DAY = datetime(1950, 1, 1, tzinfo=UTC)
NUM_DAYS = 36_524

LENGTHS = ("full", "long", "medium", "short")
DATE_SKELETONS = ("yMMMEd", "yMMMd", "yMEd", "yMMMM", "yQQQQ", "MMMEd", "MMMMd")
INTERVAL_SKELETONS = ("yMMMd", "yMMMEd", "yMd", "yMEd", "yMMMM", "MMMEd", "MMMd")

# CLDR's codes, few enough that each occurs often.
UNITS = """
    area-acre area-hectare area-square-centimeter area-square-foot
    area-square-kilometer area-square-meter area-square-mile
    consumption-liter-per-100-kilometer digital-byte digital-gigabyte
    digital-kilobyte digital-megabyte digital-terabyte electric-ampere electric-ohm
    electric-volt energy-calorie energy-joule energy-kilocalorie
    energy-kilowatt-hour frequency-gigahertz frequency-hertz frequency-kilohertz
    frequency-megahertz graphics-megapixel graphics-pixel length-centimeter
    length-foot length-inch length-kilometer length-light-year length-meter
    length-mile length-millimeter length-nautical-mile length-yard mass-gram
    mass-kilogram mass-milligram mass-ounce mass-pound mass-tonne power-horsepower
    power-kilowatt power-megawatt power-watt pressure-hectopascal
    speed-kilometer-per-hour speed-knot speed-meter-per-second speed-mile-per-hour
    temperature-celsius temperature-fahrenheit volume-barrel
    volume-cubic-centimeter volume-cubic-kilometer volume-cubic-meter
    volume-deciliter volume-gallon volume-hectoliter volume-liter
    volume-milliliter volume-pint
""".split()

CURRENCIES = """
    AUD BRL CAD CHF CNY CZK DKK EGP EUR GBP HKD HUF ILS INR JPY KRW MXN NOK NZD PLN
    RUB SEK SGD THB TRY UAH USD ZAR
""".split()

TERRITORIES = """
    AE AF AL AM AO AR AT AU AZ BA BD BE BG BO BR BW BY CA CH CL CM CN CO CR CU CY CZ
    DE DK DO DZ EC EE EG ES ET FI FJ FR GA GB GE GH GL GR GT HN HR HT HU ID IE IL IN
    IQ IR IS IT JM JO JP KE KH KR KW KZ LA LB LT LU LV LY MA MC MD ME MG MK MN MT MX
    MY MZ NA NG NI NL NO NP NZ OM PA PE PH PK PL PT PY QA RO RS RU RW SA SD SE SG SI
    SK SN SO SY TH TN TR TZ UA UG US UY UZ VE VN YE ZA ZM ZW
""".split()

LANGUAGES = """
    af ar az be bg bn ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu
    hy id is it ja ka kk ko ku la lt lv mk mn mr ms ne nl pl pt ro ru sk sl so sq sr
    sv sw ta th tr uk ur uz vi yi zh zu
""".split()

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
    """One category of phrases.

    Attributes:
      name: kind of its values.
      share: fraction of the corpus that it provides, about.
      styles: ways to render a value. If two of them give the same source text, it
        means the earlier one.
      draw: samples a value.
      render: renders a value in a style and a locale.
    """

    name: str
    share: float
    styles: tuple[str, ...]
    draw: Callable[[Random], Any]
    render: Callable[[Any, str, Locale], str]


def draw_moment(random: Random) -> datetime:
    """Samples a second of the hundred years."""
    day = FIRST_DAY + timedelta(days=random.randrange(NUM_DAYS))
    return day + timedelta(seconds=random.randrange(86_400))


def draw_days(random: Random) -> tuple[datetime, datetime]:
    """Samples two days, up to a week, two months or three years apart."""
    start = draw_moment(random)
    longest = random.choice((6, 60, 1000))
    return start, start + timedelta(days=random.randint(1, longest))


def draw_hours(random: Random) -> tuple[datetime, datetime]:
    """Samples two minutes of one day."""
    start, end = sorted(random.sample(range(24 * 60), 2))
    return tuple(FIRST_DAY + timedelta(minutes=minute) for minute in (start, end))


def draw_distance(random: Random) -> tuple[int, str]:
    """Samples a number of periods from now, negative in the past."""
    return random.choice((-1, 1)) * random.randint(1, 400), random.choice([*PERIODS])


def draw_number(random: Random, decimals: int) -> Decimal:
    """Samples one to six significant digits, most often two to four.

    There are no zeros at the end of decimals: Babel chooses the plural by the digits
    it is given, not by those it shows.
    """
    num_digits = random.choice((1, 2, 2, 3, 3, 4, 4, 5, 6))
    digits = random.randrange(10 ** (num_digits - 1), 10**num_digits)
    return Decimal(digits) / 10**decimals


def draw_quantity(random: Random) -> tuple[Decimal, str]:
    """Samples a number with up to two decimals, and a unit."""
    return draw_number(random, random.choice((0, 0, 1, 2))), random.choice(UNITS)


def draw_amount(random: Random) -> tuple[Decimal, str]:
    """Samples a number of a currency's smallest coins, and the currency."""
    currency = random.choice(CURRENCIES)
    return draw_number(random, get_currency_precision(currency)), currency


def draw_names(codes: list[str]) -> Callable[[Random], list[str]]:
    """Returns a sampler of one to four different codes in any order."""
    return lambda random: random.sample(codes, random.choice((1, 2, 2, 3, 3, 4)))


def render_date(moment: datetime, style: str, locale: Locale) -> str:
    """Renders a day; `style` is a length or a skeleton."""
    if style in LENGTHS:
        return dates.format_date(moment, style, locale)
    return dates.format_skeleton(style, moment, locale=locale)


def render_moment(moment: datetime, style: str, locale: Locale) -> str:
    """Renders day and time, or in the style "short-time" or "medium-time" the time."""
    if style.endswith("-time"):
        return dates.format_time(moment, style.removesuffix("-time"), locale=locale)
    return dates.format_datetime(moment, style, locale=locale)


def render_interval(
    interval: tuple[datetime, datetime], skeleton: str, locale: Locale
) -> str:
    """Renders an interval of two moments."""
    return dates.format_interval(*interval, skeleton, locale=locale)


def render_distance(distance: tuple[int, str], length: str, locale: Locale) -> str:
    """Renders a time difference in its own unit, even if a larger one fits.

    Only "long" is safe: Babel raises KeyError for a short form that a locale lacks.
    """
    count, period = distance
    return dates.format_timedelta(
        timedelta(seconds=count * PERIODS[period]),
        granularity=period,
        threshold=float("inf"),
        add_direction=True,
        format=length,
        locale=locale,
    )


def render_quantity(quantity: tuple[Decimal, str], length: str, locale: Locale) -> str:
    """Renders a quantity of a unit.

    CLDR uses the short form of a unit without a long one; Babel would show the unit's
    code instead ("5 length-meter").
    """
    number, unit = quantity
    text = format_unit(number, unit, length, locale=locale)
    return (
        text if unit not in text else format_unit(number, unit, "short", locale=locale)
    )


def render_amount(amount: tuple[Decimal, str], style: str, locale: Locale) -> str:
    """Renders money with the currency's symbol ("standard") or its name ("name")."""
    return format_currency(*amount, locale=locale, format_type=style)


def render_names(kind: str) -> Callable[[list[str], str, Locale], str]:
    """Returns a renderer of all ("standard") or any ("or") of a locale's names."""
    return lambda codes, style, locale: format_list(
        [getattr(locale, kind)[code] for code in codes], style, locale
    )


MOMENT_STYLES = ("long", "medium", "short", "medium-time", "short-time")
NAME_STYLES = ("standard", "or")
CATEGORIES = tuple(
    Category(*values)
    for values in (
        ("dates", 0.20, LENGTHS + DATE_SKELETONS, draw_moment, render_date),
        ("moments", 0.14, MOMENT_STYLES, draw_moment, render_moment),
        ("days", 0.16, INTERVAL_SKELETONS, draw_days, render_interval),
        ("hours", 0.05, ("hm", "Hm"), draw_hours, render_interval),
        ("distances", 0.07, ("long",), draw_distance, render_distance),
        ("quantities", 0.12, ("long", "short"), draw_quantity, render_quantity),
        ("amounts", 0.12, ("name", "standard"), draw_amount, render_amount),
        *(
            (kind, share, NAME_STYLES, draw_names(codes), render_names(kind))
            for kind, share, codes in (
                ("territories", 0.09, TERRITORIES),
                ("languages", 0.05, LANGUAGES),
            )
        ),
    )
)
