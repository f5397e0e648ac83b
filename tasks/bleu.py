"""Scores of texts against references, by sacrebleu (Post 2018)."""

import functools
from importlib import metadata

import sacrebleu
import sacremoses

BOOTSTRAP = 1000  # resamplings of the sentences behind an interval

TOKENIZERS = {"zh": "zh", "ja": "char"}  # sacrebleu's, where words are not spaced


def score_text(
    hypotheses: list[str],
    references: list[str],
    language: str,
    *,
    intervals: bool = False,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """BLEU (Papineni et al. 2002) and chrF (Popovic 2015), and their signatures.

    Args:
      intervals: adds `low` and `high`, a 95% interval by bootstrap, and beside BLEU
        `bleu_moses_lowercase`, which figures of older papers compare with.
    """
    metrics = metrics_of(language)
    if not intervals:
        metrics.pop("bleu_moses_lowercase", None)
    scores, signatures = {}, {}
    samples = BOOTSTRAP if intervals else 1
    for name, metric in metrics.items():
        texts = [prepared(name, side, language) for side in (hypotheses, references)]
        result = metric.corpus_score(texts[0], [texts[1]], n_bootstrap=samples)
        scores[name] = {"value": result.score}
        if intervals:
            scores[name]["low"] = float(result._mean - result._ci)
            scores[name]["high"] = float(result._mean + result._ci)
        signatures[f"{name}_signature"] = str(metric.get_signature())
        if name == "bleu_moses_lowercase":
            told = f"sacremoses {metadata.version('sacremoses')}, {language or 'en'}"
            signatures[f"{name}_tokenizer"] = told
    return scores, signatures


class ChrF(sacrebleu.CHRF):
    """sacrebleu's, of which a bootstrap can also hold samples without a match.

    Its own are float32 but for those, which are float, and have no mean together.
    """

    def _compute_f_score(self, statistics) -> float:
        return float(super()._compute_f_score(statistics))


def metrics_of(language: str) -> dict:
    """sacrebleu's metrics by name, each for texts as `prepared` gives them."""
    metrics = {
        "bleu": sacrebleu.BLEU(tokenize=TOKENIZERS.get(language, "13a")),
        "chrf": ChrF(),
    }
    if language not in TOKENIZERS:
        # Forced, or sacrebleu warns of texts that are tokenised already.
        moses = sacrebleu.BLEU(tokenize="none", lowercase=True, force=True)
        metrics["bleu_moses_lowercase"] = moses
    return metrics


def prepared(name: str, texts: list[str], language: str) -> list[str]:
    """Texts as the metric of a name takes them: tokenised by Moses, or as they are."""
    if name != "bleu_moses_lowercase":
        return texts
    tokenize = moses_tokenizer(language)
    return [tokenize(text, return_str=True, escape=False) for text in texts]


@functools.cache
def moses_tokenizer(language: str):
    """Moses' tokenizer of a language (Koehn et al. 2007), by sacremoses."""
    return sacremoses.MosesTokenizer(language or "en").tokenize


def one_line(text: str) -> str:
    """A text as it stands in a file of lines, of which anyone can score it again."""
    return text.replace("\r", " ").replace("\n", " ")


def exact_match(hypotheses: list[str], references: list[str]) -> float:
    """Share of hypotheses that equal their reference, in percent."""
    equal = sum(
        a.strip() == b.strip() for a, b in zip(hypotheses, references, strict=True)
    )
    return 100 * equal / len(references)
