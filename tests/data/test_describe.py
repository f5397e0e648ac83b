"""The description of a corpus counts what tokens do not restore."""

from types import SimpleNamespace

from data.describe import describe_losses
from data.tokenizers.build import train_tokenizer

TEXTS = {
    "train": [("a\u2581b c", "x  y"), ("b\0", " x"), ("c a", "y\u3000x")],
    "test": [("c\u2581", "x y")],
}


class MadeUp:
    splits = {split: len(texts) for split, texts in TEXTS.items()}  # noqa: RUF012

    def read(self, split, start=0, stop=None):
        return TEXTS[split][start:stop]


def test_characters_that_decoding_loses_are_counted_by_name():
    pieces = train_tokenizer("sentencepiece", ["a b c"], 9, 1)
    words = train_tokenizer("word", ["x y"], 9, 1)
    dataset = SimpleNamespace(corpus=MadeUp(), tokenized=TEXTS)
    dataset.tokenizers = {"source": pieces, "target": words}
    assert list(describe_losses(dataset)) == [
        "not restored by decoding, source: 2 of U+2581, 1 of U+0000",
        "not restored by decoding, target: 2 of U+0020, 1 of U+3000",
    ]
    dataset.tokenizers = {"source": train_tokenizer("byte", [], 9, 1)}
    assert not list(describe_losses(dataset))
