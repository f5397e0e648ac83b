"""ROUGE-1, -2, -L and -Lsum (Lin 2004), by rouge-score. F measures, times 100.

Of several references the one with the best score counts. English is tokenized and
stemmed by rouge-score, as papers report it; its tokenizer has no other letters than a
to z, so that other languages have the words of `words.py`, without stemming.
"""

import functools
import re
from importlib import metadata

from tasks.text_metrics.base import RowStatistics, Texts, mean_statistics
from tasks.text_metrics.words import is_english, split_words

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
CACHE_SIZE = 2**16  # texts whose words are kept: references are scored often


class _UnicodeTokenizer:
    """Tokenizer of rouge-score's interface for languages other than English."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


class _CachedTokenizer:
    """Tokenizer that keeps the words of the last texts."""

    def __init__(self, tokenizer):
        self.tokenize = functools.lru_cache(CACHE_SIZE)(tokenizer.tokenize)


@functools.cache
def _tokenizer(english: bool):
    from rouge_score import tokenizers  # imports nltk

    own = _UnicodeTokenizer()
    return _CachedTokenizer(tokenizers.DefaultTokenizer(True) if english else own)


def rouge1(texts: Texts) -> RowStatistics:
    """Computes ROUGE-1, the overlap of words."""
    return _rouge("rouge1", texts)


def rouge2(texts: Texts) -> RowStatistics:
    """Computes ROUGE-2, the overlap of pairs of words."""
    return _rouge("rouge2", texts)


def rougeL(texts: Texts) -> RowStatistics:
    """Computes ROUGE-L, by the longest common subsequence of whole texts."""
    return _rouge("rougeL", texts)


def rougeLsum(texts: Texts) -> RowStatistics:
    """Computes ROUGE-Lsum, by the common subsequences of sentences.

    A sentence ends at a line break or at one of .!? and a space, or at 。！？.
    """
    return _rouge("rougeLsum", texts, split_sentences)


def _rouge(name: str, texts: Texts, prepare=str) -> RowStatistics:
    from rouge_score import rouge_scorer

    english = is_english(texts.language)
    scorer = rouge_scorer.RougeScorer([name], tokenizer=_tokenizer(english))
    values = []
    for hypothesis, references in zip(texts.hypotheses, texts.references, strict=True):
        prepared = list(map(prepare, references))
        scores = scorer.score_multi(prepared, prepare(hypothesis))
        values.append(scores[name].fmeasure)
    kind = "English words, Porter stemmer" if english else "words of Unicode"
    version = f"rouge-score {metadata.version('rouge-score')}"
    sentences = ", sentences end at .!?" if prepare is split_sentences else ""
    protocol = {f"{name}_signature": f"{version}, F1, {kind}{sentences}"}
    return mean_statistics(values, protocol)


def split_sentences(text: str) -> str:
    """Puts a line break after each sentence of a text."""
    return SENTENCE_END.sub("\n", text)
