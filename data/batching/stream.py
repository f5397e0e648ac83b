"""Batches of running text: parallel streams that go on from batch to batch.

The text is a ring of N tokens, cut into B arcs. Stream b begins at arc b and
moves on by T tokens a batch, for ever: row b of batch k+1 continues row b of
batch k, also across epochs, and every token comes out equally often.
"""

import numpy as np

from data.token_cache.reader import Encoded
from data.tokenizers.serialization import EOS, PAD


class TextBatches:
    """`batches[k]` for any k >= 0: training's endless streams."""

    def __init__(self, text: Encoded, *, rows: int, length: int):
        self.text, self.rows, self.length = text, rows, length
        self.starts = np.arange(rows, dtype=np.int64) * len(text.tokens) // rows

    @property
    def epoch_length(self) -> int:
        """Batches after which as many tokens came out as the text has."""
        return -(-len(self.text.tokens) // (self.rows * self.length))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(rows, T), the only one."""
        return [(self.rows, self.length)]

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.part(k, slice(None))

    def num_rows(self, k: int) -> int:
        """Of batch k; all have the same."""
        del k
        return self.rows

    def part(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of batch k, such as those of one host; no others are read."""
        starts = self.starts[rows]
        places = starts[:, None] + k * self.length + np.arange(self.length)
        places %= len(self.text.tokens)
        return {
            "tokens": self.text.tokens[places - 1].astype(np.int32),
            "labels": self.text.tokens[places].astype(np.int32),
            "weights": np.ones(places.shape, np.float32),
            "reset": np.zeros(len(starts), bool),
        }


class TextOnce:
    """Every token of a text as a label exactly once, for evaluation.

    Row b reads its arc from its beginning; its first token is predicted from
    an end of sentence. After its end a row holds padding of weight 0.
    """

    def __init__(self, text: Encoded, *, rows: int, length: int):
        self.text, self.rows, self.length = text, rows, length
        bounds = np.arange(rows + 1, dtype=np.int64) * len(text.tokens) // rows
        self.starts, self.ends = bounds[:-1], bounds[1:]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(rows, T), the only one."""
        return [(self.rows, self.length)]

    def __len__(self) -> int:
        return -(-int((self.ends - self.starts).max()) // self.length)

    def places(self, k: int) -> np.ndarray:
        """Where in the text the labels of batch k stand, [rows, T]."""
        return self.starts[:, None] + k * self.length + np.arange(self.length)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if not 0 <= k < len(self):
            raise IndexError(k)
        places = self.places(k)
        mask = places < self.ends[:, None]
        places = np.where(mask, places, 0)
        first = places == self.starts[:, None]
        before = np.where(first, EOS, self.text.tokens[places - 1])
        return {
            "tokens": np.where(mask, before, PAD).astype(np.int32),
            "labels": np.where(mask, self.text.tokens[places], PAD).astype(np.int32),
            "weights": mask.astype(np.float32),
            "reset": np.full(self.rows, k == 0),
        }
