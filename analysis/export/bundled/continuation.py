"""Continuation of a text by a language model."""

import numpy as np
from arrays import pad
from search import Search
from tokenizer import EOS

BREAKS = {ord(c): repr(c)[1:-1] for c in "\n\r\v\f\x85\u2028\u2029"}


class Model(Search):
    """Continuations of numbered lines."""

    def __call__(self, lines):
        text = self.bundle.tokenizer("text")
        prompts = [[EOS, *text.encode(line)] for _, line in lines]
        tokens, mask = pad([prompt[:-1] for prompt in prompts], least=16)
        last = np.full(len(tokens), EOS, np.int32)
        last[: len(prompts)] = [prompt[-1] for prompt in prompts]
        lengths = np.maximum(mask.sum(axis=1), 1).astype(np.int32)
        inputs = {"tokens": tokens, "lengths": lengths, "last_token": last}
        found = self.hypotheses([number for number, _ in lines], inputs)
        for prompt, hypotheses in zip(prompts, found, strict=True):
            yield [
                (text.decode_after(prompt, ids).translate(BREAKS), score)
                for ids, score in hypotheses
            ]
