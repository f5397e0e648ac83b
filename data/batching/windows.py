"""Batches of overlapping windows of a text, for models that carry nothing on."""

import numpy as np

from data.token_cache.reader import Encoded
from data.tokenizers.serialization import EOS, PAD


class SlidingWindows:
    """Every token of a text as a label that counts exactly once.

    Window w reads the `length` tokens from w x `stride` on, and its last `stride`
    labels count: each is predicted from at least `length - stride` tokens, those at
    the text's beginning, all of which count, from what there is. With a stride of
    `length` the text is cut into segments. Each row is a window alone.

    Attributes:
      rows: windows that are read side by side.
    """

    def __init__(self, text: Encoded, *, rows: int, length: int, stride: int):
        self.text, self.length, self.stride = text, length, stride
        self.count = 1 + max(0, -(-(len(text.tokens) - length) // stride))
        self.rows = min(rows, self.count)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(rows, T), the only one."""
        return [(self.rows, self.length)]

    def __len__(self) -> int:
        return -(-self.count // self.rows)

    def places(self, k: int) -> np.ndarray:
        """Where in the text the labels of batch k stand, [rows, T]."""
        windows = k * self.rows + np.arange(self.rows)
        return windows[:, None] * self.stride + np.arange(self.length)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if not 0 <= k < len(self):
            raise IndexError(k)
        windows = k * self.rows + np.arange(self.rows)
        places = self.places(k)
        mask = (places < len(self.text.tokens)) & (windows < self.count)[:, None]
        places = np.where(mask, places, 0)
        before = np.where(places == 0, EOS, self.text.tokens[places - 1])
        is_new = np.arange(self.length) >= self.length - self.stride
        counts = mask & (is_new | (windows == 0)[:, None])
        return {
            "tokens": np.where(mask, before, PAD).astype(np.int32),
            "labels": np.where(mask, self.text.tokens[places], PAD).astype(np.int32),
            "weights": counts.astype(np.float32),
            "reset": np.ones(self.rows, bool),
        }
