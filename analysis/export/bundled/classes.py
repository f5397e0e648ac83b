"""Labels or grades of texts and of pairs of texts, by probability."""

import numpy as np
from encoder import Encoder
from tokenizer import BOS, EOS


class Model(Encoder):
    """Labels of numbered lines."""

    def __call__(self, lines):
        inputs = self.inputs([self.encode(*line) for line in lines])
        for logits in self.predict(inputs)["logits"][: len(lines)]:
            if self.about["regression"]:
                yield [(f"{logits[0]:.4f}", 1.0)]
                continue
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            order = np.argsort(-chances, kind="stable").tolist()
            yield [(self.about["labels"][i], float(chances[i])) for i in order]

    def encode(self, number, line):
        """Returns the ids of a line and the number of those of the first text."""
        first, tab, second = line.partition("\t")
        if not self.about["pairs"]:
            ids = self.text.encode(line)[: self.most - 2]
            return [BOS, *ids, EOS], len(ids) + 2
        if not tab:
            raise ValueError(f"line {number + 1} has no tab between its two texts")
        first, second = self.text.encode(first), self.text.encode(second)
        while len(first) + len(second) > self.most - 3:
            (first if len(first) > len(second) else second).pop()
        return [BOS, *first, EOS, *second, EOS], len(first) + 2
