"""Tokenizers of an exported model: text to token ids and back.

SentencePiece models need the package sentencepiece, the rules of Moses need sacremoses;
bytes, characters, words and WordPiece need no package.
"""

import base64
import re
import unicodedata

PAD, EOS, UNK, BOS = range(4)
TAG = re.compile(r"(<2[\w-]+>) ?")  # of a target language, at the beginning of a text
SPACE = "\u2581"  # SentencePiece's symbol before each word
ASCII_SYMBOLS = "$+<=>^`|~"  # punctuation for BERT, not for Unicode
CHINESE = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF)),
    *((0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F)),
)
MAX_WORD = 100  # characters; WordPiece does not know longer words


class Tokenizer:
    """Base class of tokenizers: normalisation of texts, and tags."""

    def __init__(self, content: dict):
        self.kind, self.tags = content["kind"], content["tags"]
        self.normal = content["normal"]
        if self.normal["moses"]:
            import sacremoses

            language = self.normal["moses_language"]
            self.punctuation = sacremoses.MosesPunctNormalizer(language)
            self.moses = sacremoses.MosesTokenizer(language)
            self.inverse = sacremoses.MosesDetokenizer(language)

    def normalize(self, text: str) -> tuple[list[int], str]:
        """Returns the id of a text's tag, if there is one, and the normalised rest."""
        tag = self.normal["tag"]
        if tag and (match := TAG.match(text)):
            tag, text = match[1], text[match.end() :]
        if self.normal["moses"]:
            text = self.punctuation.normalize(text)
            text = self.moses.tokenize(text, return_str=True, escape=False)
        text = text.lower() if self.normal["lowercase"] else text
        if self.normal["strip_accents"] and not text.isascii():
            parts = unicodedata.normalize("NFD", text)
            text = "".join(c for c in parts if unicodedata.category(c) != "Mn")
        if tag and tag not in self.tags:
            raise ValueError(f"unknown tag {tag}; choose one of {', '.join(self.tags)}")
        return [self.tags[tag]] if tag else [], text

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text."""
        first, text = self.normalize(text)
        return [*first, *self.encode_ids(text)]

    def decode(self, ids: list[int]) -> str:
        """Returns the text of token ids, without tags and normalisation."""
        text = self.detokenize([i for i in ids if i not in self.tags.values()])
        text = TAG.sub("", text, count=1) if self.normal["tag"] else text
        if self.normal["moses"]:
            text = self.inverse.detokenize(text.split(), unescape=False)
        return text

    def decode_after(self, prompt: list[int], ids: list[int]) -> str:
        """Returns the text that token ids add to that of a prompt."""
        return self.decode(prompt + ids)[len(self.decode(prompt)) :]

    def encode_part(self, part: str, after: bool, before: bool) -> list[int]:
        """Encodes the text after or before a mask as it is encoded within a line."""
        return self.encode(part)

    def join(self, text: str, number: int) -> str:
        """Appends a token to a text."""
        return text + self.decode([number])


class Bytes(Tokenizer):
    """Tokenizer of UTF-8 bytes."""

    def encode_ids(self, text):
        return [byte + BOS + 1 for byte in text.encode()]

    def detokenize(self, ids):
        return bytes(i - BOS - 1 for i in ids if i > BOS).decode(errors="replace")


class Symbols(Tokenizer):
    """Tokenizer with a list of characters, words or pieces of words."""

    def __init__(self, content):
        super().__init__(content)
        self.symbols = content["symbols"]
        hidden = (PAD, EOS, BOS)
        self.ids = {s: i for i, s in enumerate(self.symbols) if i not in hidden}
        self.longest = max(map(len, self.symbols))

    def encode_ids(self, text):
        parts = list(text) if self.kind == "char" else text.split()
        return [self.ids.get(part, UNK) for part in parts]

    def detokenize(self, ids):
        parts = [self.symbols[i] for i in ids if i not in (PAD, EOS, BOS)]
        return ("" if self.kind == "char" else " ").join(parts)


class WordPiece(Symbols):
    """Tokenizer of BERT: the longest pieces of each word from left to right."""

    def encode_ids(self, text):
        unknown = self.symbols[UNK]
        parts = [self.separate(part).split() for part in text.split(unknown)]
        words = parts[0] + [word for part in parts[1:] for word in (unknown, *part)]
        return [number for word in words for number in self.encode_word(word)]

    @staticmethod
    def separate(text):
        def change(c):
            kind = unicodedata.category(c)
            if c in "\0\ufffd" or (kind in ("Cc", "Cf") and c not in "\t\n\r"):
                return ""
            alone = c in ASCII_SYMBOLS or kind.startswith("P")
            alone = alone or any(low <= ord(c) <= high for low, high in CHINESE)
            return f" {c} " if alone else c

        return "".join(map(change, text))

    def encode_word(self, word):
        ids, start, prefix = [], 0, ""
        while start < len(word) <= MAX_WORD:
            end = min(len(word), start + self.longest)
            while end > start and prefix + word[start:end] not in self.ids:
                end -= 1
            if end == start:
                return [UNK]
            ids.append(self.ids[prefix + word[start:end]])
            start, prefix = end, "##"
        return ids or [UNK]

    def detokenize(self, ids):
        return super().detokenize(ids).replace(" ##", "")

    def join(self, text, number):
        piece = self.decode([number])
        return text.rstrip() + piece[2:] if piece.startswith("##") else text + piece


class SentencePiece(Tokenizer):
    """Tokenizer of a SentencePiece model."""

    def __init__(self, content):
        import sentencepiece

        super().__init__(content)
        model = base64.b64decode(content["model"])
        self.model = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode_ids(self, text):
        return self.model.encode(text)

    def detokenize(self, ids):
        return self.model.decode(ids)

    def encode_part(self, part, after, before):
        continues = after and part and not part[0].isspace()
        part = part.removeprefix(" ") if after else part
        part = part.removesuffix(" ") if before else part
        ids = self.encode(part) if part else []
        if not continues or not ids:
            return ids
        piece = self.model.id_to_piece(ids[0])
        inner = self.model.piece_to_id(piece.removeprefix(SPACE))
        if piece == SPACE:
            return ids[1:]
        return ids if inner == UNK else [inner, *ids[1:]]

    def join(self, text, number):
        piece = self.model.id_to_piece(number)
        if not piece.startswith(SPACE):
            text = text.removesuffix(" ")
        elif text and not text[-1].isspace():
            piece = f" {piece.removeprefix(SPACE)}"
        return text + piece.replace(SPACE, "")


KINDS = {
    "byte": Bytes,
    **dict.fromkeys(("char", "word"), Symbols),
    "wordpiece": WordPiece,
    **dict.fromkeys(("sentencepiece", "unigram"), SentencePiece),
}


def load_tokenizer(content: dict) -> Tokenizer:
    """Returns the tokenizer that a JSON object of the bundle describes."""
    return KINDS[content["kind"]](content)
