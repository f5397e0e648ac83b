"""Long texts in portions, so that no list is as long as a text."""

import re
from collections.abc import Iterator

PORTION = 2**18  # characters
WORD = re.compile(r"\S+")


def portions(text: str, at_spaces: bool, size: int = PORTION) -> Iterator[str]:
    """`text` cut after about `size` characters, again and again.

    Args:
      at_spaces: only between two words with one space between them, which is left out;
        else anywhere.
    """
    start = 0
    while len(text) - start > size:
        end = _single_space(text, start + size) if at_spaces else start + size
        if end < 0:
            break
        yield text[start:end]
        start = end + at_spaces
    yield text[start:]


def _single_space(text: str, start: int) -> int:
    """The first place from `start` on of a space with none beside; -1: none."""
    place = text.find(" ", start)
    while place > 0 and (
        text[place - 1].isspace() or text[place + 1 : place + 2].isspace()
    ):
        place = text.find(" ", place + 1)
    return place if place < len(text) - 1 else -1


def num_words(text: str) -> int:
    """What stands between white space, counted without a list of it."""
    if len(text) <= PORTION:
        return len(text.split())
    return sum(1 for _ in WORD.finditer(text))
