"""Small tasks for tests, whose tokenizers write token ids as text."""

import functools

from configs import base
from data.tokenizers.base import Tokenizer
from data.tokenizers.symbols import WordTokenizer
from helpers.architectures import Seq2SeqCase, V, W
from tasks import language_modeling, translation

MAX_LENGTH = 6


class IdTokenizer(Tokenizer):
    """A tokenizer whose text is its token ids."""

    kind = "ids"

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


def decode_options(**changes):
    """Returns a config with changes of `decode`."""
    cfg = base.get_config()
    cfg.decode.update(max_length=MAX_LENGTH, max_length_ratio=1.0, **changes)
    return cfg


@functools.cache
def translation_case():
    """Returns a small RNN and its task."""
    tokenizers = {"source": IdTokenizer(W), "target": IdTokenizer(V)}
    return Seq2SeqCase("rnn", layers=1), translation.Task(tokenizers)


def language_modeling_task(**options):
    """Returns a task whose words are the numbers below V."""
    words = WordTokenizer([str(i) for i in range(V)])
    return language_modeling.Task({"text": words}, **options)
