"""Language modeling batches: parallel streams, and overlapping windows of a text.

Batch k is a dict of `tokens`, `labels`, `weights` and `reset`, and a function of the
text, the sizes and k alone.
"""

import numpy as np

from data.batching.base import Batch, TrainBatches
from data.token_cache import TokenizedSplit
from data.tokenizers.base import EOS, PAD


class LMStreamBatches(TrainBatches):
    """`batches[k]` for any k >= 0: endless parallel streams, for training.

    The text is a ring of N tokens, and stream b starts at token b N / batch_size. Each
    batch, [B, T], advances all streams by T = `length` tokens: row b of batch k + 1
    continues row b of batch k, across epochs too, and all tokens occur equally often.
    """

    def __init__(self, text: TokenizedSplit, *, batch_size: int, length: int):
        self.text, self.batch_size, self.length = text, batch_size, length
        self.shapes = [(batch_size, length)]
        self.epoch_length = -(-len(text.tokens) // (batch_size * length))
        starts = np.arange(batch_size, dtype=np.int64) * len(text.tokens)
        self.starts = starts // batch_size

    def partial_batch(self, k, rows):
        starts = self.starts[rows]
        positions = starts[:, None] + k * self.length + np.arange(self.length)
        positions %= len(self.text.tokens)
        return {
            "tokens": self.text.tokens[positions - 1].astype(np.int32),
            "labels": self.text.tokens[positions].astype(np.int32),
            "weights": np.ones(positions.shape, np.float32),
            "reset": np.zeros(len(starts), bool),
        }


class LMEvalBatches:
    """Batches with every token of a text as a label exactly once.

    Row b of the batches, [B, T], reads its stretch of the text from the start; EOS
    precedes its first token. After its end a row is padding of weight 0.
    """

    def __init__(self, text: TokenizedSplit, *, batch_size: int, length: int):
        self.text, self.batch_size, self.length = text, batch_size, length
        self.shapes = [(batch_size, length)]
        bounds = np.arange(batch_size + 1, dtype=np.int64) * len(text.tokens)
        self.starts, self.ends = bounds[:-1] // batch_size, bounds[1:] // batch_size

    def __len__(self) -> int:
        return -(-int((self.ends - self.starts).max()) // self.length)

    def label_positions(self, k: int) -> np.ndarray:
        """Returns the positions in the text of the labels of batch k, [B, T]."""
        return self.starts[:, None] + k * self.length + np.arange(self.length)

    def __getitem__(self, k: int) -> Batch:
        if not 0 <= k < len(self):
            raise IndexError(k)
        positions = self.label_positions(k)
        mask = positions < self.ends[:, None]
        is_first = positions == self.starts[:, None]
        reset = np.full(self.batch_size, k == 0)
        return evaluation_batch(self.text, positions, mask, is_first, mask, reset)


class SlidingWindows:
    """Batches of overlapping windows, for models that carry no state.

    Window w reads `length` tokens from token w x `stride` on, and its last `stride`
    labels have weight 1. So every token counts exactly once, with at least
    `length - stride` tokens before it, or all there are in the first window. With
    `stride` equal to `length` the text is cut into segments. Each row is one window.
    """

    def __init__(
        self, text: TokenizedSplit, *, batch_size: int, length: int, stride: int
    ):
        self.text, self.length, self.stride = text, length, stride
        self.num_windows = 1 + max(0, -(-(len(text.tokens) - length) // stride))
        self.batch_size = min(batch_size, self.num_windows)
        self.shapes = [(self.batch_size, length)]

    def __len__(self) -> int:
        return -(-self.num_windows // self.batch_size)

    def _windows(self, k: int) -> np.ndarray:
        """Returns the number of the window in each row of batch k, [B, 1]."""
        return k * self.batch_size + np.arange(self.batch_size)[:, None]

    def label_positions(self, k: int) -> np.ndarray:
        """Returns the positions in the text of the labels of batch k, [B, T]."""
        return self._windows(k) * self.stride + np.arange(self.length)

    def __getitem__(self, k: int) -> Batch:
        if not 0 <= k < len(self):
            raise IndexError(k)
        windows, positions = self._windows(k), self.label_positions(k)
        mask = (positions < len(self.text.tokens)) & (windows < self.num_windows)
        is_new = np.arange(self.length) >= self.length - self.stride
        weights, reset = mask & (is_new | (windows == 0)), np.ones(len(windows), bool)
        is_first = positions == 0
        return evaluation_batch(self.text, positions, mask, is_first, weights, reset)


def evaluation_batch(
    text: TokenizedSplit,
    positions: np.ndarray,
    mask: np.ndarray,
    is_first: np.ndarray,
    weights: np.ndarray,
    reset: np.ndarray,
) -> Batch:
    """Returns the labels at some positions of a text, each after the token before it.

    Args:
      positions, mask: positions of the labels, [B, T], and which are not padding.
      is_first: labels that EOS precedes, instead of the token before it.
      weights: weights of the labels.
      reset: rows whose carry is to be reset.
    """
    positions = np.where(mask, positions, 0)
    previous = np.where(is_first, EOS, text.tokens[positions - 1])
    return {
        "tokens": np.where(mask, previous, PAD).astype(np.int32),
        "labels": np.where(mask, text.tokens[positions], PAD).astype(np.int32),
        "weights": weights.astype(np.float32),
        "reset": reset,
    }
