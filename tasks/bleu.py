"""Default scores of translation: BLEU, chrF and exact match."""

from tasks.text_metrics.base import Texts
from tasks.text_metrics.ngrams import TOKENIZERS, moses_language
from tasks.text_metrics.registry import score_texts


def score_text(
    hypotheses: list[str],
    references: list[str],
    language: str,
    *,
    intervals: bool = False,
) -> tuple[dict[str, dict[str, float]], dict[str, str | int]]:
    """Returns BLEU (Papineni et al. 2002), chrF (Popovic 2015), and their signatures.

    Args:
      language: code of the target language. The signatures say if it is unknown; the
        text is then tokenized like English.
      intervals: adds a 95% bootstrap interval, "low" to "high", to each score, and
        the score "bleu_moses_lowercase", which older papers report.
    """
    names = ["bleu", "chrf"]
    if intervals and moses_language(language) not in TOKENIZERS:
        names.append("bleu_moses_lowercase")
    texts = Texts(hypotheses, [[text] for text in references], language)
    scored = score_texts(names, texts, intervals=intervals)
    return scored.scores, scored.protocol


def one_line(text: str) -> str:
    """Replaces line breaks by spaces, so that a text fits a file of lines."""
    return text.replace("\r", " ").replace("\n", " ")


def exact_match(hypotheses: list[str], references: list[str]) -> float:
    """Returns the percentage of hypotheses that equal their reference."""
    equal = sum(
        a.strip() == b.strip() for a, b in zip(hypotheses, references, strict=True)
    )
    return 100 * equal / len(references)
