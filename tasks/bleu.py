"""BLEU, chrF and exact match of texts against references, by sacrebleu (Post 2018)."""

import functools
from importlib import metadata

import sacrebleu
import sacremoses

from utils.languages import primary_language

NUM_SAMPLES = 1000  # bootstrap samples of the sentences for an interval

# Tokenizers of sacrebleu for languages without spaces between words.
TOKENIZERS = {
    **dict.fromkeys(("zh", "yue", "wuu", "hak", "nan", "gan", "hsn", "lzh"), "zh"),
    **dict.fromkeys(("ja", "th", "lo", "km", "my", "bo", "dz"), "char"),
}


def score_text(
    hypotheses: list[str],
    references: list[str],
    language: str,
    *,
    intervals: bool = False,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Returns BLEU (Papineni et al. 2002), chrF (Popovic 2015), and their signatures.

    Args:
      language: code of the target language. The signatures say if it is unknown; the
        text is then tokenized like English.
      intervals: adds a 95% bootstrap interval, "low" to "high", to each score, and
        the score "bleu_moses_lowercase", which older papers report.
    """
    primary = primary_language(language) or "en"
    metrics = {
        "bleu": sacrebleu.BLEU(tokenize=TOKENIZERS.get(primary, "13a")),
        "chrf": ChrF(),
    }
    if intervals and primary not in TOKENIZERS:
        # Forced, so that sacrebleu does not warn of tokenized texts.
        metrics["bleu_moses_lowercase"] = sacrebleu.BLEU(
            tokenize="none", lowercase=True, force=True
        )
    scores, signatures = {}, {}
    for name, metric in metrics.items():
        texts = [hypotheses, references]
        if name == "bleu_moses_lowercase":
            moses = sacremoses.MosesTokenizer(primary)
            tokenize = functools.partial(moses.tokenize, return_str=True, escape=False)
            texts = [[tokenize(text) for text in side] for side in texts]
        num_samples = NUM_SAMPLES if intervals else 1
        result = metric.corpus_score(texts[0], [texts[1]], n_bootstrap=num_samples)
        scores[name] = {"value": result.score}
        if intervals:
            scores[name]["low"] = float(result._mean - result._ci)
            scores[name]["high"] = float(result._mean + result._ci)
        signatures[f"{name}_signature"] = str(metric.get_signature())
    if "bleu_moses_lowercase" in metrics:
        version = f"sacremoses {metadata.version('sacremoses')}, {primary}"
        signatures["bleu_moses_lowercase_tokenizer"] = version
    if primary_language(language) is None:
        signatures["unknown_language"] = language
    return scores, signatures


class ChrF(sacrebleu.CHRF):
    """chrF of sacrebleu whose bootstrap accepts samples without any match.

    sacrebleu returns float32 scores but a float for such samples, and cannot average
    both together.
    """

    def _compute_f_score(self, statistics) -> float:
        return float(super()._compute_f_score(statistics))


def one_line(text: str) -> str:
    """Replaces line breaks by spaces, so that a text fits a file of lines."""
    return text.replace("\r", " ").replace("\n", " ")


def exact_match(hypotheses: list[str], references: list[str]) -> float:
    """Returns the percentage of hypotheses that equal their reference."""
    equal = sum(
        a.strip() == b.strip() for a, b in zip(hypotheses, references, strict=True)
    )
    return 100 * equal / len(references)
