"""Text normalization before tokenization, and its inverse after decoding."""

import dataclasses
import functools
import re
import unicodedata

from utils.languages import primary_language

TAG = re.compile(r"(<2[\w-]+>) ?")  # at the beginning of a text


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Moses tokenization (Koehn et al. 2007), lowercasing and a target language tag.

    Attributes:
      language: code of the language of Moses' rules, such as "de" or "pt_BR"; rules of
        English are used for those that Moses does not have.
      moses: normalize punctuation and separate it from words; `undo` reverts it.
      lowercase: convert to lower case, which `undo` cannot revert.
      tag: the tag put before texts that have none.
      strip_accents: remove combining marks, which `undo` cannot revert.
    """

    language: str = ""
    moses: bool = False
    lowercase: bool = False
    tag: str = ""
    # Not in the keys of stored vocabularies: the tokenizer's kind implies it.
    strip_accents: bool = dataclasses.field(default=False, repr=False)

    def apply(self, text: str) -> str:
        """Returns the normalized text, which the tokenizer encodes."""
        tag = self.tag
        if tag and (match := TAG.match(text)):
            tag, text = match[1], text[match.end() :]
        if self.moses:
            normalize, tokenize, _ = load_moses(self.language)
            text = tokenize(normalize(text), return_str=True, escape=False)
        if self.lowercase:
            text = text.lower()
        if self.strip_accents and not text.isascii():
            text = strip_accents(text)
        return f"{tag} {text}" if tag else text

    def undo(self, text: str) -> str:
        """Removes the tag and reverts Moses tokenization."""
        if self.tag:
            text = TAG.sub("", text, count=1)
        if self.moses:
            text = load_moses(self.language)[2](text.split(), unescape=False)
        return text

    def normalize_reference(self, text: str) -> str:
        """Returns a reference text as a perfect model would generate it."""
        return text if self == IDENTITY else self.undo(self.apply(text))


IDENTITY = Normalizer()


def strip_accents(text: str) -> str:
    """Decomposes characters (NFD) and removes combining marks, as BERT does."""
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(c for c in decomposed if unicodedata.category(c) != "Mn")


def language_tag(language: str) -> str:
    """Returns the tag of a target language, "<2de>" (Johnson et al. 2017)."""
    return f"<2{language}>"


@functools.cache
def load_moses(language: str) -> tuple:
    """Returns sacremoses' punctuation normalizer, tokenizer and detokenizer."""
    import sacremoses

    language = primary_language(language) or "en"
    return (
        sacremoses.MosesPunctNormalizer(language).normalize,
        sacremoses.MosesTokenizer(language).tokenize,
        sacremoses.MosesDetokenizer(language).detokenize,
    )
