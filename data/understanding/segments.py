"""Segments of documents that an encoder reads at once, and pairs of texts.

A segment holds as many whole sentences of one document as fit. A pair is a segment
that is divided between two sentences, or whose second part is of another document
(next-sentence prediction, Devlin et al. 2019, section 3.1).
"""

import dataclasses

import numpy as np

from data.understanding.documents import Documents


@dataclasses.dataclass(frozen=True)
class Segments:
    """Consecutive segments that hold every token of a split once.

    Attributes:
      starts, ends: range of each segment's tokens.
      first_segments: index of the first segment of each document, and their number.
      sentences: index of the first token of each sentence, and number of all tokens.
      room: largest number of tokens of a segment.
    """

    starts: np.ndarray
    ends: np.ndarray
    first_segments: np.ndarray
    sentences: np.ndarray
    room: int

    def __len__(self) -> int:
        return len(self.starts)

    def shorten(
        self, indices: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns where segments start and end, cut after a sentence.

        Args:
          indices: the segments.
          lengths: number of tokens that the sentences which are kept have at least,
            unless the segment ends before; `room` cuts none.
        """
        starts, ends = self.starts[indices], self.ends[indices]
        number = np.searchsorted(self.sentences[:-1], starts + lengths)
        return starts, np.minimum(self.sentences[number], ends)


def pack_segments(documents: Documents, room: int) -> Segments:
    """Fills segments of at most `room` tokens with the whole sentences of a document.

    A longer sentence is cut into segments of its own.
    """
    sentences = np.asarray(documents.sentences)
    first, last = _walk(documents, room, at_least=1)
    starts, lengths = sentences[first], sentences[last] - sentences[first]
    parts = -(-lengths // room)  # more than 1 for a long sentence
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = np.repeat(starts, parts) + room * number
    ends = np.minimum(starts + room, np.repeat(sentences[last], parts))
    owners = np.repeat(_owners(documents, first), parts)
    bounds = np.searchsorted(owners, np.arange(len(documents) + 1))
    return Segments(starts, ends, bounds, sentences, room)


def _walk(documents: Documents, room: int, at_least: int):
    """Returns the first sentence of each segment, and the one after its last.

    Args:
      at_least: smallest number of sentences, unless the document ends.
    """
    sentences, bounds = np.asarray(documents.sentences), np.asarray(documents.documents)
    fits = np.searchsorted(sentences, sentences[:-1] + room, side="right") - 1
    after = np.maximum(fits, np.arange(len(fits)) + at_least)
    after = np.minimum(after, np.repeat(bounds[1:], np.diff(bounds)))
    steps, chosen, sentence = after.tolist(), [], 0
    while sentence < len(steps):
        chosen.append(sentence)
        sentence = steps[sentence]
    first = np.asarray(chosen, np.int64)
    return first, after[first]


def _owners(documents: Documents, sentences: np.ndarray) -> np.ndarray:
    """Returns the document of each sentence."""
    return np.searchsorted(documents.documents, sentences, side="right") - 1


class SentencePairs:
    """Segments of at least two sentences, which are divided in two at random.

    If a document ends with a single sentence that does not fit, its last segment
    repeats the sentence before. A document of one sentence has no next sentence, and
    provides only the second text of other pairs.

    Attributes:
      room: number of tokens of both texts, at most.
      first, last: first sentence of each segment, and the one after its last.
      owners: document of each segment.
    """

    def __init__(self, documents: Documents, room: int):
        self.documents, self.room = documents, room
        self.sentences = np.asarray(documents.sentences)
        self.bounds = np.asarray(documents.documents)
        first, last = _walk(documents, room, at_least=2)
        owners = _owners(documents, first)
        is_alone = last - first < 2
        first = np.where(is_alone, np.maximum(first - 1, self.bounds[owners]), first)
        is_pair = last - first >= 2
        self.first, self.last = first[is_pair], last[is_pair]
        self.owners = owners[is_pair]

    def __len__(self) -> int:
        return len(self.first)

    def divide(
        self, indices: np.ndarray, lengths: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the token ranges of both texts, [R, 2] each, and `is_next` [R].

        Of a pair without room the longer text is cut; what remains are the tokens next
        to the boundary.

        Args:
          indices: the segments.
          lengths: number of tokens that the sentences of a pair have at least, if the
            documents hold so many; `room` takes all sentences of a segment.
          uniform: four random numbers in [0, 1) for each, [R, 4].
        """
        first, last = self.first[indices], self.last[indices]
        enough = np.searchsorted(self.sentences[:-1], self.sentences[first] + lengths)
        last = np.minimum(last, np.maximum(enough, first + 2))
        middle = first + 1 + (uniform[:, 0] * (last - first - 1)).astype(np.int64)
        is_next = uniform[:, 1] < 0.5
        start, stop = self.sentences[first], self.sentences[middle]
        begin, end = self._other_texts(indices, uniform[:, 2:], lengths - stop + start)
        begin = np.where(is_next, stop, begin)
        end = np.where(is_next, self.sentences[last], end)
        kept, others = cut_pairs(stop - start, end - begin, self.room)
        texts = np.stack([stop - kept, stop], 1), np.stack([begin, begin + others], 1)
        return *texts, is_next

    def _other_texts(self, indices, uniform, rooms) -> tuple[np.ndarray, np.ndarray]:
        """Returns token ranges of sentences of other documents, as many as fit."""
        owners = self.owners[indices]
        other = (uniform[:, 0] * (len(self.documents) - 1)).astype(np.int64)
        other += other >= owners
        start, stop = self.bounds[other], self.bounds[other + 1]
        sentence = start + (uniform[:, 1] * (stop - start)).astype(np.int64)
        begin = self.sentences[sentence]
        fits = np.searchsorted(self.sentences, begin + rooms, side="right") - 1
        after = np.minimum(np.maximum(fits, sentence + 1), stop)
        return begin, self.sentences[after]


def cut_pairs(
    first: np.ndarray, second: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns lengths of pairs after the longer text of each is cut until both fit."""
    half = room // 2
    first = np.minimum(first, np.maximum(room - second, room - half))
    return first, np.minimum(second, room - first)
