"""WordPiece (Schuster and Nakajima 2012), as BERT encodes text (Devlin et al. 2019).

A text is split at white space, around punctuation and around Chinese characters. Each
word is then covered from left to right by the longest piece of the vocabulary that
fits; the pieces after the first begin with "##".
"""

import collections
import functools
import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK
from data.tokenizers.symbols import ListTokenizer

CONTINUATION = "##"  # begins each piece of a word but the first
MAX_WORD = 100  # characters; longer words are unknown
MASK = "<mask>"
# From the names in BERT's vocabulary files to ours.
BERT_NAMES = {
    "[PAD]": SPECIAL[PAD],
    "[SEP]": SPECIAL[EOS],
    "[UNK]": SPECIAL[UNK],
    "[CLS]": SPECIAL[BOS],
    "[MASK]": MASK,
}
NUM_CONTROLS = 3  # <unk>, <s> and </s>, the first ids of a SentencePiece model
MAX_CACHED = 2**19  # words whose pieces are kept
# Reserved by SentencePiece, not UTF-8, or from INITIALS on.
UNLEARNABLE = re.compile("[\u2581\u2585\ud800-\udfff\U000f0000-\U0010ffff]")
INITIALS = 0xF0000  # private code points, which stand for first letters of words
CHINESE = (  # blocks of ideographs; Hangul and kana have spaces, or need not be split
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF)),
    *((0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F)),
)
ASCII_SYMBOLS = frozenset("$+<=>^`|~")  # punctuation for BERT, not for Unicode


def is_removed(character: str) -> bool:
    """Returns whether a character is a control character, which BERT removes."""
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf")


def is_split_off(character: str) -> bool:
    """Returns whether a character is a word alone: punctuation and ideographs."""
    code = ord(character)
    return (
        character in ASCII_SYMBOLS
        or unicodedata.category(character).startswith("P")
        or any(first <= code <= last for first, last in CHINESE)
    )


class Separator(dict):
    """Translation table that puts spaces around words of a single character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if is_removed(character):
            character = ""
        elif is_split_off(character):
            character = f" {character} "
        return self.setdefault(code, character)


SEPARATOR = Separator()
UNKNOWN = re.compile(re.escape(SPECIAL[UNK]))


def split_words(text: str) -> list[str]:
    """Splits a text into words, as BERT's basic tokenizer does.

    A text may contain the name of the unknown token, which stays whole.
    """
    if SPECIAL[UNK] not in text:
        return text.translate(SEPARATOR).split()
    words = []
    for part in UNKNOWN.split(text):
        words += [*part.translate(SEPARATOR).split(), SPECIAL[UNK]]
    return words[:-1]


@functools.cache
def lossy_pattern() -> re.Pattern:
    """Compiles a pattern of the characters that decoding does not restore."""
    classes = {"C": [], "P": [*ASCII_SYMBOLS]}
    for character in map(chr, range(sys.maxunicode + 1)):
        kind = unicodedata.category(character)[0]
        if kind == "P" or (kind == "C" and is_removed(character)):
            classes[kind].append(character)
    removed = re.escape("".join([*classes["C"], "\ufffd"]))
    alone = re.escape("".join(classes["P"]))
    alone += "".join(f"{chr(first)}-{chr(last)}" for first, last in CHINESE)
    spaces = r"[^\S ]|^ |(?<=\s) | \Z"  # all but single spaces
    return re.compile(rf"{spaces}|[{removed}]|(?<=\S)[{alone}]|[{alone}](?=\S)")


class WordPieceTokenizer(ListTokenizer):
    """Tokenizer of BERT, with a vocabulary learned by byte-pair encoding.

    The vocabulary holds the characters of the text, once to begin a word and once with
    "##" to continue it, and the pieces that SentencePiece's byte-pair encoding learns
    on the separated words, in the order of their merges. The method of the original is
    not published; the one trainer in common use, of Hugging Face, learns merges too.
    Lower-casing also strips accents, by `Normalizer.strip_accents`. Decoding writes a
    single space between words.
    """

    kind: ClassVar = "wordpiece"
    joiner = " "
    learns_from: ClassVar = 2**26
    recipe: ClassVar = {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
        "split_by_unicode_script": False,
        "split_by_number": False,
        "add_dummy_prefix": False,
        "character_coverage": 1.0,
        "hard_vocab_limit": False,
        "num_threads": 1,
        "input_format": "tsv",  # words with their counts
    }

    def __init__(self, symbols: Sequence[str]):
        super().__init__(symbols)
        self._longest = max(map(len, self.symbols))
        self._cache: dict[str, list[int]] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_cache": {}}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        """Learns `vocab_size` pieces, or fewer where the text has no more.

        Where there are more characters than that, the most frequent are kept.
        """
        words = collections.Counter()
        for text in texts:
            words.update(split_words(text))
        del words[SPECIAL[UNK]]
        for word in [word for word in words if len(word) > MAX_WORD]:
            del words[word]
        pieces = dict.fromkeys(rank_characters(words))
        room = vocab_size - len(SPECIAL) - len(pieces)
        if room > 0:
            pieces |= dict.fromkeys(learn_merges(words, room, cls.recipe))
        return cls([*SPECIAL, *pieces][:vocab_size])

    @classmethod
    def from_tokens(cls, tokens: Iterable[str]):
        """Makes a vocabulary of pieces, whose special tokens may have BERT's names.

        Special tokens come first; all others keep their order.
        """
        pieces = dict.fromkeys(BERT_NAMES.get(token, token) for token in tokens)
        first = [*SPECIAL, MASK] if MASK in pieces else SPECIAL
        return cls([*first, *(piece for piece in pieces if piece not in first)])

    @property
    def lossy(self) -> re.Pattern:
        """Matches removed characters, and spaces that decoding adds or drops."""
        return lossy_pattern()

    def encode_ids(self, text: str) -> list[int]:
        ids, cache = [], self._cache
        for word in split_words(text):
            pieces = cache.get(word)
            if pieces is None:
                pieces = self._encode_word(word)
                if len(cache) < MAX_CACHED:
                    cache[word] = pieces
            ids += pieces
        return ids

    def _encode_word(self, word: str) -> list[int]:
        """Returns the longest pieces from left to right; UNK if some part has none."""
        if len(word) > MAX_WORD:
            return [UNK]
        ids, start, prefix = [], 0, ""
        while start < len(word):
            end = min(len(word), start + self._longest)
            while (number := self.ids.get(prefix + word[start:end])) is None:
                end -= 1
                if end == start:
                    return [UNK]
            ids.append(number)
            start, prefix = end, CONTINUATION
        return ids

    def split(self, text: str) -> list[str]:
        """Returns the text of each piece without "##", and unknown words whole."""
        parts = []
        for word in split_words(text):
            ids = self._encode_word(word)
            names = [self.symbols[i].removeprefix(CONTINUATION) for i in ids[1:]]
            parts += [word[: len(word) - sum(map(len, names))], *names]
        return parts

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the words with single spaces between them, `<unk>` for unknown."""
        return super().detokenize(ids).replace(f" {CONTINUATION}", "")


def rank_characters(words: dict[str, int]) -> list[str]:
    """Returns the pieces of one character, the most frequent first.

    Each has two, to begin and to continue a word, unless it is a word alone.
    """
    counts = collections.Counter()
    for word, count in words.items():
        for position, character in enumerate(word):
            pair = character, CONTINUATION + character
            counts[pair[position > 0]] += count
            if not is_split_off(character):
                counts[pair[position == 0]] += 0
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def learn_merges(words: dict[str, int], max_pieces: int, recipe: dict) -> Iterator[str]:
    """Yields at most `max_pieces` pieces of several characters, in merging order.

    The first letter of a word is another symbol for SentencePiece than the same letter
    inside of words.
    """
    import sentencepiece

    ranked = sorted(words, key=lambda word: (-words[word], word))
    learnable = [word for word in ranked if not UNLEARNABLE.search(word)]
    if not learnable:
        return
    letters = sorted({word[0] for word in learnable})
    initials = {letter: chr(INITIALS + i) for i, letter in enumerate(letters)}
    marked = {initials[word[0]] + word[1:]: words[word] for word in learnable}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in marked.items()),
        model_writer=model,
        vocab_size=max_pieces + len(set("".join(marked))) + NUM_CONTROLS,
        minloglevel=2,
        **recipe,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for number in range(NUM_CONTROLS, processor.vocab_size()):
        first, *rest = processor.id_to_piece(number)
        if rest:
            begins = ord(first) >= INITIALS
            start = letters[ord(first) - INITIALS] if begins else CONTINUATION + first
            yield start + "".join(rest)
