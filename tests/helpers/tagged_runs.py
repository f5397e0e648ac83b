"""Small runs of taggers on sentences of a user's own."""

import numpy as np

from helpers.labeled_runs import FILLERS, labeled_config

CITIES = ("rome", "oslo")
PEOPLE = ("ann", "bob")


def tagged_sentences(count, seed):
    """Returns words and tags of sentences with a city of two words or a person."""
    random = np.random.default_rng(seed)
    sentences = []
    for _ in range(count):
        words = random.choice(FILLERS, random.integers(1, 5)).tolist()
        tags = ["O"] * len(words)
        if random.random() < 0.5:
            named = ["new", str(random.choice(CITIES))], ["B-CITY", "I-CITY"]
        else:
            named = [str(random.choice(PEOPLE))], ["B-PERSON"]
        place = int(random.integers(len(words) + 1))
        words[place:place], tags[place:place] = named
        sentences.append((words, tags))
    return sentences


def write_sentences(path, sentences):
    """Writes sentences as lines of a word and its tag."""
    blocks = [
        "".join(f"{word}\t{tag}\n" for word, tag in zip(*sentence, strict=True))
        for sentence in sentences
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(blocks), encoding="utf8")


def write_tagged(folder):
    """Writes sentences whose tags can be learned exactly."""
    for seed, (stem, size) in enumerate({"train": 60, "dev": 12, "test": 12}.items()):
        write_sentences(folder / f"{stem}.conll", tagged_sentences(size, seed))


def tagged_config(folder, model="rnn", **changes):
    """Returns a config of a small tagger on the sentences in a folder."""
    cfg = labeled_config(folder, model)
    cfg.task = "tagging"
    cfg.data.update(name="tagged_text", text_column="tokens", tag_column="tags")
    cfg.data.label_column = None
    cfg.update_from_flattened_dict(changes)
    return cfg
