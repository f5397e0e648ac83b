"""From lines of text to the inputs of a model's programs, and back from outputs.

A class for each kind of model is called with numbered lines, none of which is blank,
and returns a list of (text, score) for each.
"""

import heapq
import re

import numpy as np
from text import BOS, EOS, PAD, UNK, load_tokenizer

MASKS = re.compile(r"<mask>|\[MASK\]")
MARKERS = re.compile("(</?e[12]>)")
MARKER_NAMES = ("<e1>", "</e1>", "<e2>", "</e2>")
BREAKS = {ord(c): repr(c)[1:-1] for c in "\n\r\v\f\x85\u2028\u2029"}


def power_of_2(size: int, least: int = 1) -> int:
    """Rounds a size up to a power of 2, so that few programs are compiled."""
    return max(least, 1 << (max(size, 1) - 1).bit_length())


def pad(rows: list[list[int]], least: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Returns token ids as an array, and the mask of the tokens."""
    shape = power_of_2(len(rows)), power_of_2(max(map(len, rows)), least)
    tokens, mask = np.full(shape, PAD, np.int32), np.zeros(shape, bool)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
    return tokens, mask


class Search:
    """Base class of the models that generate text."""

    def __init__(self, bundle, search, seed):
        self.bundle, self.about = bundle, bundle.about
        self.search = search or self.about["search"]
        self.seed = np.uint32(self.about["seed"] if seed is None else seed)
        tokenizers = {k: load_tokenizer(v) for k, v in bundle.sides.items()}
        self.source = tokenizers.get("source")
        self.target = tokenizers.get("target") or tokenizers.get("text")

    def hypotheses(self, numbers, inputs):
        """Yields lists of token ids without the end symbol, and their scores."""
        ids = np.full(len(next(iter(inputs.values()))), -1, np.int32)
        ids[: len(numbers)] = numbers
        found = self.bundle.call(self.search, {**inputs, "ids": ids, "seed": self.seed})
        for row in range(len(numbers)):
            tokens, scores, lengths = (
                found[key][row] for key in ("tokens", "scores", "lengths")
            )
            yield [
                (tokens[i, : max(lengths[i] - 1, 0)].tolist(), float(scores[i]))
                for i in np.flatnonzero(scores != -np.inf)
            ]


class Translate(Search):
    """Translation of a source, or any other text from a text."""

    def __call__(self, lines):
        about, most = self.about, self.about["max_source_length"]
        rows = [[*self.source.encode(text)[: most - 1], EOS] for _, text in lines]
        source, mask = pad(rows)
        limits = about["max_length_ratio"] * mask.sum(axis=1) + 10
        limits = np.minimum(limits, about["max_length"]).astype(np.int32)
        inputs = {"source": source, "source_mask": mask, "limits": limits}
        for found in self.hypotheses([number for number, _ in lines], inputs):
            texts = [(self.target.decode(ids), score) for ids, score in found]
            yield [(re.sub("[\r\n]", " ", text), score) for text, score in texts]


class Continue(Search):
    """Continuation of a text by a language model."""

    def __call__(self, lines):
        prompts = [[EOS, *self.target.encode(text)] for _, text in lines]
        tokens, mask = pad([prompt[:-1] for prompt in prompts], least=16)
        last = np.full(len(tokens), EOS, np.int32)
        last[: len(prompts)] = [prompt[-1] for prompt in prompts]
        lengths = np.maximum(mask.sum(axis=1), 1).astype(np.int32)
        inputs = {"tokens": tokens, "lengths": lengths, "last_token": last}
        found = self.hypotheses([number for number, _ in lines], inputs)
        for prompt, hypotheses in zip(prompts, found, strict=True):
            yield [
                (self.target.decode_after(prompt, ids).translate(BREAKS), score)
                for ids, score in hypotheses
            ]


class Label:
    """Labels or grades of texts, pairs of texts and relations, by probability."""

    def __init__(self, bundle, search, seed):
        self.bundle, self.about = bundle, bundle.about
        self.most = self.about["max_length"]
        self.text = load_tokenizer(bundle.sides["text"])

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

    def predict(self, inputs):
        return self.bundle.call("predict", inputs)

    def inputs(self, rows):
        """Returns the arrays of (ids, number of those of the first text, ...)."""
        tokens, mask = pad([ids for ids, *_ in rows])
        places = np.arange(tokens.shape[1])
        firsts = np.full((len(tokens), 1), tokens.shape[1])
        firsts[: len(rows), 0] = [first for _, first, *_ in rows]
        segments = ((places >= firsts) & mask).astype(np.int32)
        inputs = {"tokens": tokens, "segment_ids": segments, "mask": mask}
        if self.about["kind"] == "relations":
            inputs["entities"] = np.zeros((len(tokens), 2), np.int32)
            inputs["entities"][: len(rows)] = [found for *_, found in rows]
        return inputs

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


class Relations(Label):
    """Relation of two marked entities."""

    def encode(self, number, line):
        ids, entities = [], {}
        for part in MARKERS.split(line):
            if part in MARKER_NAMES:
                entities[part] = 1 + len(ids)
                ids.append(self.text.tags[part])
            elif part.strip():
                ids += self.text.encode(part)
        if any(line.count(name) != 1 for name in MARKER_NAMES):
            names = " ".join(MARKER_NAMES)
            raise ValueError(f"line {number + 1}: {names} must occur once each")
        room = self.most - 2
        found = [entities[name] for name in MARKER_NAMES[::2]]
        found = [place if place <= room else 0 for place in found]
        ids = [BOS, *ids[:room], EOS]
        return ids, len(ids), found


class Tags(Label):
    """Tags of words, and perhaps the intent of their sentence."""

    def __call__(self, lines):
        rows, starts = [], []
        split = self.about["tokenizer"] == "char"
        sentences = [
            list(line.strip()) if split and " " not in line.strip() else line.split()
            for _, line in lines
        ]
        for words in sentences:
            tokens = [self.text.encode(word) or [UNK] for word in words]
            begins = np.cumsum([1, *map(len, tokens)])[:-1]
            ids = [i for part in tokens for i in part][: self.most - 2]
            rows.append(([BOS, *ids, EOS], len(ids) + 2))
            starts.append(begins[begins < self.most - 1])
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


class Fill(Label):
    """The most probable texts in place of <mask>."""

    def __call__(self, lines):
        parts = [MASKS.split(line) for _, line in lines]
        numbers = [number for number, _ in lines]
        encoded = list(map(self.encode_parts, numbers, parts))
        inputs = self.inputs([(ids, len(ids)) for ids, _ in encoded])
        most = power_of_2(max(len(places) for _, places in encoded))
        inputs["positions"] = np.zeros((len(inputs["tokens"]), most), np.int32)
        for row, (_, places) in enumerate(encoded):
            inputs["positions"][row, : len(places)] = places
        found = self.predict(inputs)
        for row, texts in enumerate(parts):
            best = [(1.0, ())]
            for place in range(len(texts) - 1):
                choices = zip(
                    found["probabilities"][row, place].tolist(),
                    found["ids"][row, place].tolist(),
                    strict=True,
                )
                choices, most = list(choices), self.about["fillings"]
                longer = [
                    (score * p, (*chosen, number))
                    for score, chosen in best
                    for p, number in choices[:most]
                ]
                best = heapq.nlargest(most, longer, key=lambda scored: scored[0])
            yield [(self.fill(texts, chosen), score) for score, chosen in best]

    def encode_parts(self, number, parts):
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

    def fill(self, parts, chosen):
        text = parts[0]
        for number, part in zip(chosen, parts[1:], strict=True):
            text = self.text.join(text, number) + part
        return text


KINDS = {
    "translate": Translate,
    "continue": Continue,
    "classes": Label,
    "relations": Relations,
    "tags": Tags,
    "fill": Fill,
}
