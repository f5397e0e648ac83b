"""Language codes of any standard: ISO 639-1, -2 and -3, BCP 47 and POSIX locales."""

import functools

from babel import Locale
from babel.core import get_global, parse_locale

CHINESE = frozenset(("zh", "yue", "wuu", "hak", "nan", "gan", "hsn", "lzh"))
# All languages without spaces between words.
UNSPACED = CHINESE | {"ja", "th", "lo", "km", "my", "bo", "dz"}


@functools.cache
def primary_language(code: str) -> str | None:
    """Returns the language of a code, "zh" for zh_TW, zh-Hans, cmn, zho and chi.

    Returns None for a code that Unicode CLDR does not know.
    """
    try:
        language, *_ = parse_locale(code.replace("-", "_"))
    except ValueError:
        return None
    language = get_global("language_aliases").get(language, language)
    language = language.partition("_")[0]  # of "sr_Latn", for example
    return language if language in Locale("en").languages else None


def is_spaced(code: str) -> bool:
    """Returns whether a language, or an unknown one, has spaces between words."""
    return primary_language(code) not in UNSPACED


def sacrebleu_tokenizer(language: str) -> str:
    """Returns the name of sacrebleu's tokenizer for texts of a language."""
    if is_spaced(language):
        return "13a"
    return "zh" if primary_language(language) in CHINESE else "char"
