"""Baselines of classification: the most frequent label, and naive Bayes.

Naive Bayes is multinomial over which features a text has (Wang and Manning 2012):
1-grams and 2-grams of words, or of characters where texts have no spaces. Its
smoothing is chosen by cross-validation on the training texts.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

SMOOTHING = (1.0, 0.3, 0.1, 0.03)  # counts that are added to that of each feature
NUM_FOLDS = 5
MARKER = re.compile(r"(</?e[12]>)")  # of the entities of a relation

Example = tuple[str, ...]  # a text, or both of a pair


def majority_label(labels: Sequence[str]) -> str:
    """Returns the most frequent label, of equally frequent ones the first in order."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def naive_bayes_labels(
    train: Sequence[Example], labels: Sequence[str], examples: Sequence[Example]
) -> list[str]:
    """Returns the label that naive Bayes predicts for each text or pair of texts.

    Args:
      train: training examples, which have `labels`.
    """
    # scikit-learn takes a second to import.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.naive_bayes import MultinomialNB

    by_character = lack_spaces([text for texts in train for text in texts])
    vectorizer = CountVectorizer(
        analyzer=lambda texts: features(texts, by_character=by_character), binary=True
    )
    counts = vectorizer.fit_transform(train)
    model = MultinomialNB()
    if len(train) >= 2 * NUM_FOLDS:
        folds = KFold(NUM_FOLDS, shuffle=True, random_state=0)
        model = GridSearchCV(model, {"alpha": SMOOTHING}, cv=folds)
    model.fit(counts, labels)
    return model.predict(vectorizer.transform(examples)).tolist()


def lack_spaces(texts: Sequence[str]) -> bool:
    """Returns whether words are not divided by spaces: few of the characters are."""
    num_spaces = sum(text.count(" ") for text in texts)
    return num_spaces < 0.05 * sum(map(len, texts))


def features(texts: Example, *, by_character: bool) -> list[str]:
    """Returns the features of a text or a pair.

    Those of a pair say whether both texts have the n-gram or which one of them; those
    of a text with marked entities whether it is in an entity or between both.
    """
    if len(texts) == 2:
        first, second = (set(ngrams(text, by_character)) for text in texts)
        parts = {"both": first & second, "1": first - second, "2": second - first}
    else:
        regions = entity_regions(texts[0]) or [("", texts[0])]
        parts = {name: ngrams(part, by_character) for name, part in regions}
    return [f"{name}|{gram}" for name, grams in parts.items() for gram in grams]


def ngrams(text: str, by_character: bool) -> list[str]:
    """Returns the words or characters of a text, and the pairs of neighbours."""
    units = list(text) if by_character else text.split()
    return [*units, *map(" ".join, itertools.pairwise(units))]


def entity_regions(text: str) -> list[tuple[str, str]]:
    """Returns marked entities and the text between them; nothing without markers.

    The text between has another name where the second entity comes first.
    """
    _, *parts = MARKER.split(text)
    regions, inside = [], ""
    for marker, part in zip(parts[::2], parts[1::2], strict=True):
        name = marker.strip("</>")
        inside = "" if marker.startswith("</") else name
        regions.append((inside or f"after {name}", part))
    return regions[:-1]  # what follows both
