"""Tagged sentences ready for one experiment: tokens, tags, perhaps intents, batches.

Words are tokenized one by one, and the first token of a word carries its tag.
"""

import collections
import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import ClassVar

import numpy as np
from ml_collections import ConfigDict

from data.corpus import TRAIN
from data.storage import short_hash
from data.tokenizers.base import BOS, EOS, UNK, Tokenizer
from data.tokenizers.build import dump_tokenizer
from data.understanding.batches import TextBatches
from data.understanding.dataset import (
    TextColumns,
    find_text_tokenizer,
    open_columns,
    read_column,
)
from data.understanding.labels import IOB2, Labels, mark_entities
from utils.errors import UserError

OUTSIDE = "O"  # the tag of words that are in no entity
INTENT_SEPARATORS = {"atis": "#"}  # of several intents of a sentence, by corpus

Sentence = tuple[list[str], list[str]]  # words and tags


def open_tagged(cfg: ConfigDict, tokenizers: dict | None = None) -> "TaggedDataset":
    """Prepares tagged sentences, with the intents in `cfg.label_column` if it is set.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizer and labels of a run, "text", "tag" and perhaps "label", or
        the tokenizer alone of a run whose parameters training starts from.

    Raises:
      UserError: a column is no sequence, or a sentence has not a tag for each word.
    """
    keys = ("text_column", "tag_column", "label_column")
    corpus = open_columns(cfg, {key: cfg[key] for key in keys})
    corpus = dataclasses.replace(corpus, fields=(cfg.text_column,))
    known = dict(tokenizers or {})
    known["text"] = find_text_tokenizer(corpus, cfg, tokenizers)
    dataset = TaggedDataset(cfg, corpus, known)
    if "tag" not in known:
        tags = list(chain.from_iterable(dataset.tags(TRAIN)))
        known["tag"] = Labels.learn(
            cfg.tag_column, tags, corpus.label_names(cfg.tag_column)
        )
    if cfg.label_column and "label" not in known:
        names = dataset.intents(TRAIN)
        known["label"] = Labels.learn(cfg.label_column, names)
    return dataset


@dataclasses.dataclass(frozen=True)
class TaggedDataset:
    """Sentences with a tag for each word, and perhaps an intent each.

    Attributes:
      cfg: the experiment's `cfg.data`.
      tokenizers: "text", "tag" with the tags, and "label" with the intents, if any.
    """

    cfg: ConfigDict
    corpus: TextColumns
    tokenizers: dict

    dropped: ClassVar[dict[str, int]] = {}  # no sentence is left out of training

    @functools.cached_property
    def _cache(self) -> dict:
        return {}

    def sentences(self, split: str) -> list[Sentence]:
        """Returns the words and the tags of each sentence of a split."""
        key = "sentences", split
        if key not in self._cache:
            columns = self.cfg.text_column, self.cfg.tag_column
            rows = self.corpus.read_columns(split, columns)
            self._cache[key] = list(check_rows(rows, split, columns))
        return self._cache[key]

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """Returns the words of each sentence, joined by spaces."""
        return [(" ".join(words),) for words, _ in self.sentences(split)]

    def tags(self, split: str) -> list[list[str]]:
        """Returns the tags of each sentence."""
        return [tags for _, tags in self.sentences(split)]

    def intents(self, split: str) -> list[str]:
        """Returns the intent of each sentence; [] if sentences have none.

        Of several of ATIS, `a#b`, it is the one that is more frequent in training (Liu
        and Lane 2016).
        """
        column, separator = self.cfg.label_column, intent_separator(self.cfg.name)
        if not column:
            return []
        key = "intents", split
        if key not in self._cache:
            names = read_column(self.corpus, split, column)
            if separator:
                counts = self._intent_counts
                names = [main_intent(name, separator, counts) for name in names]
            self._cache[key] = names
        return self._cache[key]

    @functools.cached_property
    def _intent_counts(self) -> collections.Counter:
        names = read_column(self.corpus, TRAIN, self.cfg.label_column)
        return collections.Counter(names)

    def examples(self, split: str) -> "TaggedTexts":
        """Returns the tokens of a split's sentences, cut to `data.max_length`."""
        key = "examples", split
        if key not in self._cache:
            tokenizer, limit = self.tokenizers["text"], self.cfg.max_length
            self._cache[key] = TaggedTexts(self.sentences(split), tokenizer, limit)
        return self._cache[key]

    def train_batches(self) -> "TaggedBatches":
        """Returns endless batches in another order in each epoch."""
        return self._batches(TRAIN, self.cfg.batch_size, self.cfg.seed)

    def evaluation_batches(self, split: str, *, batch_size: int) -> "TaggedBatches":
        """Returns batches with each sentence once."""
        self.corpus.check_split(split)
        return self._batches(split, batch_size, None)

    def _batches(self, split, batch_size, seed):
        texts = self.examples(split)
        if not len(texts):
            raise UserError(f"the split {split!r} of {self.corpus.name} is empty")
        if texts.num_cut:
            print(
                f"{split}: {texts.num_cut} sentences cut to {texts.max_length} tokens; "
                f"{texts.words_lost} words and {texts.entities_lost} entities lost",
                file=sys.stderr,
            )
        labels, intents = self.tokenizers["tag"], None
        unseen = self.cfg.unseen_labels
        if mark_entities(labels.names):
            check_iob2(self.tags(split), split)
        if unseen == "error":
            check_tags(self.tags(split), labels, split)
        if self.cfg.label_column:
            names, known = self.intents(split), self.tokenizers["label"]
            known.check_seen(names, split, unseen)
            intents = known.numbers(names)
        numbers = [labels.numbers(tags) for tags in self.tags(split)]
        sizes = batch_size, self.cfg.buckets, seed
        return TaggedBatches(texts, numbers, intents, *sizes)

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Hashes of all words, tags and intents ("data") and of vocabularies."""
        digest = hashlib.sha256()
        for split in sorted(self.corpus.splits):
            rows = [split, self.sentences(split), self.intents(split)]
            digest.update(short_hash(rows).encode())
        documents = {k: dump_tokenizer(v) for k, v in self.tokenizers.items()}
        data = short_hash(digest.hexdigest(), documents["text"])
        return {"data": data, "vocabulary": short_hash(documents)}


class TaggedTexts:
    """The tokens of sentences, cut to `max_length` tokens with [CLS] and [SEP].

    Attributes:
      lengths: number of tokens of each sentence after the cut.
      word_starts: positions of the first tokens of the words that are left.
      num_cut: number of sentences that are cut.
      words_lost, entities_lost: number of words and entities beyond the cut; an entity
        is lost with its last word.
    """

    def __init__(
        self, sentences: Sequence[Sentence], tokenizer: Tokenizer, max_length: int
    ):
        self.max_length = max_length
        self.tokens, self.word_starts = [], []
        self.num_cut = self.words_lost = self.entities_lost = 0
        encode = functools.cache(functools.partial(encode_word, tokenizer))
        for words, tags in sentences:
            tokens, starts, is_cut = encode_words(words, encode, max_length)
            self.tokens.append(tokens)
            self.word_starts.append(starts)
            self.num_cut += is_cut
            self.words_lost += len(words) - len(starts)
            self.entities_lost += count_entities_after(tags, len(starts))
        self.lengths = np.asarray([len(tokens) for tokens in self.tokens], np.int32)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the tokens of a sentence and their number."""
        return self.tokens[index], len(self.tokens[index])


class TaggedBatches(TextBatches):
    """Batches of sentences with the positions and the tags of their words.

    Attributes:
      labels: ids of the tags of each sentence, -1 for an unknown one.
      intents: id of the intent of each sentence, -1 for an unknown one; None: none.
    """

    def __init__(
        self,
        texts: TaggedTexts,
        labels: Sequence[np.ndarray],
        intents: np.ndarray | None,
        *args,
        **keywords,
    ):
        super().__init__(texts, *args, **keywords)
        self.labels, self.intents = labels, intents

    def make_batch(self, indices, width):
        batch = super().make_batch(indices, width)
        shape = len(indices), width - 2  # a word has a token or more
        starts, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        weights = np.zeros(shape, np.float32)
        for row, index in enumerate(indices.tolist()):
            if index < 0:
                continue
            found = self.texts.word_starts[index]
            known = self.labels[index][: len(found)]
            starts[row, : len(found)] = found
            labels[row, : len(found)] = np.maximum(known, 0)
            weights[row, : len(found)] = known >= 0
        batch |= {"word_starts": starts, "labels": labels, "weights": weights}
        if self.intents is not None:
            intents = np.where(indices < 0, -1, self.intents[np.maximum(indices, 0)])
            batch["intents"] = np.maximum(intents, 0).astype(np.int32)
            batch["intent_weights"] = (intents >= 0).astype(np.float32)
        return batch


def encode_word(tokenizer: Tokenizer, word: str) -> list[int]:
    """Returns the tokens of a word, one or more."""
    return tokenizer.encode(word) or [UNK]


def encode_words(
    words: Sequence[str], encode: Callable[[str], list[int]], max_length: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns the tokens of a sentence, the positions of its words, whether it is cut.

    The position of a word is that of its first token; words whose first token is cut
    have none.
    """
    tokens = [encode(word) for word in words]
    starts = np.cumsum([1, *map(len, tokens)], dtype=np.int32)[:-1]
    inner = list(chain.from_iterable(tokens))
    ids = [BOS, *inner[: max_length - 2], EOS]
    is_cut = len(inner) > max_length - 2
    return np.asarray(ids, np.int32), starts[starts < max_length - 1], is_cut


def check_rows(rows: Iterable[tuple], split: str, columns) -> Iterator[Sentence]:
    """Yields rows that are words with a tag each. Raises UserError for others."""
    for number, row in enumerate(rows, start=1):
        words, tags = row
        for column, value in zip(columns, row, strict=True):
            if isinstance(value, str):
                raise UserError(
                    f"the column {column!r} holds a text, and tagging needs a sequence"
                )
        if len(words) != len(tags):
            raise UserError(
                f"{split}, sentence {number}: {len(words)} words in {columns[0]!r} and "
                f"{len(tags)} tags in {columns[1]!r}; each word needs one tag"
            )
        if not words:
            raise UserError(f"{split}, sentence {number} has no words")
        for tag in tags:
            if tag.split() != [tag]:
                raise UserError(
                    f"{split}, sentence {number}: the tag {tag!r} is empty or has a "
                    "space, and tags are written with spaces between them"
                )
        yield words, tags


def check_iob2(sentences: Sequence[list[str]], split: str) -> None:
    """Raises UserError for a tag that is not of IOB2."""
    for number, tags in enumerate(sentences, start=1):
        for tag in tags:
            if not IOB2.fullmatch(tag):
                raise UserError(
                    f"{split}, sentence {number}: {tag!r} is no tag of IOB2, which are "
                    "O, B-TYPE and I-TYPE, and other tags of the training split are"
                )


def check_tags(sentences: Sequence[list[str]], labels: Labels, split: str) -> None:
    """Raises UserError for a tag that training lacks."""
    for number, tags in enumerate(sentences, start=1):
        for tag in tags:
            if tag not in labels.ids:
                raise UserError(
                    f"{split}, sentence {number}: the training split has no tag "
                    f"{tag!r}; data.unseen_labels='count' counts such words as wrong"
                )


def count_entities_after(tags: Sequence[str], num_words: int) -> int:
    """Returns the number of entities whose last word is not among the first words.

    Tags that are not of IOB2, such as parts of speech, mark none.
    """
    pairs = enumerate(pairwise([*tags, OUTSIDE]))
    return sum(
        mark_entities([tag]) and following != f"I{tag[1:]}" and position >= num_words
        for position, (tag, following) in pairs
    )


def intent_separator(corpus: str | None) -> str | None:
    """Returns what separates several intents of a sentence; None: each has one."""
    return INTENT_SEPARATORS.get((corpus or "").partition("/")[0])


def main_intent(name: str, separator: str, counts: collections.Counter) -> str:
    """Returns the most frequent intent of several, the first of equally frequent ones.

    Args:
      counts: occurrences of each intent in training; a name whose parts all lack there
        is one intent.
    """
    parts = name.split(separator)
    if not all(parts) or not any(part in counts for part in parts):
        return name
    return max(parts, key=lambda part: counts[part])
