"""Words of texts in any language, for metrics that count overlapping words."""

import functools
import re
import sys
import unicodedata

from utils.languages import primary_language

# Scripts that have no spaces between words; each of their characters is a word.
UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)


def is_english(language: str) -> bool:
    """Returns whether a language is English, or unknown and read like it."""
    return primary_language(language) in ("en", None)


def split_words(text: str) -> list[str]:
    """Returns the words of a text in lower case, without punctuation.

    Letters and digits of any script are kept, in compatibility composition (NFKC).
    Each Chinese or Japanese character is a word, as are those of other scripts without
    spaces.
    """
    return word_pattern().findall(unicodedata.normalize("NFKC", text).lower())


@functools.cache
def word_pattern() -> re.Pattern:
    """Returns the pattern of a word, in which marks follow their letter.

    Marks are accents and the vowel signs of Indic and Semitic scripts, the categories
    Mn and Mc of Unicode, which are not in `\\w`.
    """
    characters = map(chr, range(sys.maxunicode + 1))
    marks = "".join(x for x in characters if unicodedata.category(x) in ("Mn", "Mc"))
    return re.compile(
        rf"[{UNSPACED}]|(?:(?![{UNSPACED}_])\w)(?:(?![{UNSPACED}_])[\w{marks}])*"
    )
