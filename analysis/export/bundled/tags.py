"""Tags of words, and perhaps the intent of their sentence."""

import numpy as np
from encoder import Encoder
from tokenizer import BOS, EOS, UNK


class Model(Encoder):
    """Tags of numbered lines."""

    def __call__(self, lines):
        sentences = [self.split(line) for _, line in lines]
        rows, starts = zip(*map(self.encode, sentences), strict=True)
        inputs = self.inputs(rows)
        shape = len(inputs["tokens"]), inputs["tokens"].shape[1] - 2
        inputs["word_starts"] = np.zeros(shape, np.int32)
        for row, begins in enumerate(starts):
            inputs["word_starts"][row, : len(begins)] = begins
        found = self.predict(inputs)
        for row, words in enumerate(sentences):
            tags = [self.about["tags"][i] for i in found["tags"][row]]
            tags = tags[: len(starts[row])] + ["O"] * (len(words) - len(starts[row]))
            text = " ".join(tags)
            if self.about["intents"]:
                text += f"\t{self.about['intents'][found['intents'][row]]}"
            yield [(text, float(np.exp(found["log_prob"][row])))]

    def split(self, line):
        """Returns the words of a line, or its characters where no space is in it."""
        text = line.strip()
        is_text = self.about["tokenizer"] == "char" and " " not in text
        return list(text) if is_text else text.split()

    def encode(self, words):
        """Returns a row of `inputs`, and the first token of each word."""
        tokens = [self.text.encode(word) or [UNK] for word in words]
        begins = np.cumsum([1, *map(len, tokens)])[:-1]
        ids = [i for part in tokens for i in part][: self.most - 2]
        return ([BOS, *ids, EOS], len(ids) + 2), begins[begins < self.most - 1]
