"""The most probable texts in place of <mask>."""

import heapq
import re

import numpy as np
from arrays import power_of_2
from encoder import Encoder
from tokenizer import BOS, EOS


class Model(Encoder):
    """Fillings of the masks of numbered lines."""

    def __call__(self, lines):
        parts = [re.split(r"<mask>|\[MASK\]", line) for _, line in lines]
        encoded = [
            self.encode(n, row) for (n, _), row in zip(lines, parts, strict=True)
        ]
        inputs = self.inputs([(ids, len(ids)) for ids, _ in encoded])
        most = power_of_2(max(len(places) for _, places in encoded))
        inputs["positions"] = np.zeros((len(inputs["tokens"]), most), np.int32)
        for row, (_, places) in enumerate(encoded):
            inputs["positions"][row, : len(places)] = places
        found = self.predict(inputs)
        columns = found["probabilities"].tolist(), found["ids"].tolist()
        for texts, *choices in zip(parts, *columns, strict=False):
            best = self.best(zip(texts[1:], *choices, strict=False))
            yield [(self.fill(texts, chosen), score) for score, chosen in best]

    def encode(self, number, parts):
        """Returns the ids of a line and the positions of its masks."""
        if len(parts) < 2:
            raise ValueError(f"line {number + 1} has no <mask> to fill")
        ids, places = [BOS], []
        for index, part in enumerate(parts):
            if index:
                places.append(len(ids))
                ids.append(self.text.tags["<mask>"])
            ids += self.text.encode_part(part, index > 0, index < len(parts) - 1)
        if places[-1] >= self.most - 1:
            raise ValueError(
                f"line {number + 1} has a <mask> beyond its first {self.most} tokens"
            )
        return [*ids[: self.most - 1], EOS], places

    def best(self, masks):
        """Returns the most probable combinations of tokens, (score, tokens) each."""
        best, most = [(1.0, ())], self.about["fillings"]
        for _, probabilities, ids in masks:
            choices = list(zip(probabilities, ids, strict=True))[:most]
            longer = [(s * p, (*chosen, i)) for s, chosen in best for p, i in choices]
            best = heapq.nlargest(most, longer, key=lambda scored: scored[0])
        return best

    def fill(self, parts, chosen):
        text = parts[0]
        for number, part in zip(chosen, parts[1:], strict=True):
            text = self.text.join(text, number) + part
        return text
