"""Models that generate text by a search."""

import numpy as np


class Search:
    """Base class of the models that generate text."""

    def __init__(self, bundle, search, seed):
        self.bundle, self.about = bundle, bundle.about
        self.search = search or self.about["search"]
        self.seed = np.uint32(self.about["seed"] if seed is None else seed)

    def hypotheses(self, numbers, inputs):
        """Yields lists of token ids without the end symbol, and their scores."""
        ids = np.full(len(next(iter(inputs.values()))), -1, np.int32)
        ids[: len(numbers)] = numbers
        found = self.bundle.call(self.search, {**inputs, "ids": ids, "seed": self.seed})
        columns = (found[key] for key in ("tokens", "scores", "lengths"))
        for _, *row in zip(numbers, *columns, strict=False):
            yield [
                (tokens[: max(length - 1, 0)].tolist(), float(score))
                for tokens, score, length in zip(*row, strict=True)
                if score != -np.inf
            ]
