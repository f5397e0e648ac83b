"""Language modeling batches: parallel streams, and overlapping windows of a text.

Batch k is a dict of `tokens`, `labels`, `weights` and `reset`, and a function of the
text, the sizes and k alone.
"""

import numpy as np

from data.token_cache import TokenizedSplit
from data.tokenizers.base import EOS, PAD


class LMStreamBatches:
    """`batches[k]` for any k >= 0: endless parallel streams, for training.

    The text is a ring of N tokens, and stream b starts at token b N / batch_size. Each
    batch advances all streams by `length` tokens: row b of batch k + 1 continues row b
    of batch k, across epochs too, and all tokens occur equally often.

    Attributes:
      batch_size: number of streams (B).
      length: tokens of each stream in a batch (T).
    """

    def __init__(self, text: TokenizedSplit, *, batch_size: int, length: int):
        self.text, self.batch_size, self.length = text, batch_size, length
        starts = np.arange(batch_size, dtype=np.int64) * len(text.tokens)
        self.starts = starts // batch_size

    @property
    def epoch_length(self) -> int:
        """Number of batches that hold as many tokens as the text."""
        return -(-len(self.text.tokens) // (self.batch_size * self.length))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape (B, T) of all batches, in a list."""
        return [(self.batch_size, self.length)]

    def num_examples(self, k: int) -> int:
        """Returns the number of rows of batch k."""
        del k
        return self.batch_size

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.partial_batch(k, slice(None))

    def partial_batch(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Returns some rows of batch k, such as those of one host."""
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

    Row b reads its stretch of the text from the start; EOS precedes its first token.
    After its end a row is padding of weight 0.

    Attributes:
      batch_size: number of stretches (B).
      length: tokens of each stretch in a batch (T).
    """

    def __init__(self, text: TokenizedSplit, *, batch_size: int, length: int):
        self.text, self.batch_size, self.length = text, batch_size, length
        bounds = np.arange(batch_size + 1, dtype=np.int64) * len(text.tokens)
        self.starts, self.ends = bounds[:-1] // batch_size, bounds[1:] // batch_size

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape (B, T) of all batches, in a list."""
        return [(self.batch_size, self.length)]

    def __len__(self) -> int:
        return -(-int((self.ends - self.starts).max()) // self.length)

    def label_positions(self, k: int) -> np.ndarray:
        """Returns the positions in the text of the labels of batch k, [B, T]."""
        return self.starts[:, None] + k * self.length + np.arange(self.length)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if not 0 <= k < len(self):
            raise IndexError(k)
        positions = self.label_positions(k)
        mask = positions < self.ends[:, None]
        positions = np.where(mask, positions, 0)
        is_first = positions == self.starts[:, None]
        previous = np.where(is_first, EOS, self.text.tokens[positions - 1])
        return {
            "tokens": np.where(mask, previous, PAD).astype(np.int32),
            "labels": np.where(mask, self.text.tokens[positions], PAD).astype(np.int32),
            "weights": mask.astype(np.float32),
            "reset": np.full(self.batch_size, k == 0),
        }


class SlidingWindows:
    """Batches of overlapping windows, for models that carry no state.

    Window w reads `length` tokens from token w x `stride` on, and its last `stride`
    labels have weight 1. So every token counts exactly once, with at least
    `length - stride` tokens before it, or all there are in the first window. With
    `stride` equal to `length` the text is cut into segments. Each row is one window.

    Attributes:
      batch_size: number of windows of a batch (B).
    """

    def __init__(
        self, text: TokenizedSplit, *, batch_size: int, length: int, stride: int
    ):
        self.text, self.length, self.stride = text, length, stride
        self.num_windows = 1 + max(0, -(-(len(text.tokens) - length) // stride))
        self.batch_size = min(batch_size, self.num_windows)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape (B, T) of all batches, in a list."""
        return [(self.batch_size, self.length)]

    def __len__(self) -> int:
        return -(-self.num_windows // self.batch_size)

    def label_positions(self, k: int) -> np.ndarray:
        """Returns the positions in the text of the labels of batch k, [B, T]."""
        windows = k * self.batch_size + np.arange(self.batch_size)
        return windows[:, None] * self.stride + np.arange(self.length)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if not 0 <= k < len(self):
            raise IndexError(k)
        windows = k * self.batch_size + np.arange(self.batch_size)
        positions = self.label_positions(k)
        is_window = (windows < self.num_windows)[:, None]
        mask = (positions < len(self.text.tokens)) & is_window
        positions = np.where(mask, positions, 0)
        previous = np.where(positions == 0, EOS, self.text.tokens[positions - 1])
        is_new = np.arange(self.length) >= self.length - self.stride
        weights = mask & (is_new | (windows == 0)[:, None])
        return {
            "tokens": np.where(mask, previous, PAD).astype(np.int32),
            "labels": np.where(mask, self.text.tokens[positions], PAD).astype(np.int32),
            "weights": weights.astype(np.float32),
            "reset": np.ones(self.batch_size, bool),
        }
