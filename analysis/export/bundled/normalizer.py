"""Normalisation of texts: the rules of Moses, case, accents and language tags."""

import re
import unicodedata

TAG = re.compile(r"(<2[\w-]+>) ?")  # of a target language, at the beginning of a text


class Normalizer:
    """Normalisation before tokenization, and its inverse."""

    def __init__(self, options: dict, tags: dict[str, int]):
        self.options, self.tags = options, tags
        if options["moses"]:
            import sacremoses

            language = options["moses_language"]
            self.punctuation = sacremoses.MosesPunctNormalizer(language)
            self.moses = sacremoses.MosesTokenizer(language)
            self.inverse = sacremoses.MosesDetokenizer(language)

    def apply(self, text: str) -> tuple[list[int], str]:
        """Returns the id of a text's tag, if there is one, and the normalised rest."""
        tag = self.options["tag"]
        if tag and (match := TAG.match(text)):
            tag, text = match[1], text[match.end() :]
        if self.options["moses"]:
            text = self.punctuation.normalize(text)
            text = self.moses.tokenize(text, return_str=True, escape=False)
        text = text.lower() if self.options["lowercase"] else text
        if self.options["strip_accents"] and not text.isascii():
            parts = unicodedata.normalize("NFD", text)
            text = "".join(c for c in parts if unicodedata.category(c) != "Mn")
        if tag and tag not in self.tags:
            raise ValueError(f"unknown tag {tag}; choose one of {', '.join(self.tags)}")
        return [self.tags[tag]] if tag else [], text

    def undo(self, text: str) -> str:
        """Removes the tag, and the spaces of Moses."""
        text = TAG.sub("", text, count=1) if self.options["tag"] else text
        if self.options["moses"]:
            text = self.inverse.detokenize(text.split(), unescape=False)
        return text
