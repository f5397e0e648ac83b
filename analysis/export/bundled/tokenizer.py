"""Base class of the tokenizers: text to token ids and back."""

PAD, EOS, UNK, BOS = range(4)


class TokenizerBase:
    """Encodes and decodes with `encode_ids` and `detokenize` of a subclass."""

    def __init__(self, content: dict):
        self.tags, self.normalizer = content["tags"], None
        if content["normal"]:
            from normalizer import Normalizer

            self.normalizer = Normalizer(content["normal"], self.tags)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text."""
        first, text = self.normalizer.apply(text) if self.normalizer else ([], text)
        return [*first, *self.encode_ids(text)]

    def decode(self, ids: list[int]) -> str:
        """Returns the text of token ids, without tags and normalisation."""
        text = self.detokenize([i for i in ids if i not in self.tags.values()])
        return self.normalizer.undo(text) if self.normalizer else text

    def decode_after(self, prompt: list[int], ids: list[int]) -> str:
        """Returns the text that token ids add to that of a prompt."""
        return self.decode(prompt + ids)[len(self.decode(prompt)) :]

    def encode_part(self, part: str, after: bool, before: bool) -> list[int]:
        """Encodes the text after or before a mask as it is encoded within a line."""
        return self.encode(part)

    def join(self, text: str, number: int) -> str:
        """Appends a token to a text."""
        return text + self.decode([number])
