"""Relation of two entities that a text marks."""

import re

import classes
import numpy as np
from tokenizer import BOS, EOS

MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")


class Model(classes.Model):
    """Relations of numbered lines."""

    def encode(self, number, line):
        if any(line.count(name) != 1 for name in MARKERS):
            names = " ".join(MARKERS)
            raise ValueError(f"line {number + 1}: {names} must occur once each")
        ids, entities = [], {}
        for part in re.split("(</?e[12]>)", line):
            if part in MARKERS:
                entities[part] = 1 + len(ids)
                ids.append(self.text.tags[part])
            elif part.strip():
                ids += self.text.encode(part)
        room = self.most - 2
        found = [entities[name] for name in MARKERS[::2]]
        found = [place if place <= room else 0 for place in found]
        ids = [BOS, *ids[:room], EOS]
        return ids, len(ids), found

    def inputs(self, rows):
        inputs = super().inputs(rows)
        inputs["entities"] = np.zeros((len(inputs["tokens"]), 2), np.int32)
        inputs["entities"][: len(rows)] = [found for *_, found in rows]
        return inputs
