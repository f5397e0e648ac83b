"""Translation of a source, or any other text from a text."""

import re

import numpy as np
from arrays import pad
from search import Search
from tokenizer import EOS


class Model(Search):
    """Translation of numbered lines."""

    def __call__(self, lines):
        about, most = self.about, self.about["max_source_length"]
        source, target = map(self.bundle.tokenizer, ("source", "target"))
        tokens, mask = pad([[*source.encode(s)[: most - 1], EOS] for _, s in lines])
        limits = about["max_length_ratio"] * mask.sum(axis=1) + 10
        limits = np.minimum(limits, about["max_length"]).astype(np.int32)
        inputs = {"source": tokens, "source_mask": mask, "limits": limits}
        for found in self.hypotheses([number for number, _ in lines], inputs):
            texts = [(target.decode(ids), score) for ids, score in found]
            yield [(re.sub("[\r\n]", " ", text), score) for text, score in texts]
