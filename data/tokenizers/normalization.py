"""What is done to a text before it becomes numbers, and undone afterwards."""

import dataclasses
import functools
import re

TAG = re.compile(r"(<2\w+>) ?")  # at the beginning of a text


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Moses' normalisation and tokenisation (Koehn et al. 2007), lower case, a tag.

    Attributes:
      language: whose rules Moses applies, "de".
      moses: punctuation is normalised and set apart; undone when text comes back.
      lowercase: cannot be undone.
      tag: a word before a text that has none: the language it is to become.
    """

    language: str = ""
    moses: bool = False
    lowercase: bool = False
    tag: str = ""

    def apply(self, text: str) -> str:
        """What the tokenizer sees."""
        tag = self.tag
        if tag and (own := TAG.match(text)):
            tag, text = own[1], text[own.end() :]
        if self.moses:
            normalize, tokenize, _ = moses(self.language)
            text = tokenize(normalize(text), return_str=True, escape=False)
        if self.lowercase:
            text = text.lower()
        return f"{tag} {text}" if tag else text

    def undo(self, text: str) -> str:
        """Text as it is written, from what the tokenizer gives."""
        if self.tag:
            text = TAG.sub("", text, count=1)
        if self.moses:
            text = moses(self.language)[2](text.split(), unescape=False)
        return text

    def comparable(self, text: str) -> str:
        """A reference as a perfect model would write it."""
        return text if self == AS_IS else self.undo(self.apply(text))


AS_IS = Normalizer()


def language_tag(language: str) -> str:
    """The word that asks for a language, as in Johnson et al. (2017)."""
    return f"<2{language}>"


@functools.cache
def moses(language: str) -> tuple:
    """Moses' normaliser, tokenizer and detokenizer of a language, by sacremoses."""
    import sacremoses

    return (
        sacremoses.MosesPunctNormalizer(language).normalize,
        sacremoses.MosesTokenizer(language).tokenize,
        sacremoses.MosesDetokenizer(language).detokenize,
    )
