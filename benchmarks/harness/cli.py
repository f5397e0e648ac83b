"""Command-line options of the benchmarks, and the JSON lines that they print."""

import argparse
import sys
from collections.abc import Callable, Collection, Iterable

from utils import strict_json
from utils.errors import UserError

TINY = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}


def at_least(least: int) -> Callable[[str], int]:
    """Returns an option type: integers from `least`."""

    def integer(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        return int(text)

    return integer


def names_in(known: Collection[str]) -> Callable[[str], list[str]]:
    """Returns an option type: comma-separated names out of the known ones."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                choices = ", ".join(known)
                raise argparse.ArgumentTypeError(f"{name!r}: choose from {choices}")
        return text.split(",")

    return names


positive = at_least(1)


def positives(text: str) -> list[int]:
    """Parses comma-separated positive integers."""
    return [positive(number) for number in text.split(",")]


def make_parser(doc: str, **sizes: int) -> argparse.ArgumentParser:
    """Returns a parser with --tiny and an option for every size.

    Args:
      doc: docstring of the benchmark.
      sizes: default values of positive integers, by option.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny run, for tests")
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=positive, default=size)
    return parser


def parse_options(
    parser: argparse.ArgumentParser, arguments: list[str], **tiny
) -> argparse.Namespace:
    """Parses the options, which `tiny` replaces if --tiny is given."""
    options = parser.parse_args(arguments)
    if options.tiny:
        vars(options).update(tiny)
    return options


def print_lines(lines: Iterable[dict]) -> int:
    """Prints JSON lines; returns 2 after a UserError, such as impossible sizes."""
    try:
        for line in lines:
            print(strict_json.dumps(line), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
