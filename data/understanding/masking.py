"""Batches of masked language modeling (Devlin et al. 2019, section 3.1).

Of each segment a fraction of the tokens is predicted: 80% of them are replaced by
<mask>, 10% by a random token and 10% stay. A fraction of the segments is short, as in
the code of the paper (`short_seq_prob` of create_pretraining_data.py): fine-tuning
reads texts of all lengths. Batch k is a function of the documents, the config, the seed
and k alone, and so is each of its rows.
"""

import dataclasses
import functools
import math

import numpy as np

from data.batching.base import Batch, TrainBatches
from data.batching.shuffle import Permutation
from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, Tokenizer
from data.tokenizers.wordpiece import CONTINUATION, MASK
from data.understanding.documents import Documents
from data.understanding.segments import SentencePairs, pack_segments
from utils.errors import UserError

MASKED, RANDOM = 0.8, 0.9  # cumulative probabilities of the three replacements
PAIR_DRAWS = 4  # random numbers of `SentencePairs.divide`
LENGTH_DRAWS = 2  # whether a segment is short, and how short
EVALUATION_SEED = 0
WORDS_BLOCK = 1 << 20  # tokens in which words are looked for at once


@dataclasses.dataclass(frozen=True)
class MaskingOptions:
    """Keys of `cfg.mlm`; `configs/base.py` explains each."""

    probability: float = 0.15
    whole_word: bool = False
    next_sentence: bool = False
    short_fraction: float = 0.0

    def num_predictions(self, length: int) -> int:
        """Returns the largest number of predicted tokens of a text (P)."""
        return max(1, math.ceil(self.probability * length))


class MaskedBatches(TrainBatches):
    """`batches[k]` for any k >= 0; without a seed for k < `len(batches)`.

    Without a seed, each segment comes once, with masks that do not depend on the batch
    size. In document order, row b of batch k + 1 continues row b of batch k, except
    where `reset` is set: at the start of a document or of an epoch.

    Attributes:
      documents: the text.
      num_segments: number of segments of an epoch.
    """

    def __init__(
        self,
        documents: Documents,
        tokenizer: Tokenizer,
        options: MaskingOptions,
        *,
        batch_size: int,
        max_length: int,
        document_order: bool = False,
        seed: int | None = None,
    ):
        """Divides the documents into segments.

        Args:
          max_length: number of tokens of each row, padding included (T).
          seed: seed of the order, the masks and the pairs; None: evaluation.
        """
        self.documents, self.options, self.seed = documents, options, seed
        self.batch_size, self.length = batch_size, max_length
        self.document_order = document_order
        self.shapes = [(batch_size, max_length)]
        self.vocabulary = PieceTable(tokenizer)
        if options.next_sentence:
            self.segments = SentencePairs(documents, max_length - 3)
        else:
            self.segments = pack_segments(documents, max_length - 2)
        self.num_segments = len(self.segments)
        self.epoch_length = -(-self.num_segments // batch_size)

    def __len__(self) -> int:
        return self.epoch_length

    def can_predict(self) -> bool:
        """Returns whether any word has few enough tokens to be predicted as a whole."""
        if not self.options.whole_word:
            return True
        documents, limit = self.documents, self.options.num_predictions(self.length)
        for first in range(0, len(documents.tokens), WORDS_BLOCK):
            block = documents.tokens[first : first + WORDS_BLOCK]
            begins = self.vocabulary.begins_word[block]
            sentences = documents.sentences - first
            begins[sentences[(sentences >= 0) & (sentences < len(block))]] = True
            starts = np.flatnonzero(begins)
            if first + len(block) == len(documents.tokens):
                starts = np.append(starts, len(block))
            if (np.diff(starts) <= limit).any():
                return True
        return False

    def partial_batch(self, k, rows):
        if k < 0 or (self.seed is None and k >= self.epoch_length):
            raise IndexError(k)
        numbers = np.arange(self.batch_size)[rows]
        locate = self._locate_in_order if self.document_order else self._locate
        indices, epochs, reset = locate(k, numbers)
        uniform = self._draw(indices, epochs)
        batch = self._read(indices, uniform[:, 3 * self.length :])
        batch |= self._choose(batch, uniform)
        return batch | {"reset": reset, "ids": indices.astype(np.int32)}

    # --- The segment of each row ---

    def _locate(self, k: int, numbers: np.ndarray):
        """Returns segments (-1: padding), their epochs, and `reset` of rows."""
        epochs, indices = np.divmod(k * self.batch_size + numbers, self.num_segments)
        if self.seed is None:
            indices = np.where(epochs > 0, -1, indices)
        else:
            for epoch in np.unique(epochs):
                order = Permutation(self.num_segments, self.seed, int(epoch))
                chosen = epochs == epoch
                indices[chosen] = order[indices[chosen]]
        return indices, epochs, np.ones(len(indices), bool)

    def _locate_in_order(self, k: int, numbers: np.ndarray):
        """Returns the same as `_locate` where rows are streams of documents."""
        epoch, step = divmod(k, self.epoch_length)
        documents, begins = self._epoch_order(epoch)
        bounds = np.arange(self.batch_size + 1) * self.num_segments // self.batch_size
        positions = bounds[numbers] + step
        is_valid = positions < bounds[numbers + 1]
        place = np.searchsorted(begins, positions, side="right") - 1
        place = np.minimum(place, len(documents) - 1)
        inside = positions - begins[place]
        indices = self.segments.first_segments[documents[place]] + inside
        reset = (inside == 0) | (step == 0) | ~is_valid
        epochs = np.full(len(numbers), epoch)
        return np.where(is_valid, indices, -1), epochs, reset

    @functools.lru_cache(maxsize=2)  # noqa: B019 (batches live as long as the process)
    def _epoch_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the order of the documents, and the position of each one's start."""
        order = np.arange(len(self.documents))
        if self.seed is not None:
            order = Permutation(len(order), self.seed, epoch)[order]
        counts = np.diff(self.segments.first_segments)[order]
        return order, np.cumsum(counts) - counts

    # --- Random numbers ---

    def _draw(self, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Returns numbers in [0, 1), [R, 3 T + 6], by seed, epoch and segment alone.

        They are those of the counter-based Philox generator (Salmon et al. 2011).
        """
        seed = EVALUATION_SEED if self.seed is None else self.seed
        philox = np.random.Philox(key=np.asarray([seed, 0], np.uint64))
        generator, state = np.random.Generator(philox), philox.state
        count = 3 * self.length + PAIR_DRAWS + LENGTH_DRAWS
        uniform = np.zeros((len(indices), count))
        for row, index, epoch in zip(uniform, indices, epochs, strict=True):
            if index >= 0:
                state["state"]["counter"][:] = (0, 0, index, epoch)
                state["buffer_pos"] = 4  # nothing is left of another counter
                philox.state = state
                generator.random(out=row)
        return uniform

    def _lengths(self, uniform: np.ndarray) -> np.ndarray:
        """Returns the number of tokens that each segment should have, [R].

        It is the largest one, `segments.room`, or of a short segment any from 2 to it,
        whose other tokens this epoch does not read.
        """
        room = self.segments.room
        fraction = self.options.short_fraction if self.seed is not None else 0.0
        short = 2 + (uniform[:, 1] * (room - 1)).astype(np.int64)
        return np.where(uniform[:, 0] < fraction, short, room)

    # --- The arrays ---

    def _read(self, indices: np.ndarray, uniform: np.ndarray) -> Batch:
        """Returns the tokens of segments before masking, with what belongs to them.

        Args:
          uniform: PAIR_DRAWS and LENGTH_DRAWS random numbers of each segment.
        """
        is_valid, indices = indices >= 0, np.maximum(indices, 0)
        lengths = self._lengths(uniform[:, PAIR_DRAWS:])
        if self.options.next_sentence:
            draws = uniform[:, :PAIR_DRAWS]
            first, second, is_next = self.segments.divide(indices, lengths, draws)
            batch = {"is_next": (is_next & is_valid).astype(np.int32)}
            ends = 1 + (first[:, 1] - first[:, 0])
            totals = ends + 1 + (second[:, 1] - second[:, 0])
        else:
            starts, stops = self.segments.shorten(indices, lengths)
            first, batch = np.stack([starts, stops], 1), {}
            totals = ends = 1 + stops - starts
            second = first
        places, ends = np.arange(self.length), ends[:, None]
        mask = (places <= totals[:, None]) & is_valid[:, None]
        is_text = mask & (places > 0) & (places != ends) & (places != totals[:, None])
        sources = np.where(
            places < ends, first[:, :1] + places - 1, second[:, :1] + places - ends - 1
        )
        tokens = self.documents.tokens[np.where(is_text, sources, 0)].astype(np.int32)
        tokens = np.where(is_text, tokens, np.where(mask, EOS, PAD))
        tokens[:, 0] = np.where(is_valid, BOS, PAD)
        segment_ids = (mask & (places > ends)).astype(np.int32)
        texts = {"tokens": tokens.astype(np.int32), "segment_ids": segment_ids}
        return batch | texts | {"mask": mask, "is_text": is_text}

    def _choose(self, batch: Batch, uniform: np.ndarray) -> Batch:
        """Returns the tokens with masks, and those that are to be predicted.

        `is_text` is removed from `batch`.
        """
        tokens, is_text = batch["tokens"], batch.pop("is_text")
        count, width = is_text.sum(axis=1), self.options.num_predictions(self.length)
        wanted = np.round(self.options.probability * count).astype(np.int64)
        wanted = np.minimum(np.maximum(wanted, 1), np.minimum(count, width))
        ranks = np.where(is_text, uniform[:, : self.length], 2.0)
        if self.options.whole_word:
            begins = self.vocabulary.begins_word[tokens] | ~np.roll(is_text, 1, axis=1)
            begins &= is_text
            ranks, wanted = rank_words(ranks, begins, is_text, wanted, width)
        order = np.argsort(ranks, axis=1, kind="stable")[:, :width]
        is_chosen = np.arange(width) < wanted[:, None]
        positions = np.sort(np.where(is_chosen, order, self.length), axis=1)
        positions = np.where(is_chosen, positions, 0)
        labels = np.take_along_axis(tokens, positions, axis=1)
        draws = uniform[:, self.length : 3 * self.length]
        action = np.take_along_axis(draws[:, : self.length], positions, axis=1)
        other = np.take_along_axis(draws[:, self.length :], positions, axis=1)
        replaced = self.vocabulary.replace(labels, action, other)
        rows, columns = np.nonzero(is_chosen)
        tokens[rows, positions[rows, columns]] = replaced[rows, columns]
        return {
            "tokens": tokens,
            "positions": positions.astype(np.int32),
            "labels": np.where(is_chosen, labels, PAD).astype(np.int32),
            "weights": is_chosen.astype(np.float32),
        }


def rank_words(
    ranks: np.ndarray,
    begins: np.ndarray,
    is_text: np.ndarray,
    wanted: np.ndarray,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses whole words in random order, without those that exceed the number.

    Where all words exceed it, the first one of up to `width` tokens is chosen.

    Args:
      ranks: random rank of each token, [R, T].
      begins, is_text: tokens that begin a word, and those of words.
      wanted: largest number of tokens to choose, [R].
      width: the number that no text can exceed (P).

    Returns:
      Ranks that put the chosen tokens first, and their number.
    """
    chosen = np.zeros(ranks.shape, bool)
    for row, start in enumerate(begins):
        word = np.cumsum(start) - 1
        lengths = np.bincount(word[is_text[row]], minlength=1)
        room, taken = int(wanted[row]), np.zeros(len(lengths), bool)
        order = np.argsort(ranks[row, start]).tolist()
        for number in order:
            if lengths[number] <= room:
                taken[number] = True
                room -= int(lengths[number])
                if not room:
                    break
        if not taken.any():
            taken[[n for n in order if lengths[n] <= width][:1]] = True
        chosen[row] = is_text[row] & taken[word]
    return np.where(chosen, 0.0, 1.0), chosen.sum(axis=1)


class PieceTable:
    """Ids of a vocabulary that masking depends on.

    Attributes:
      mask_id: id of <mask>.
      begins_word: whether each id is the first piece of a word, [V].
      ordinary: ids of all pieces but special tokens and markers.
    """

    def __init__(self, tokenizer: Tokenizer):
        if MASK not in tokenizer.tags:
            raise UserError(f"the vocabulary has no {MASK}: train it for this task")
        self.mask_id, size = tokenizer.tags[MASK], tokenizer.vocab_size
        markers = set(tokenizer.tags.values())
        self.begins_word = np.ones(size, bool)
        if tokenizer.kind in PIECE_KINDS:
            pieces = tokenizer.pieces(range(size))
            self.begins_word[:] = [PIECE_KINDS[tokenizer.kind](p) for p in pieces]
        ordinary = [i for i in range(len(SPECIAL), size) if i not in markers]
        self.ordinary = np.asarray(ordinary, np.int32)

    def replace(self, labels, action, other) -> np.ndarray:
        """Returns the inputs in place of predicted tokens.

        Args:
          action, other: random numbers in [0, 1) that choose one of the three
            replacements, and the random token.
        """
        drawn = self.ordinary[(other * len(self.ordinary)).astype(np.int64)]
        replaced = np.where(action < RANDOM, drawn, labels)
        return np.where(action < MASKED, self.mask_id, replaced)


# Whether a piece begins a word; in other kinds each token is a word.
PIECE_KINDS = {
    "wordpiece": lambda piece: not piece.startswith(CONTINUATION),
    "sentencepiece": lambda piece: piece.startswith("\u2581"),
    "unigram": lambda piece: piece.startswith("\u2581"),
}
