"""Texts with two marked entities and their relation, ready for one experiment.

In a text, <e1> </e1> and <e2> </e2> enclose the entities, once each. The markers are
tokens of their own (Baldini Soares et al. 2019, section 3.2), and no part of the text
that a vocabulary is learned from.
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from data.corpus import TRAIN
from data.storage import short_hash
from data.tokenizers.base import BOS, EOS, Tokenizer
from data.tokenizers.build import dump_tokenizer, find_tokenizers
from data.understanding.batches import LabeledBatches
from data.understanding.dataset import (
    LabeledDataset,
    TextColumns,
    encoder_folder,
    find_text_tokenizer,
    open_columns,
    read_column,
)
from data.understanding.labels import Labels
from data.understanding.markers import ENTITY_MARKERS, MARKERS
from utils.errors import UserError

MARKER = re.compile(f"({'|'.join(ENTITY_MARKERS)})")
SHOWN = 60  # characters of a text in an error


class UnmarkedColumns(TextColumns):
    """Columns of a corpus read as texts, without the markers of entities."""

    def read(self, split, start=0, stop=None):
        for texts in super().read(split, start, stop):
            yield tuple(MARKER.sub("", text) for text in texts)


def open_relations(
    cfg: ConfigDict, tokenizers: dict | None = None
) -> "RelationDataset":
    """Prepares texts with marked entities and the labels of their relations.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizer and labels of a run, "text" and "label", or the tokenizer
        alone of a run whose parameters training starts from.
    """
    keys = ("text_column", "label_column")
    corpus = open_columns(cfg, {key: cfg[key] for key in keys})
    corpus = dataclasses.replace(corpus, fields=(cfg.text_column,))
    own = {f.name: getattr(corpus, f.name) for f in dataclasses.fields(corpus)}
    if tokenizers is not None:
        tokenizer = find_text_tokenizer(corpus, cfg, tokenizers)
    else:
        folder = encoder_folder(cfg) / "without-markers"
        unmarked = UnmarkedColumns(**own)
        learned = find_tokenizers(unmarked, folder, ("text",), cfg)
        tokenizer = learned["text"].with_tags(MARKERS)
    labels = (tokenizers or {}).get("label")
    if labels is None:
        names = read_column(corpus, TRAIN, cfg.label_column)
        declared = corpus.label_names(cfg.label_column)
        labels = Labels.learn(cfg.label_column, names, declared)
    return RelationDataset(cfg, corpus, {"text": tokenizer, "label": labels}, {})


@dataclasses.dataclass(frozen=True)
class RelationDataset(LabeledDataset):
    """Texts with two marked entities and a label each."""

    @functools.cached_property
    def _examples(self) -> dict[str, "MarkedTexts"]:
        return {}

    def examples(self, split: str) -> "MarkedTexts":
        """Returns the tokens of a split's texts, cut to `data.max_length`.

        Raises UserError for a text without exactly one of each marker.
        """
        if split not in self._examples:
            texts = [text for (text,) in self.texts(split)]
            for number, text in enumerate(texts, start=1):
                check_markers(text, f"{split}, example {number}")
            encode = functools.partial(encode_marked, self.tokenizers["text"])
            found = MarkedTexts(texts, encode, self.cfg.max_length)
            self._examples[split] = found
        return self._examples[split]

    def _batches(self, split, batch_size, seed):
        texts = self.examples(split)
        if not len(texts):
            raise UserError(f"the split {split!r} of {self.corpus.name} is empty")
        if texts.num_cut:
            print(
                f"{split}: {texts.num_cut} texts cut to {texts.max_length} tokens; "
                f"{texts.entities_lost} entities lost",
                file=sys.stderr,
            )
        sizes = batch_size, self.cfg.buckets, seed
        return RelationBatches(texts, self.labels(split), *sizes)

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        rows = [
            [split, self.texts(split), self.label_names(split)]
            for split in sorted(self.corpus.splits)
        ]
        documents = {k: dump_tokenizer(v) for k, v in self.tokenizers.items()}
        data = short_hash(rows, documents["text"])
        return {"data": data, "vocabulary": short_hash(documents)}


class MarkedTexts:
    """The tokens of texts with marked entities, cut to `max_length` tokens.

    Attributes:
      lengths: number of tokens of each text after the cut.
      entities: positions of the markers <e1> and <e2>, [N, 2]; 0: cut off.
      num_cut: number of texts that are cut.
      entities_lost: number of entities whose first marker is cut off.
    """

    def __init__(
        self, texts: Sequence[str], encode: Callable[[str], tuple], max_length: int
    ):
        self.max_length = max_length
        self.tokens: list[np.ndarray] = []
        positions, self.num_cut = [], 0
        for text in texts:
            ids, entities = encode(text)
            tokens, entities, is_cut = cut_marked(ids, entities, max_length)
            self.tokens.append(np.asarray(tokens, np.int32))
            positions.append(entities)
            self.num_cut += is_cut
        self.entities = np.asarray(positions, np.int32).reshape(-1, 2)
        self.entities_lost = int((self.entities == 0).sum())
        self.lengths = np.asarray([len(tokens) for tokens in self.tokens], np.int32)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the tokens of a text and their number."""
        return self.tokens[index], len(self.tokens[index])


class RelationBatches(LabeledBatches):
    """Batches of texts with the positions of their entities and a label each."""

    def make_batch(self, indices, width):
        entities = self.texts.entities[np.maximum(indices, 0)]
        entities = np.where(indices[:, None] < 0, 0, entities)
        return {**super().make_batch(indices, width), "entities": entities}


def check_markers(text: str, where: str) -> None:
    """Raises UserError unless a text has each marker once, first <e1> then </e1>."""
    for marker in ENTITY_MARKERS:
        if (count := text.count(marker)) != 1:
            raise UserError(
                f"{where}: {marker} occurs {count} times in {text[:SHOWN]!r}, and "
                f"each of {' '.join(ENTITY_MARKERS)} must occur once"
            )
    for start, end in (ENTITY_MARKERS[:2], ENTITY_MARKERS[2:]):
        if text.index(start) > text.index(end):
            raise UserError(f"{where}: {end} comes before {start} in {text[:SHOWN]!r}")


def encode_marked(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    """Returns the tokens of a text without [CLS] and [SEP], and its entities.

    These are the positions of <e1> and <e2> after [CLS].
    """
    ids, positions = [], {}
    for part in MARKER.split(text):
        if part in ENTITY_MARKERS:
            positions[part] = 1 + len(ids)
            ids.append(tokenizer.tags[part])
        elif part.strip():
            ids += tokenizer.encode(part)
    return ids, [positions[marker] for marker in ENTITY_MARKERS[::2]]


def cut_marked(
    ids: list[int], entities: list[int], max_length: int
) -> tuple[list[int], list[int], bool]:
    """Returns the tokens of a text with [CLS] and [SEP], its entities, if it is cut."""
    room = max_length - 2
    tokens = [BOS, *ids[:room], EOS]
    kept = [place if place <= room else 0 for place in entities]
    return tokens, kept, len(ids) > room
