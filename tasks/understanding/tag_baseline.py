"""Baseline of tagging: the most frequent tag of a word after the word before it."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

Words = Sequence[str]


def most_frequent_tags(
    train: Sequence[tuple[Words, Words]], sentences: Sequence[Words]
) -> list[list[str]]:
    """Returns the most frequent tag of each word after the word before it.

    A pair of words that training lacks has the tag of the word alone, and a word that
    it lacks the most frequent tag of all. Of equally frequent tags the first wins.

    Args:
      train: words and tags of each training sentence.
    """
    counts: dict[Hashable, Counter] = defaultdict(Counter)
    for words, tags in train:
        for previous, word, tag in zip(["", *words], words, tags, strict=False):
            for key in ((previous, word), word, None):
                counts[key][tag] += 1
    best = {key: found.most_common(1)[0][0] for key, found in counts.items()}

    def tag_of(previous: str, word: str) -> str:
        known = (key for key in ((previous, word), word, None) if key in best)
        return best[next(known)]

    return [list(map(tag_of, ["", *words], words)) for words in sentences]
