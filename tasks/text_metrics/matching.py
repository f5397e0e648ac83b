"""Exact match of whole texts, and F1 of their words as SQuAD defines it."""

import collections
import re
import string

from tasks.text_metrics.base import RowStatistics, Texts, mean_statistics
from tasks.text_metrics.words import is_english, split_words

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(texts: Texts) -> RowStatistics:
    """Computes the percentage of hypotheses that equal one of their references.

    Space at the ends does not count.
    """
    values = [
        hypothesis.strip() in [reference.strip() for reference in references]
        for hypothesis, references in zip(
            texts.hypotheses, texts.references, strict=True
        )
    ]
    return mean_statistics(values)


def token_f1(texts: Texts) -> RowStatistics:
    """Computes the mean F1 of words with the best of the references.

    English words are normalized as SQuAD does (Rajpurkar et al. 2016): lower case,
    without punctuation and articles; those of other languages are from `words.py`.
    """
    english = is_english(texts.language)
    split = squad_words if english else split_words
    values = [
        max(word_f1(split(hypothesis), split(reference)) for reference in references)
        for hypothesis, references in zip(
            texts.hypotheses, texts.references, strict=True
        )
    ]
    kind = "SQuAD normalisation" if english else "words of Unicode"
    return mean_statistics(values, {"token_f1_words": kind})


def squad_words(text: str) -> list[str]:
    """Returns words as the evaluation script of SQuAD normalizes them."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def word_f1(hypothesis: list[str], reference: list[str]) -> float:
    """Returns F1 of two bags of words; of an empty one, whether both are empty."""
    if not hypothesis or not reference:
        return float(hypothesis == reference)
    common = collections.Counter(hypothesis) & collections.Counter(reference)
    return 2 * sum(common.values()) / (len(hypothesis) + len(reference))
