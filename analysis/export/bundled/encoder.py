"""Models that read texts and predict labels."""

import numpy as np
from arrays import pad


class Encoder:
    """Base class of the models that predict labels."""

    def __init__(self, bundle, search, seed):
        self.bundle, self.about = bundle, bundle.about
        self.most = self.about["max_length"]
        self.text = bundle.tokenizer("text")

    def predict(self, inputs):
        return self.bundle.call("predict", inputs)

    def inputs(self, rows):
        """Returns the arrays of (ids, number of those of the first text, ...)."""
        tokens, mask = pad([ids for ids, *_ in rows])
        firsts = np.full((len(tokens), 1), tokens.shape[1])
        firsts[: len(rows), 0] = [first for _, first, *_ in rows]
        segments = (np.arange(tokens.shape[1]) >= firsts) & mask
        segments = segments.astype(np.int32)
        return {"tokens": tokens, "segment_ids": segments, "mask": mask}
