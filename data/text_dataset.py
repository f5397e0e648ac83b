"""A running text ready for one experiment: its streams and windows."""

from collections.abc import Sequence

from data.batching.base import Batch
from data.batching.stream import LMEvalBatches, LMStreamBatches, SlidingWindows
from data.corpus import TRAIN
from data.dataset import Dataset
from utils.errors import UserError


class TextDataset(Dataset):
    """A tokenized text, read in its order."""

    def train_batches(self) -> LMStreamBatches:
        text = self._read_split(TRAIN)["text"]
        batch_size, length = self.cfg.batch_size, self.cfg.segment_length
        if batch_size * length > len(text.tokens):
            raise UserError(
                f"data.batch_size={batch_size} x data.segment_length={length} are "
                f"more than the text's {len(text.tokens)} tokens: lower one of them"
            )
        return LMStreamBatches(text, batch_size=batch_size, length=length)

    def evaluation_batches(
        self,
        split: str,
        *,
        batch_size: int,
        length: int | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> Sequence[Batch]:
        """Returns batches with every token exactly once.

        Args:
          batch_size: parallel streams.
          length: tokens by which a batch advances a stream; None: as in training.
          window: length of sliding windows, instead of streams.
          stride: tokens by which windows advance; None: `window`.
        """
        text = self._read_split(split)["text"]
        if window:
            sizes = {"length": window, "stride": stride or window}
            return SlidingWindows(text, batch_size=batch_size, **sizes)
        length = length or self.cfg.segment_length
        batch_size = min(batch_size, max(1, len(text.tokens) // 2))
        return LMEvalBatches(text, batch_size=batch_size, length=length)
